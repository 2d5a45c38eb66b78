#pragma once

#include <weir/coro/task.h>
#include <weir/net/connection_options.h>
#include <weir/net/connector.h>
#include <weir/net/socket_address.h>
#include <weir/net/tcp_connection.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace weir {

class TlsContext;

/// `co_await resolve("host:port")` gives the addresses of a name in the order of the system
/// (getaddrinfo(3), RFC 6724), as hosts file and nsswitch have it, without blocking the loop: it
/// runs on a thread of its own. "[::1]:80", "1.2.3.4:80" and "unix:/path" need no look-up. The
/// port may be a service's name. Throws `std::system_error` naming the host if it cannot be
/// resolved, `std::invalid_argument` for a text without a port. Dropping it leaves the look-up to
/// end by itself.
[[nodiscard]] Task<std::vector<SocketAddress>> resolve(std::string name);

struct ConnectOptions {
  /// Between the starts of two tries (RFC 8305, 5: 250 ms).
  std::chrono::milliseconds attempt_delay = std::chrono::milliseconds(250);
  /// Bounds the whole, the look-up included; 0: nothing does.
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
  ConnectionOptions connection = {};
  /// Speaks TLS (<weir/tls.h>), agreed on within `timeout` too. What it stands for is kept from the
  /// call on.
  const TlsContext* tls = nullptr;
  /// Whom the server has to prove to be, if not the name that is connected to.
  std::string_view server_name = {};
  /// What is sent before all else, TLS included: what `proxy_header` makes. Copied by the call.
  std::string_view proxy_header = {};
};

/// `co_await connect("host:port")` resolves the name and tries its addresses by RFC 8305 (Happy
/// Eyeballs): IPv6 and IPv4 in turn, the next one started when `attempt_delay` has passed or a try
/// failed; the first that connects wins and the others are closed. Throws the last error if none
/// does, `std::errc::timed_out` after `timeout`. "unix:/path" too: a name that a peer gives is to
/// be looked at before, or it reaches the sockets of this machine. Dropping it closes what is under
/// way.
[[nodiscard]] Task<TcpConnection> connect(std::string name, ConnectOptions options = {});

/// The same for addresses at hand.
[[nodiscard]] Task<Socket> connect_any(std::vector<SocketAddress> addresses,
                                       std::chrono::milliseconds attempt_delay);

}  // namespace weir
