#pragma once

#include <weir/net/socket_address.h>

#include <memory>

namespace weir {

struct InspectorOptions {
  /// Where it answers: a Unix socket, whose file only its owner may use, or a TCP address. Whoever
  /// reaches it sees the peers' addresses and the program's source positions: loopback as a rule.
  SocketAddress address = {};
};

/// Shows what the event loops of this process do, on a thread and loop of its own, so that it
/// answers when all the others are busy or one is stuck:
///
///     Inspector inspector({.address = SocketAddress::parse("unix:/run/app/weir.sock")});
///     $ curl --unix-socket /run/app/weir.sock http://weir/tasks
///
/// HTTP/1.1, GET (RFC 9112). As text, or as JSON for `Accept: application/json`:
/// - `/tasks`: the coroutines of each loop as a tree: function, file and line where each waits, for
///   what, and for how long;
/// - `/connections`: state, bytes unread, pending and sent, marks, and whether they are paused;
/// - `/loops`: counters of each, and which does not answer, and for how long its turn lasts;
/// - `/events`: what came last on each loop;
/// - `/metrics`: counters and histograms of loops and servers in Prometheus' text format, 0.0.4;
/// - `/`: all of it for a person, as one page of HTML.
/// A loop that does not answer within 100 ms is shown as stuck, with what is known from outside:
/// what its thread does, where its task awaited last, and its stack, for which the thread may get a
/// signal (docs/debugging.md).
/// Simulated loops are not shown. It serves 16 clients at a time, each for ten idle seconds.
///
/// While there is one, SIGQUIT does not end the process but has what `/loops`, `/connections`,
/// `/tasks` and `/events` show written to the log, at level warning, by the inspector's thread. Not
/// where the program has a handler for SIGQUIT or ignores it, nor while it waits for it by
/// `Signals` or `signal`, nor in a simulated world. With the last inspector the default action is
/// back.
///
/// With WEIR_INSPECT=ADDRESS (`unix:/path`, `127.0.0.1:port`) in the environment the first loop
/// that runs starts one that lives as long as the process; that it cannot be is logged.
///
/// In a process that `TcpServer::hand_over` has started it takes the address as soon as the
/// predecessor lets go of it, which may be a while.
///
/// From any thread. Its destructor ends it, and its thread.
class Inspector {
 public:
  /// Listens. Throws `std::invalid_argument` without an address, `std::system_error` where it
  /// cannot listen, or for want of descriptors.
  explicit Inspector(InspectorOptions options);
  Inspector(const Inspector&) = delete;
  Inspector& operator=(const Inspector&) = delete;
  ~Inspector();

  /// The bound address; empty while a predecessor has it.
  [[nodiscard]] SocketAddress address() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace weir
