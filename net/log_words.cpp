#include <weir/net/log_words.h>

#include <algorithm>
#include <initializer_list>

namespace weir::detail {

namespace {

bool is_any(const std::error_code& code, std::initializer_list<std::errc> of) noexcept {
  return std::any_of(of.begin(), of.end(), [&](std::errc one) { return code == one; });
}

bool breaks(const std::error_code& code) noexcept {
  return is_any(code,
                {std::errc::connection_reset, std::errc::broken_pipe, std::errc::connection_aborted,
                 std::errc::connection_refused, std::errc::host_unreachable,
                 std::errc::network_unreachable, std::errc::protocol_error});
}

/// Of what is no system's error: none.
std::error_code code_of(const std::exception_ptr& failure) noexcept {
  try {
    std::rethrow_exception(failure);
  } catch (const std::system_error& error) {
    return error.code();
  } catch (...) {
    return {};
  }
}

}  // namespace

bool is_a_peers_doing(const std::error_code& code) noexcept {
  return breaks(code) || is_any(code, {std::errc::timed_out, std::errc::message_size,
                                       std::errc::operation_canceled});
}

bool is_a_peers_doing(const std::exception_ptr& failure) noexcept {
  return is_a_peers_doing(code_of(failure));
}

bool tells_of_a_break(const std::exception_ptr& failure) noexcept {
  return breaks(code_of(failure));
}

bool tells_of_an_end(const std::exception_ptr& failure) noexcept {
  return code_of(failure) == std::errc::connection_aborted;
}

LogLine& operator<<(LogLine& line, const SocketAddress& address) noexcept {
  try {
    return line << std::string_view(address.to_string());
  } catch (...) {  // there is no memory to write it with
    return line << "port " << address.port();
  }
}

}  // namespace weir::detail
