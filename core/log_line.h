#pragma once

#include <weir/core/logging.h>

#include <charconv>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string_view>

namespace weir::detail {

/// A line that is put together without memory from the heap: how a failure is told when that is
/// what failed. Control characters, with which a peer could forge lines, are escaped; what is too
/// long is cut.
class LogLine {
 public:
  LogLine& operator<<(std::string_view text) noexcept;

  LogLine& operator<<(std::integral auto number) noexcept {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, number);
    return *this << std::string_view(digits, static_cast<std::size_t>(end.ptr - digits));
  }

  operator std::string_view() const noexcept { return {text_, size_}; }

 private:
  std::size_t size_ = 0;
  char text_[1024];
};

/// A line of "`what`: " and the text of the exception.
void write_failure(logging::Level level, std::string_view what,
                   const std::exception_ptr& failure) noexcept;

/// A place whose lines a peer can cause. It may write a few in a second; how many more there would
/// have been the log says when the second is over. `what` names them all: "connections that broke".
/// Of static duration; any thread.
class LogLimit {
 public:
  explicit constexpr LogLimit(const char* what) noexcept : what_(what) {}
  LogLimit(const LogLimit&) = delete;
  LogLimit& operator=(const LogLimit&) = delete;

  /// Whether a line of this level is to be written. In a simulated world each of them is.
  [[nodiscard]] bool admits(logging::Level level) noexcept;

 private:
  friend class Log;
  static constexpr int kLinesPerSecond = 5;

  const char* what_;
  LogLimit* next_ = nullptr;  // in the log's list of those that have left out something
  std::chrono::steady_clock::time_point second_{};  // when it began
  std::uint64_t left_out_ = 0;
  std::uint64_t epoch_ = 0;  // of the logger that it counts for
  int lines_ = 0;
  logging::Level level_ = logging::Level::info;
};

}  // namespace weir::detail
