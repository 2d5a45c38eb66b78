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

class Signals;
class TlsContext;

namespace detail {
class ServerCore;
}

/// By what a server with several loops chooses the loop of a connection.
enum class Balance : std::uint8_t {
  least_connections,  // that has the fewest; of those with as few, in turn
  round_robin,
  kernel,  // `ServerOptions::reuse_port`
};

struct ServerOptions {
  SocketAddress address = {};

  /// The first part of its connections' names, and of its messages.
  std::string name = "server";

  /// I/O loops. 1: the base loop does everything; more: the base loop accepts and hands out.
  std::size_t threads = 1;

  /// A listener for each I/O loop instead; the kernel spreads the clients, whatever `balance` says.
  bool reuse_port = false;

  int backlog = 4096;

  /// Uses a listening socket that this process was given (LISTEN_FDS: systemd's socket activation,
  /// or a predecessor's `hand_over`) if one is bound to `address`; with port 0, the first that is
  /// bound to its host.
  bool inherit_listeners = true;

  /// Gives the listening sockets that this process opened to the service manager to keep
  /// (NOTIFY_SOCKET, FDSTORE of sd_notify(3); systemd's `FileDescriptorStoreMax=`): who connects
  /// after a crash or during a restart waits for the next process, which inherits them, instead of
  /// being refused. Without a manager, or of more than 253 listeners, nothing is kept. The
  /// manager's copies listen until the service is stopped: no second server of the same process can
  /// bind such an address, and one that the next process has no server for accepts and is not
  /// answered.
  bool store_listeners = false;

  /// Connections at the same time; 0: no limit. Those beyond are closed at once. A peer is an IPv4
  /// address or the /64 of an IPv6 one.
  std::size_t max_connections = 0;
  std::size_t max_connections_per_peer = 0;

  /// Ends a connection whose handler has read nothing, and on which nothing has gone out, for that
  /// long, with RST if something was left to send; 0: never. While output is queued what the peer
  /// acknowledges counts as well, so that who reads slowly is not idle.
  std::chrono::milliseconds idle_timeout = {};

  /// What `run` grants the handlers after SIGINT or SIGTERM.
  std::chrono::milliseconds drain_timeout = std::chrono::seconds(10);

  ConnectionOptions connection = {};
  LoopOptions loop = {};

  /// Permissions of a Unix socket's file, whatever the umask: who may write to it may connect.
  unsigned unix_mode = 0660;

  /// Resets a connection of whose queued output nothing has gone for that long, and of what went
  /// before nothing was acknowledged by the peer (SIOCOUTQ, tcp(7)); 0: never.
  std::chrono::milliseconds write_timeout = {};

  /// How long `hand_over` waits for the successor to accept; 0: for ever.
  std::chrono::milliseconds hand_over_timeout = std::chrono::seconds(30);

  /// Speaks TLS (<weir/tls.h>), from the accept on; the handler is called once that is agreed on. A
  /// handshake that fails is counted and logged, and closes the connection. What it stands for is
  /// kept from the server's construction on.
  const TlsContext* tls = nullptr;

  /// Networks ("10.0.0.0/8", "fd00::/8", an address, "unix:" for every client of a Unix socket)
  /// whose connections come from proxies and begin with a PROXY protocol header, version 1 or 2
  /// (haproxy's doc/proxy-protocol.txt), also before TLS. `peer_address`, names and
  /// `max_connections_per_peer` are then the client's; of a header that names none (LOCAL, UNKNOWN,
  /// datagrams) they stay the proxy's. The handler is called once the header is there. One that is
  /// missing, malformed, larger than 4 KiB or not there after 10 s closes the connection, and is
  /// counted (`ServerMetrics::failed_handshakes`) and logged. From others a header is data.
  std::vector<std::string> proxy_trusted = {};

  /// Who serves a connection, with several `threads`; the base loop hands it out.
  Balance balance = Balance::least_connections;
};

/// What became of the connections that a drain found.
struct DrainReport {
  std::size_t finished = 0;  // ended in time, also by a peer's reset, a timeout or a failure
  std::size_t forced = 0;    // reset at the limit, or by a stop before it; also one whose peer had
                             // got everything and kept its own end open, if `linger` is longer
};

/// What a server has done so far.
struct ServerMetrics {
  std::size_t connections = 0;          // now
  std::uint64_t accepts = 0;            // connections accepted
  std::uint64_t refused = 0;            // by a limit
  std::uint64_t shed = 0;               // closed at once for want of descriptors
  std::uint64_t failures = 0;           // exceptions that left a handler, as `handler_failures`
  std::uint64_t bytes_in = 0;           // that came for its handlers; of TLS, what was inside
  std::uint64_t bytes_out = 0;          // of theirs that the kernel has taken
  std::uint64_t handshakes = 0;         // of TLS, that were done
  std::uint64_t failed_handshakes = 0;  // refused, cut off, or given up; and bad PROXY headers
};

/// Accepts connections and runs a handler, one coroutine, for each. A connection lives on one
/// loop. An exception that leaves a handler closes its connection, is counted and logged, and
/// harms no other. If that connection had sent anything, what is queued still goes, and RST instead
/// of FIN behind it, so that the peer takes no part for the whole; but for exceptions that tell
/// what a peer did (`handler_failures`).
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
  /// Stops, and waits for a `run` that is under way on another thread. From any thread but those of
  /// its own pool.
  ~TcpServer();

  /// One more address to listen on, before it listens. Throws `std::logic_error` after.
  void add_address(const SocketAddress& address);

  /// Binds and listens now, so that `address` is known before `run`; clients wait in the kernel's
  /// backlog until then. Throws `std::system_error` naming the address.
  void listen();

  /// Listens, and runs the loop on this thread until SIGINT, SIGTERM or `stop`. A signal drains for
  /// `drain_timeout`; a second one ends at once. When it returns nothing is under way any more. The
  /// handler is called once for each connection, on the connection's loop (with several threads at
  /// the same time), and kept as long as any of its coroutines. Throws `std::system_error` if it
  /// cannot listen, or, drained as by a signal, if a listener breaks: somebody else who has it has
  /// shut it down.
  ///
  /// A service manager that asks for it (sd_notify(3): NOTIFY_SOCKET, WATCHDOG_USEC) is told when
  /// it accepts and when it ends, and meanwhile that every loop of it answers.
  void run(Handler handler);

  /// Listens on the given loop and returns. From the loop's thread, or from any while it does not
  /// run, or while it runs on another. Throws `std::system_error` if it cannot listen. A listener
  /// that breaks later is logged, as an error; the others, and the connections, are served on.
  void start(Handler handler);

  /// The bound address, once it listens; the first of several.
  [[nodiscard]] SocketAddress address() const;

  /// `co_await drain(limit)`, on the base loop: stops accepting, lets the handlers end and what
  /// they sent go out, and resets what is left after `limit`. What is in the kernel's backlog by
  /// then is still served. When it resumes nothing of the server is left: `connection_count` is 0.
  template <class Rep, class Period>
  [[nodiscard]] Task<DrainReport> drain(std::chrono::duration<Rep, Period> limit) {
    return drain_within(detail::to_duration(limit));
  }

  /// `co_await hand_over(command)` starts a successor, `command` being its path and arguments, that
  /// inherits the listening sockets (LISTEN_FDS). True once it accepts, which a `TcpServer` says by
  /// itself (others write a byte to the descriptor WEIR_READY_FD); from then on both accept: to
  /// follow with `drain`, which loses no connection. False, and logged, if it cannot be started,
  /// ended, or was not ready within `hand_over_timeout`: it is killed, without having accepted
  /// anybody, and this one serves on. Dropping it before is the same. On the base loop, while the
  /// server lives. Throws `std::logic_error` if it does not listen, and in the simulation.
  [[nodiscard]] Task<bool> hand_over(const std::vector<std::string>& command);

  /// Stops accepting and cuts off all connections; `run` returns. From any thread, also from a
  /// handler.
  void stop();

  /// From any thread.
  [[nodiscard]] std::size_t connection_count() const noexcept;
  /// Exceptions that left a handler so far, but for those that tell what its peer did, or a
  /// deadline or this side to it: a reset of its connection, `timed_out`, `message_size`,
  /// `operation_canceled` … That another connection broke, to a server behind this one, counts.
  /// From any thread.
  [[nodiscard]] std::uint64_t handler_failures() const noexcept;
  /// Connections refused by a limit so far. From any thread.
  [[nodiscard]] std::uint64_t refused() const noexcept;
  /// Connections closed at once for want of descriptors so far. From any thread.
  [[nodiscard]] std::uint64_t shed() const noexcept;

  /// All of these, and the bytes. From any thread. Bytes are counted by the loops, each for itself:
  /// those of the calling thread's loop, and of loops that do not run, are up to date. The others
  /// are asked and answer in their next turn, for which this waits, 20 ms at the most; of one that
  /// is busy for longer it gives what it had answered before, or has since. They never go back.
  /// On the thread of a loop that loop stands still meanwhile: ask once in a while there, or from
  /// `blocking`. What goes out when the server is gone, or its `stop` is through, is not counted.
  [[nodiscard]] ServerMetrics metrics() const noexcept;
  /// The loops that serve connections, from the start to the end of the server. From any thread.
  [[nodiscard]] std::vector<EventLoop*> loops() const;

  /// Calls the function for each connection on the connection's own loop, one at a time; of many,
  /// so many in a turn of the loop as take it a few milliseconds. From a thread without a loop it
  /// returns when all are done, and throws what the function threw; from a loop's thread it begins
  /// with that loop's and leaves the rest, and the others, to later turns. The connection must not
  /// be kept. The function may end any connection, and the server. If it throws, those that were to
  /// come on that loop are left out; on a loop's thread that is logged.
  void for_each_connection(std::function<void(TcpConnection&)> function);

  /// The base loop. Throws `std::logic_error` before a loop stands.
  [[nodiscard]] EventLoop& loop() const;

 private:
  struct Parts;

  void make_core(EventLoop& base, ServerOptions options);
  Task<DrainReport> drain_within(Duration limit);
  Task<> run_to_end(Signals& signals);
  Task<> supervise(Signals& signals);
  void end_shares();

  std::unique_ptr<Parts> parts_;
  std::shared_ptr<detail::ServerCore> core_;
};

}  // namespace weir
