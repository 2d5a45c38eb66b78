#pragma once

#include <weir/coro/list.h>

#include <cstdint>
#include <functional>
#include <mutex>

namespace weir {

class EventLoop;

namespace detail {

/// A loop's entry in the list of all.
struct LoopEntry {
  LoopEntry(EventLoop& of, std::uint64_t as) noexcept : loop(of), number(as) {}

  Link link;
  EventLoop& loop;
  const std::uint64_t number;
  bool hidden = false;
};

/// The loops of the process that run on the kernel. From any thread.
class AllLoops {
 public:
  /// Never destroyed.
  static AllLoops& instance();

  void add(LoopEntry& entry) noexcept;
  /// Waits for whoever looks at it.
  void remove(LoopEntry& entry) noexcept;
  [[nodiscard]] std::uint64_t next_number() noexcept;
  /// It serves those who look, and is not looked at.
  void hide(const EventLoop& loop) noexcept;
  /// Calls the function for each but hidden ones, none of which can go meanwhile.
  void for_each(const std::function<void(EventLoop&, std::uint64_t number)>& function);

 private:
  std::mutex mutex_;
  List<LoopEntry> entries_;
  std::uint64_t last_number_ = 0;
};

/// Called when a loop of the kernel's runs: starts the inspector that the environment asks for
/// (WEIR_INSPECT), once. Defined by the net layer.
void inspect_if_asked() noexcept;

}  // namespace detail
}  // namespace weir
