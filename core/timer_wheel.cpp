#include <weir/core/timer_wheel.h>

#include <algorithm>
#include <bit>

namespace weir::detail {

std::uint64_t TimerWheel::due_tick(const Timer& timer) noexcept {
  // The clock began at zero: what lies before is due.
  const auto nanoseconds = static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, timer.deadline().time_since_epoch().count()));
  constexpr std::uint64_t kPart = (1 << kTickBits) - 1;
  return (nanoseconds >> kTickBits) + ((nanoseconds & kPart) != 0 ? 1 : 0);
}

void TimerWheel::arm(Timer& timer) noexcept {
  insert(timer);
  ++size_;
}

void TimerWheel::insert(Timer& timer) noexcept {
  // What is due already fires with the next tick, never in the middle of one.
  const std::uint64_t tick = std::max(due_tick(timer), now_ + 1);
  // The level is that of the highest digit in which the deadline differs from now.
  const std::uint64_t difference = tick ^ now_;
  const int level = (63 - std::countl_zero(difference)) / kSlotBits;
  const std::uint64_t slot = (tick >> (level * kSlotBits)) % kSlots;
  timer.slot_ = static_cast<std::uint16_t>(static_cast<std::uint64_t>(level) * kSlots + slot);
  occupied_[static_cast<std::size_t>(level)] |= std::uint64_t{1} << slot;
  slots_[static_cast<std::size_t>(level)][slot].push_back(timer);
}

void TimerWheel::disarm(Timer& timer) noexcept {
  timer.link.unlink();
  --size_;
  const std::size_t level = timer.slot_ / kSlots;
  const std::size_t slot = timer.slot_ % kSlots;
  if (slots_[level][slot].empty()) occupied_[level] &= ~(std::uint64_t{1} << slot);
}

bool TimerWheel::find_next(Next& next) const noexcept {
  // Deadlines of a lower level all lie before those of a higher one: they share with now every
  // digit above their own.
  for (int level = 0; level < kLevels; ++level) {
    const std::uint64_t occupied = occupied_[static_cast<std::size_t>(level)];
    if (occupied == 0) continue;
    const int shift = level * kSlotBits;
    const std::uint64_t slot = static_cast<std::uint64_t>(std::countr_zero(occupied));
    const int above = shift + kSlotBits;
    const std::uint64_t base = above >= 64 ? 0 : (now_ >> above) << above;
    next = {level, slot, base + (slot << shift)};
    return true;
  }
  return false;
}

TimePoint TimerWheel::next() const noexcept {
  if (empty()) return TimePoint::max();
  Next next{};
  if (!find_next(next)) return TimePoint::max();
  constexpr auto kLast = static_cast<std::uint64_t>(TimePoint::max().time_since_epoch().count());
  if (next.tick > (kLast >> kTickBits)) return TimePoint::max();
  return TimePoint(TimePoint::duration(static_cast<std::int64_t>(next.tick << kTickBits)));
}

std::size_t TimerWheel::expire(TimePoint time) noexcept {
  const std::uint64_t until = tick_of(time);
  std::size_t fired = 0;
  Next next{};
  while (find_next(next) && next.tick <= until) {
    auto& slot = slots_[static_cast<std::size_t>(next.level)][next.slot];
    // A handler may arm and disarm timers, those of this slot too.
    List<Timer> due;
    due.splice_back(slot);
    occupied_[static_cast<std::size_t>(next.level)] &= ~(std::uint64_t{1} << next.slot);
    now_ = next.tick;
    while (Timer* timer = due.pop_front()) {
      if (due_tick(*timer) > now_ && next.level > 0) {
        insert(*timer);
      } else {
        --size_;
        ++fired;
        // A deadline may lie before the clock's beginning, by more than a duration can be.
        add_nanoseconds(lag_, (time - std::max(timer->deadline(), TimePoint())).count());
        timer->fire_(*timer);
      }
    }
  }
  if (until > now_) now_ = until;
  return fired;
}

}  // namespace weir::detail
