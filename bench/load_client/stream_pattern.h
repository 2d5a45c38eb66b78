// The bytes that go out, and must come back: a pseudo-random stream with a prime period, which
// every connection enters at a place of its own. The expected byte depends on the connection and on
// the position in its stream, so bytes that are lost, doubled, swapped or another connection's do
// not match, unless they are off by a multiple of the period.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace load_client {

class StreamPattern {
 public:
  static constexpr std::size_t kPeriod = 7919;

  // `longest`: the most bytes that are sent in one piece.
  explicit StreamPattern(std::size_t longest) : bytes_(kPeriod + std::max(longest, kPeriod)) {
    std::uint64_t state = 0x9e3779b97f4a7c15;
    for (std::size_t i = 0; i < kPeriod; ++i) {
      state = state * 6364136223846793005 + 1442695040888963407;
      bytes_[i] = static_cast<char>(state >> 56);
    }
    for (std::size_t i = kPeriod; i < bytes_.size(); ++i) bytes_[i] = bytes_[i - kPeriod];
  }

  static std::size_t start_of(std::size_t connection) { return connection * 4391 % kPeriod; }
  static std::size_t advance(std::size_t place, std::size_t count) {
    return (place + count) % kPeriod;
  }

  const char* at(std::size_t place) const { return bytes_.data() + place; }

  bool matches(std::size_t place, const char* data, std::size_t count) const {
    // Piece by piece, so that a long message is compared with bytes in the first-level cache.
    while (count > kPeriod) {
      if (std::memcmp(at(place), data, kPeriod) != 0) return false;
      data += kPeriod;
      count -= kPeriod;
    }
    return std::memcmp(at(place), data, count) == 0;
  }

 private:
  std::vector<char> bytes_;
};

}  // namespace load_client
