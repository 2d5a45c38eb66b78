#pragma once

#include <system_error>
#include <type_traits>

namespace weir {

/// What the library itself ends a wait or a connection with, apart from what the system says.
/// Whoever does not ask which it was compares with the `std::errc` it stands for.
enum class errc {
  deadline = 1,  // a `timeout` is over; std::errc::timed_out
  idle,          // `ServerOptions::idle_timeout` is; std::errc::timed_out
  unresponsive,  // the peer acknowledges nothing any more (keep-alive, TCP_USER_TIMEOUT), or takes
                 // nothing (`ServerOptions::write_timeout`); std::errc::timed_out
  not_found,     // a name that stands for nothing
  try_again,     // the name service did not answer
  closed_here,   // by this side; std::errc::operation_canceled
};

[[nodiscard]] const std::error_category& error_category() noexcept;

[[nodiscard]] inline std::error_code make_error_code(errc error) noexcept {
  return {static_cast<int>(error), error_category()};
}

}  // namespace weir

template <>
struct std::is_error_code_enum<weir::errc> : std::true_type {};
