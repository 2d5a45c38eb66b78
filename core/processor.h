#pragma once

namespace weir::detail {

/// Binds the calling thread to a processor (sched_setaffinity(2)). Throws `std::system_error` that
/// names the option.
void bind_thread(int cpu);
/// Lets it run where it could before; nothing if it was not bound.
void unbind_thread() noexcept;

/// For its own life the calling thread is not bound: a thread or a process that it begins meanwhile
/// runs where it could before, rather than all of them on the one processor of a loop.
class Unbound {
 public:
  Unbound() noexcept;
  Unbound(const Unbound&) = delete;
  Unbound& operator=(const Unbound&) = delete;
  ~Unbound();
};

}  // namespace weir::detail
