#include <weir/net/log_words.h>

namespace weir::detail {

bool is_a_peers_doing(const std::error_code& code) noexcept {
  for (const std::errc usual :
       {std::errc::connection_reset, std::errc::broken_pipe, std::errc::connection_aborted,
        std::errc::connection_refused, std::errc::timed_out, std::errc::message_size,
        std::errc::operation_canceled, std::errc::host_unreachable, std::errc::network_unreachable,
        std::errc::protocol_error}) {
    if (code == usual) return true;
  }
  return false;
}

bool is_a_peers_doing(const std::exception_ptr& failure) noexcept {
  try {
    std::rethrow_exception(failure);
  } catch (const std::system_error& error) {
    return is_a_peers_doing(error.code());
  } catch (...) {
    return false;
  }
}

LogLine& operator<<(LogLine& line, const SocketAddress& address) noexcept {
  try {
    return line << std::string_view(address.to_string());
  } catch (...) {  // there is no memory to write it with
    return line << "port " << address.port();
  }
}

}  // namespace weir::detail
