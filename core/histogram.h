#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace weir::detail {

/// How often something took how long: bucket i has what took less than 2^i units, and not less than
/// those before it; the last one all that is longer. On one thread.
class Histogram {
 public:
  static constexpr std::size_t kBuckets = 18;

  /// `units` decide on the bucket, `exactly` adds to the sum, in units of its own.
  void add(std::uint64_t units, std::uint64_t exactly) noexcept {
    const auto bucket = static_cast<std::size_t>(std::bit_width(units));
    ++counts_[bucket < kBuckets ? bucket : kBuckets];
    sum_ += exactly;
  }

  [[nodiscard]] std::uint64_t count(std::size_t bucket) const noexcept { return counts_[bucket]; }
  [[nodiscard]] std::uint64_t sum() const noexcept { return sum_; }

  Histogram& operator+=(const Histogram& other) noexcept {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    sum_ += other.sum_;
    return *this;
  }

 private:
  std::array<std::uint64_t, kBuckets + 1> counts_{};
  std::uint64_t sum_ = 0;
};

/// For nanoseconds: units of 65.536 µs.
inline constexpr int kFineBits = 16;
inline void add_nanoseconds(Histogram& to, std::int64_t nanoseconds) noexcept {
  const auto time = static_cast<std::uint64_t>(nanoseconds > 0 ? nanoseconds : 0);
  to.add(time >> kFineBits, time);
}

}  // namespace weir::detail
