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
  explicit StreamPattern(std::size_t longest) : bytes_(period + std::max(longest, kPeriod)) {
    std::uint64_t state = 0x9e3779b97f4a7c15;
    for (std::size_t i = 0; i < period; ++i) {
      state = state * 6364136223846793005 + 1442695040888963407;
      bytes_[i] = static_cast<char>(state >> 56);
      if (line > 0 && bytes_[i] == '\n') bytes_[i] = ' ';
      if (line > 0 && i % line == line - 1) bytes_[i] = '\n';
    }
    for (std::size_t i = period; i < bytes_.size(); ++i) bytes_[i] = bytes_[i - period];
  }

  // Before the first pattern is made: messages are lines of so many bytes, at most kPeriod.
  static void be_lines(std::size_t bytes) {
    line = bytes;
    period = kPeriod / bytes * bytes;
  }

  static std::size_t start_of(std::size_t connection) {
    const std::size_t place = connection * 4391 % period;
    return line > 0 ? place / line * line : place;
  }
  static std::size_t advance(std::size_t place, std::size_t count) {
    return (place + count) % period;
  }

  const char* at(std::size_t place) const { return bytes_.data() + place; }

  bool matches(std::size_t place, const char* data, std::size_t count) const {
    // Piece by piece, so that a long message is compared with bytes in the first-level cache.
    while (count > period) {
      if (std::memcmp(at(place), data, period) != 0) return false;
      data += period;
      count -= period;
    }
    return std::memcmp(at(place), data, count) == 0;
  }

 private:
  inline static std::size_t period = kPeriod;
  inline static std::size_t line = 0;

  std::vector<char> bytes_;
};

}  // namespace load_client
