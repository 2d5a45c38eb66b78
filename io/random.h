#pragma once

#include <cstdint>

namespace weir::detail {

/// A seeded stream of numbers (SplitMix64), the same on every machine and with every library.
class Random {
 public:
  /// How far the state moves with each number.
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15;

  explicit constexpr Random(std::uint64_t seed) noexcept : state_(seed) {}

  constexpr std::uint64_t next() noexcept {
    std::uint64_t mixed = (state_ += kStep);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
  }

  /// 0 to `limit` - 1; 0 for a limit of 0.
  constexpr std::uint64_t below(std::uint64_t limit) noexcept {
    const std::uint64_t drawn = next();
    return limit == 0 ? 0 : drawn % limit;
  }

  /// True with this probability. It draws even where the answer is certain, so that one fault
  /// switched off does not move all the others.
  constexpr bool chance(double probability) noexcept {
    constexpr double kRange = 1ULL << 53;
    return static_cast<double>(next() >> 11) < probability * kRange;
  }

 private:
  std::uint64_t state_;
};

}  // namespace weir::detail
