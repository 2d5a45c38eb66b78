#pragma once

#include <weir/coro/list.h>
#include <weir/coro/scheduler.h>

#include <atomic>
#include <cstdint>
#include <string_view>

namespace weir::detail {

/// What a loop shows of its turns to whoever looks for stalls, on another thread. It costs a turn
/// two stores and a look.
class TurnWatch {
 public:
  TurnWatch(Duration longest, std::string_view name) noexcept : limit(longest), of(name) {}

  // The loop's thread.
  void begin(std::uint64_t turn) noexcept {
    turn_.store(turn, std::memory_order_relaxed);
    if (unwatched_.load(std::memory_order_relaxed)) [[unlikely]]
      wake_watcher();
  }
  void end() noexcept { turn_.store(0, std::memory_order_relaxed); }

  // Any thread.
  /// The number of the turn that is under way; 0: none is.
  [[nodiscard]] std::uint64_t turn() const noexcept {
    return turn_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t stalls() const noexcept {
    return stalls_.load(std::memory_order_relaxed);
  }
  void count_stall() noexcept { stalls_.fetch_add(1, std::memory_order_relaxed); }

  const Duration limit;       // 0: nobody looks
  const std::string_view of;  // the loop's name

  /// The loop is looked at no more, from some moment on: its next turn has to say that it is there.
  void set_unwatched(bool unwatched) noexcept {
    unwatched_.store(unwatched, std::memory_order_relaxed);
  }

  // The watcher's, with its lock.
  Link link;
  int thread = 0;          // the kernel's number of the one that runs the loop
  std::uint64_t seen = 0;  // the turn that was under way when it looked last
  TimePoint since;         // it has been since then, at least
  bool told = false;

 private:
  /// Defined by the io layer.
  [[gnu::cold]] void wake_watcher() noexcept;

  std::atomic<std::uint64_t> turn_{0};
  std::atomic<std::uint64_t> stalls_{0};
  std::atomic<bool> unwatched_{false};
};

}  // namespace weir::detail
