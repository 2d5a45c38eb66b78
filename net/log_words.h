#pragma once

#include <weir/core/log_line.h>
#include <weir/net/socket_address.h>

#include <exception>
#include <system_error>

namespace weir::detail {

/// What a peer does, or a deadline or we to it, as often as peers like: information. An error is
/// what only a bug or the system can cause.
[[nodiscard]] bool is_a_peers_doing(const std::error_code& code) noexcept;
/// Of an exception of any type.
[[nodiscard]] bool is_a_peers_doing(const std::exception_ptr& failure) noexcept;
/// Whether it is the code of a connection that broke: of which, it does not say.
[[nodiscard]] bool tells_of_a_break(const std::exception_ptr& failure) noexcept;
/// Whether it is that of a stream that ended too early.
[[nodiscard]] bool tells_of_an_end(const std::exception_ptr& failure) noexcept;

LogLine& operator<<(LogLine& line, const SocketAddress& address) noexcept;

}  // namespace weir::detail
