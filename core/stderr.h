#pragma once

#include <chrono>
#include <string_view>

/// Standard error, as careful as a library has to be: never another file that happens to have its
/// number. Nothing is written if it was closed when the program began, nor to a socket, eventfd and
/// the like that was not there then. A write to a pipe whose reader is dead raises SIGPIPE.
namespace weir::detail {

/// As long as it takes; what cannot be written is given up. Errors are nobody's to hear of.
void write_stderr(std::string_view text) noexcept;

/// Only if it takes up to 4 KiB without waiting longer than `limit`.
void write_stderr_within(std::chrono::milliseconds limit, std::string_view text) noexcept;

}  // namespace weir::detail
