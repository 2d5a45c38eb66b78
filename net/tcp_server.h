#pragma once

#include <weir/core/event_loop.h>
#include <weir/net/connection_options.h>
#include <weir/net/socket_address.h>
#include <weir/net/tcp_connection.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace weir {

struct ServerOptions {
  SocketAddress address;

  /// The first part of its connections' names, and of its messages.
  std::string name = "server";

  /// I/O loops. 1: the base loop does everything; more: the base loop accepts and hands out.
  std::size_t threads = 1;

  /// A listener for each I/O loop instead; the kernel spreads the clients.
  bool reuse_port = false;

  int backlog = 4096;

  /// Uses a listening socket that this process was given (LISTEN_FDS: systemd's socket activation,
  /// or a predecessor's `hand_over`) if one is bound to `address`; with port 0, the first that is
  /// bound to its host.
  bool inherit_listeners = true;

  /// Connections at the same time; 0: no limit. Those beyond are closed at once. A peer is an IPv4
  /// address or the /64 of an IPv6 one.
  std::size_t max_connections = 0;
  std::size_t max_connections_per_peer = 0;

  /// Ends a connection whose handler has read nothing, and on which nothing has gone out, for that
  /// long; 0: never.
  std::chrono::milliseconds idle_timeout = {};

  /// What `run` grants the handlers after SIGINT or SIGTERM.
  std::chrono::milliseconds drain_timeout = std::chrono::seconds(10);

  ConnectionOptions connection = {};
  LoopOptions loop = {};
};

/// What became of the connections that a drain found.
struct DrainReport {
  std::size_t finished = 0;  // their handlers ended in time
  std::size_t forced = 0;    // cut off at the deadline
};

/// Accepts connections and runs a handler, one coroutine, for each. A connection lives on one
/// loop. An exception that leaves a handler closes its connection, is counted and logged, and
/// harms no other.
class TcpServer {
 public:
  using Handler = std::function<Task<>(TcpConnection)>;

  /// A server with a loop of its own, for `run`. Throws `std::invalid_argument` for a bad option.
  explicit TcpServer(ServerOptions options);
  /// A server on a loop that somebody runs, for `start`. Should the loop end first, the connections
  /// end with it.
  TcpServer(EventLoop& loop, ServerOptions options);
  TcpServer(const TcpServer&) = delete;
  TcpServer& operator=(const TcpServer&) = delete;
  /// Stops. From any thread but those of its own pool.
  ~TcpServer();

  /// Binds and listens now, so that `address` is known before `run`; clients wait in the kernel's
  /// backlog until then. Throws `std::system_error` naming the address.
  void listen();

  /// Listens, and runs the loop on this thread until SIGINT, SIGTERM or `stop`. A signal drains for
  /// `drain_timeout`; a second one ends at once. The handler is called once for each connection,
  /// on the connection's loop (with several threads at the same time), and kept as long as any of
  /// its coroutines. Throws `std::system_error` if it cannot listen.
  void run(Handler handler);

  /// Listens on the given loop and returns. From the loop's thread, or from any while it does not
  /// run, or while it runs on another. Throws `std::system_error` if it cannot listen.
  void start(Handler handler);

  /// The bound address, once it listens.
  [[nodiscard]] SocketAddress address() const;

  /// `co_await drain(limit)`, on the base loop: stops accepting, lets the handlers end, and cuts
  /// off what is left after `limit`. What is in the kernel's backlog by then is still served.
  [[nodiscard]] Task<DrainReport> drain(std::chrono::nanoseconds limit);

  /// Starts a successor, `command` being its path and arguments, that inherits the listening
  /// sockets (LISTEN_FDS), and gives its process id. From then on both accept; to follow with
  /// `drain`, which loses no connection: what is in the backlog is the successor's as well. From
  /// the base loop's thread. Throws `std::system_error` if it cannot be started.
  int hand_over(const std::vector<std::string>& command);

  /// Stops accepting and cuts off all connections; `run` returns. From any thread, also from a
  /// handler.
  void stop();

  /// From any thread.
  [[nodiscard]] std::size_t connection_count() const noexcept;
  /// Exceptions that left a handler so far. From any thread.
  [[nodiscard]] std::uint64_t handler_failures() const noexcept;
  /// Connections refused by a limit so far. From any thread.
  [[nodiscard]] std::uint64_t refused() const noexcept;
  /// Connections closed at once for want of descriptors so far. From any thread.
  [[nodiscard]] std::uint64_t shed() const noexcept;

  /// Calls the function for each connection on the connection's own loop, one at a time. From a
  /// thread without a loop it returns when all are done; from a loop's thread it does that loop's
  /// at once and leaves the others to their loops. The connection must not be kept.
  void for_each_connection(std::function<void(TcpConnection&)> function);

  /// The base loop. Throws `std::logic_error` before a loop stands.
  [[nodiscard]] EventLoop& loop() const;

 private:
  class Core;
  std::shared_ptr<Core> core_;
};

}  // namespace weir
