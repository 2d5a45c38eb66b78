// Counts of latencies in the manner of HDR histograms: exact up to 127 ns, above that 128 steps per
// power of two, so every figure is right to 0.8 %.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>

namespace load_client {

class LatencyHistogram {
 public:
  void record(std::chrono::nanoseconds latency) {
    const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(latency.count(), 0));
    maximum_ = std::max(maximum_, value);
    ++count_;
    ++counts_[std::min(index_of(value), counts_.size() - 1)];
  }

  std::uint64_t count() const { return count_; }
  std::chrono::nanoseconds max() const { return as_duration(maximum_); }

  // The latency which the fraction `quantile` of all does not exceed.
  std::chrono::nanoseconds at(double quantile) const {
    const double rank = quantile * static_cast<double>(count_);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen != 0 && static_cast<double>(seen) >= rank) {
        return as_duration(std::min(highest_of(i), maximum_));
      }
    }
    return as_duration(0);
  }

 private:
  static constexpr unsigned kStepBits = 7;
  static constexpr std::uint64_t kSteps = 1 << kStepBits;
  static constexpr unsigned kPowers = 40;  // up to 2^46 ns, the better part of a day

  static std::size_t index_of(std::uint64_t value) {
    if (value < kSteps) return value;
    const auto shift = static_cast<unsigned>(std::bit_width(value)) - kStepBits - 1;
    return shift * kSteps + (value >> shift);
  }
  static std::uint64_t highest_of(std::size_t index) {
    if (index < 2 * kSteps) return index;
    const auto shift = static_cast<unsigned>(index / kSteps) - 1;
    return ((index - shift * kSteps + 1) << shift) - 1;
  }
  static std::chrono::nanoseconds as_duration(std::uint64_t value) {
    return std::chrono::nanoseconds(static_cast<std::int64_t>(value));
  }

  std::array<std::uint64_t, kSteps * kPowers> counts_{};
  std::uint64_t count_ = 0;
  std::uint64_t maximum_ = 0;
};

}  // namespace load_client
