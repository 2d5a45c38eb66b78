#pragma once

#include <weir/core/logging.h>

#include <chrono>
#include <cstddef>
#include <span>
#include <string_view>

namespace weir::detail {

// A line of the log as an object of JSON, in two parts: what the thread knows that writes it, and
// what comes in front of that. Neither allocates; each gives how many bytes it has written.

/// `"loop":"chat","thread":7,"message":"…"}`, what there is of it on this thread. A message that
/// finds no room is cut. Of at least 2 KiB.
std::size_t write_json_fields(std::span<char> to, std::string_view context,
                              std::string_view message) noexcept;
/// `{"time":"2024-02-29T12:00:00.123Z","level":"info",`. Of at least `kLongestJsonHead` bytes.
inline constexpr std::size_t kLongestJsonHead = 96;
std::size_t write_json_head(std::span<char> to, std::chrono::system_clock::time_point time,
                            logging::Level level) noexcept;

}  // namespace weir::detail
