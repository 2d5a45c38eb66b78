#pragma once

#include <weir/coro/scheduler.h>

#include <cstdint>
#include <thread>

/// 1, unless the library was configured with WEIR_CHECKS=OFF: uses from a wrong thread end the
/// process with a text that says what to use instead.
#ifndef WEIR_CHECKS
#define WEIR_CHECKS 1
#endif

namespace weir::detail {

/// Ends the process, unless `owner` does not run: it may be used from any thread then.
void check_stranger(const Scheduler& owner, const char* what, const char* instead) noexcept;

/// For what belongs to one loop and has no lock: `what` names it, `instead` says what other
/// threads have to use. Two instructions where all is well. Not for the path of a request.
inline void check_owner(const Scheduler& owner, const char* what, const char* instead) noexcept {
#if WEIR_CHECKS
  if (&owner != Scheduler::current_or_null()) [[unlikely]] {
    check_stranger(owner, what, instead);
  }
#else
  (void)owner, (void)what, (void)instead;
#endif
}

/// What is smaller than a pointer knows its scheduler by this; 0: by none.
using HomeTag = std::uint32_t;

inline HomeTag home_tag(const Scheduler* scheduler) noexcept {
  return static_cast<HomeTag>(reinterpret_cast<std::uintptr_t>(scheduler));
}

/// A scheduler's run on this thread, while it lives.
class Run {
 public:
  explicit Run(const Scheduler& of) noexcept;
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run();

  /// Whether a thread other than this one runs it now.
  [[nodiscard]] static bool is_elsewhere(HomeTag home) noexcept;

 private:
  static void know_of_forks() noexcept;

  HomeTag tag_;
  std::thread::id thread_ = std::this_thread::get_id();
  Run* next_;
};

/// Ends the process if a thread other than this one runs the scheduler, which may have gone.
void check_stranger(HomeTag home, const char* what, const char* instead) noexcept;

/// As the other: three instructions, for the path of a request.
[[gnu::always_inline]] inline void check_owner(HomeTag home, const char* what,
                                               const char* instead) noexcept {
#if WEIR_CHECKS
  if (home != home_tag(Scheduler::current_or_null())) [[unlikely]] {
    check_stranger(home, what, instead);
  }
#else
  (void)home, (void)what, (void)instead;
#endif
}

}  // namespace weir::detail
