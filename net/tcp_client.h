#pragma once

#include <weir/coro/event.h>
#include <weir/coro/task.h>
#include <weir/net/connection_options.h>
#include <weir/net/connector.h>
#include <weir/net/socket_address.h>
#include <weir/net/tcp_connection.h>

#include <functional>
#include <memory>
#include <string>

namespace weir {

class TlsContext;

struct ClientOptions {
  SocketAddress address = {};
  /// How to connect, and to connect again: `max_attempts` of 0 goes on for ever.
  ConnectorOptions connector = {};
  ConnectionOptions connection = {};
  /// Speaks TLS (<weir/tls.h>) before the session begins. What it stands for is kept from the
  /// client's construction on.
  const TlsContext* tls = nullptr;
  /// Whom the server has to prove to be, if not `host` or `address`.
  std::string server_name = {};
  /// "db.example:5432" in place of an address: resolved anew for each connect.
  std::string host = {};
};

/// Keeps one connection at a time to one server: connects, runs a session on it, connects again
/// when the session ends or fails. The first delay after a loss is random, from nothing to
/// `connector.initial_delay`, so that a thousand clients of one server come back spread out. It
/// does not matter which of server and client starts first. Loop's thread only, `stop` apart.
class TcpClient {
 public:
  using Session = std::function<Task<>(TcpConnection&)>;

  /// Throws `std::invalid_argument` naming a bad option.
  explicit TcpClient(ClientOptions options);
  TcpClient(const TcpClient&) = delete;
  TcpClient& operator=(const TcpClient&) = delete;
  /// Stops; a `run` that is still awaited ends.
  ~TcpClient();

  /// `co_await run(session)` goes on until `stop`. An exception that leaves the session is logged
  /// and counts as a lost connection. Throws `std::system_error` when connecting fails for good.
  /// Dropping it drops the session and closes the connection. One `run` at a time, else
  /// `std::logic_error`.
  [[nodiscard]] Task<> run(Session session);

  /// Ends `run`: the session is dropped, the connection closed. From any thread, also before `run`.
  void stop();

  /// `co_await connection()` gives the current connection, waiting for one if there is none. It is
  /// the client's, and goes when its session ends. Throws `std::errc::operation_canceled` once
  /// stopped, or when the `run` ends meanwhile.
  [[nodiscard]] Task<TcpConnection&> connection();

  /// Connections made so far.
  [[nodiscard]] std::uint64_t connects() const noexcept;

 private:
  struct State;

  std::shared_ptr<State> state_;
};

}  // namespace weir
