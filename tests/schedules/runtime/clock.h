#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace weir::schedules {

/// Threads of one schedule at the most.
constexpr std::size_t kMostThreads = 8;

/// A vector clock: for each thread the last of its times that is known to have been.
struct Clock {
  std::array<std::uint32_t, kMostThreads> times{};

  void join(const Clock& other) noexcept {
    for (std::size_t i = 0; i < kMostThreads; ++i) times[i] = std::max(times[i], other.times[i]);
  }
  [[nodiscard]] bool covers(std::size_t thread, std::uint32_t time) const noexcept {
    return time <= times[thread];
  }
};

/// What a thread knows.
struct Knowledge {
  Clock before;    // what happens before its next step: the measure of a race
  Clock seen;      // the same and what sequentially consistent fences make visible
  Clock acquired;  // what an acquire fence would add: of relaxed loads
  Clock released;  // at the last release fence: what a relaxed store gives on
  std::size_t thread = 0;

  [[nodiscard]] std::uint32_t now() const noexcept { return before.times[thread]; }
  void tick() noexcept {
    ++before.times[thread];
    ++seen.times[thread];
  }
  void join(const Clock& other) noexcept {
    before.join(other);
    seen.join(other);
  }
};

}  // namespace weir::schedules
