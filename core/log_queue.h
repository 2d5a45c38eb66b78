#pragma once

#include <weir/core/logging.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace weir::detail {

/// Lines on their way to the log's thread, in a ring of bytes: a line that finds no room takes that
/// of the oldest ones. Not locked, and without memory from the heap.
class LogQueue {
 public:
  static constexpr std::size_t kCapacity = std::size_t{256} << 10;
  static constexpr std::size_t kLongest = std::size_t{8} << 10;

  struct Header {
    std::chrono::system_clock::time_point time;
    std::size_t size;
    logging::Level level;
    bool is_json = false;  // the text is what `write_json_fields` gives
  };

  [[nodiscard]] bool empty() const noexcept { return used_ == 0; }
  /// How many lines have come in, and how many of them are gone again, one way or the other.
  [[nodiscard]] std::uint64_t pushed() const noexcept { return pushed_; }
  [[nodiscard]] std::uint64_t gone() const noexcept { return gone_; }
  /// How many have been lost since the last call.
  [[nodiscard]] std::uint64_t take_lost() noexcept;

  /// Cut at `kLongest`.
  void push(std::chrono::system_clock::time_point time, logging::Level level, std::string_view text,
            bool is_json = false) noexcept;
  /// The oldest line, its text into `text` with room for `kLongest`. Not if empty.
  Header pop(char* text) noexcept;
  void clear() noexcept;

 private:
  void put(const void* bytes, std::size_t count) noexcept;
  void get(void* bytes, std::size_t count) noexcept;

  std::size_t first_ = 0;
  std::size_t used_ = 0;
  std::uint64_t pushed_ = 0;
  std::uint64_t gone_ = 0;
  std::uint64_t lost_ = 0;
  char ring_[kCapacity];  // as the last: what was never used costs no memory
};

}  // namespace weir::detail
