#pragma once

#include <weir/core/histogram.h>
#include <weir/coro/scheduler.h>

#include <array>
#include <cstdint>

namespace weir::detail {

/// A hierarchical timing wheel (Varghese and Lauck, 1987): arming and cancelling are O(1), and an
/// armed timer moves down at most once per level before it fires. Resolution 1.024 µs; deadlines
/// are rounded up, so nothing fires early.
class TimerWheel {
 public:
  explicit TimerWheel(TimePoint start) noexcept : now_(tick_of(start)) {}
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;

  void arm(Timer& timer) noexcept;
  void disarm(Timer& timer) noexcept;

  /// Fires all that are due at `time`, in the order of their deadlines' ticks. Gives how many.
  std::size_t expire(TimePoint time) noexcept;

  /// When to call `expire` again: not later than the first deadline, and possibly earlier, when
  /// timers have to move down a level. `TimePoint::max()` where none is armed.
  [[nodiscard]] TimePoint next() const noexcept;

  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  /// How late they fired.
  [[nodiscard]] const Histogram& lag() const noexcept { return lag_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  static constexpr int kTickBits = 10;  // 1024 ns
  static constexpr int kSlotBits = 6;
  static constexpr std::uint64_t kSlots = 1 << kSlotBits;
  static constexpr int kLevels = 9;  // 54 bits of ticks: all of a 64-bit nanosecond clock

  struct Next {
    int level;
    std::uint64_t slot;
    std::uint64_t tick;  // where the slot begins
  };

  static std::uint64_t tick_of(TimePoint time) noexcept {
    return static_cast<std::uint64_t>(time.time_since_epoch().count()) >> kTickBits;
  }
  static std::uint64_t due_tick(const Timer& timer) noexcept;  // rounded up
  void insert(Timer& timer) noexcept;
  [[nodiscard]] bool find_next(Next& next) const noexcept;

  std::uint64_t now_;  // the tick up to which all has fired
  std::size_t size_ = 0;
  std::array<std::uint64_t, kLevels> occupied_{};  // a bit per slot
  std::array<std::array<List<Timer>, kSlots>, kLevels> slots_;
  Histogram lag_;
};

}  // namespace weir::detail
