#pragma once

#include <weir/core/event_loop.h>
#include <weir/coro/task.h>
#include <weir/net/socket.h>
#include <weir/net/socket_address.h>

#include <chrono>
#include <cstdint>
#include <string>

namespace weir {

struct ConnectorOptions {
  /// Before the second try; doubled before each further one, up to `max_delay`.
  std::chrono::milliseconds initial_delay = std::chrono::milliseconds(500);
  std::chrono::milliseconds max_delay = std::chrono::seconds(30);

  /// The part of each delay that is random, 0 to 1: with 0.5 a delay of 1 s is drawn from 0.5 s to
  /// 1 s, so that clients that lost their server together do not come back together.
  double jitter = 0.5;

  /// Tries; 0: no limit.
  unsigned max_attempts = 0;

  /// Bounds one try; 0: only the system does (two minutes and more).
  std::chrono::milliseconds attempt_timeout = std::chrono::seconds(10);

  /// Bounds a whole `connect`, delays included; 0: nothing does.
  std::chrono::milliseconds total_timeout = {};
};

namespace detail {

/// True for the errors of a connect that may pass: ECONNREFUSED, ECONNRESET, ETIMEDOUT,
/// EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH, EHOSTUNREACH, ENETDOWN, EHOSTDOWN, EAGAIN, EINTR,
/// ENOENT of a Unix path, and want of descriptors or buffers. The rest (EACCES, EPERM,
/// EAFNOSUPPORT, EBADF, EFAULT, ENOTSOCK, EPROTOTYPE …) will not get better by waiting.
[[nodiscard]] bool is_retriable(int error) noexcept;

}  // namespace detail

/// Connects, trying again with back-off. Each try is a new non-blocking socket: it awaits
/// writability, reads SO_ERROR once, makes sure that there is a peer and that it is not itself
/// (a client of an ephemeral port on its own host can meet itself: RFC 9293, 3.5, simultaneous
/// open). Loop's thread only.
class Connector {
 public:
  /// Throws `std::invalid_argument` naming a bad option and its value.
  explicit Connector(const SocketAddress& address, ConnectorOptions options = {});
  /// To "host:port", resolved anew for each try, whose addresses are tried by RFC 8305 as `connect`
  /// does. Names that are not known, or cannot be looked up now, are tried again.
  explicit Connector(std::string host, ConnectorOptions options = {});

  /// `co_await connect()` gives a connected socket. Starts afresh each time. Throws the error of
  /// the last try: a fatal one at once, a retriable one after `max_attempts`;
  /// `std::errc::timed_out` after `total_timeout`. Dropping it closes what is under way.
  [[nodiscard]] Task<Socket> connect() const;

  /// One try without back-off. The same errors.
  [[nodiscard]] Task<Socket> try_once() const;

  /// Empty if it connects to a name.
  [[nodiscard]] const SocketAddress& address() const noexcept { return address_; }

 private:
  SocketAddress address_;
  std::string host_;
  ConnectorOptions options_;
};

}  // namespace weir
