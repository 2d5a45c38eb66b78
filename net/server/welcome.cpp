#include <weir/net/connection.h>
#include <weir/net/connection_access.h>
#include <weir/net/handshake.h>
#include <weir/net/server/core.h>
#include <weir/net/server/proxies.h>
#include <weir/net/server/roster.h>
#include <weir/net/server/traffic.h>
#include <weir/net/server/welcome.h>

#include <exception>
#include <memory>
#include <utility>

namespace weir::detail {
namespace {

/// For a PROXY header, which comes with the connection; a lost segment may be sent again a few
/// times (proxy-protocol.txt, 2: at least 3 s).
constexpr auto kProxyTime = std::chrono::seconds(10);

}  // namespace

Task<> Welcome::begin(TcpConnection connection, TimePoint accepted) {
  if (ConnectionAccess::of(connection)->identity().is_of_proxy()) {
    return serve_for_proxy(std::move(connection), accepted);
  }
  if (core_.security != nullptr) return serve_securely(std::move(connection), accepted);
  note_wait(accepted);
  return (*core_.handler)(std::move(connection));
}

void Welcome::note_wait(TimePoint accepted) noexcept {
  traffic_.add_wait(loop_.machine().now() - accepted);
}

/// Goes on once the proxy has said for whom it connects.
Task<> Welcome::serve_for_proxy(TcpConnection connection, TimePoint accepted) {
  Connection& stream = *ConnectionAccess::of(connection);
  bool admitted = false;
  try {
    auto made = std::make_unique<ProxyGreeting>();
    ProxyGreeting& greeting = *made;
    co_await agree(stream, std::move(made), kProxyTime);
    const SocketAddress client = greeting.client();
    const std::size_t before = stream.inbox().unread();
    greeting.leave(stream);
    // Of TLS that counts which is inside.
    if (core_.security == nullptr) {
      stream.identity().count_received(stream.inbox().unread() - before);
    }
    admitted = admits(stream, client);
  } catch (...) {
    failed(stream.identity().id());
  }
  if (!admitted) co_return;
  Task<> next = begin(std::move(connection), accepted);
  co_await std::move(next);
}

/// Whether the limits admit the client, who the peer is from now on; if there is one.
bool Welcome::admits(Connection& stream, const SocketAddress& client) {
  if (stream.ending() == Ending::gone) return false;
  ConnectionIdentity& identity = stream.identity();
  if (client) identity.set_peer(client);
  if (!core_.admission.identify(core_.admission.peer(identity.peer_address()))) {
    stream.ending().cut(kClosedHere, false);
    return false;
  }
  identity.set_of_proxy(false);
  return true;
}

void Welcome::failed(std::uint64_t id) noexcept {
  core_.handshake_failed(std::current_exception(), roster_, id);
}

/// Calls the handler once both sides have agreed.
Task<> Welcome::serve_securely(TcpConnection connection, TimePoint accepted) {
  const std::uint64_t id = connection.id();
  if (gate_ == nullptr) gate_ = std::make_unique<HandshakeGate>(loop_, &received_);
  bool done = false;
  try {
    const HandshakeGate::UnderWay under_way(*gate_, *ConnectionAccess::of(connection));
    co_await secure(connection, core_.security, {}, gate_.get());
    done = true;
  } catch (...) {
    failed(id);
  }
  if (!done) co_return;
  ++core_.handshakes;
  note_wait(accepted);
  const auto handler = core_.handler;  // it may end the server
  Task<> task = (*handler)(std::move(connection));
  co_await std::move(task);
}

}  // namespace weir::detail
