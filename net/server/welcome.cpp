#include <weir/net/handshake.h>
#include <weir/net/server/proxies.h>
#include <weir/net/server/share.h>

#include <exception>
#include <memory>
#include <utility>

namespace weir::detail {
namespace {

/// For a PROXY header, which comes with the connection; a lost segment may be sent again a few
/// times (proxy-protocol.txt, 2: at least 3 s).
constexpr auto kProxyTime = std::chrono::seconds(10);

}  // namespace

/// Of what a connection begins with.
Task<> Share::first_task(TcpConnection connection, TimePoint accepted) {
  if (connection.connection().identity().is_of_proxy()) {
    return serve_for_proxy(std::move(connection), accepted);
  }
  if (core_->security != nullptr) return serve_securely(std::move(connection), accepted);
  note_wait(accepted);
  return (*core_->handler)(std::move(connection));
}

void Share::note_wait(TimePoint accepted) noexcept {
  traffic_->add_wait(loop_.machine().now() - accepted);
}

/// Goes on once the proxy has said for whom it connects.
Task<> Share::serve_for_proxy(TcpConnection connection, TimePoint accepted) {
  Connection& stream = connection.connection();
  bool welcome = false;
  try {
    auto made = std::make_unique<ProxyGreeting>();
    ProxyGreeting& greeting = *made;
    co_await agree(stream, std::move(made), kProxyTime);
    const SocketAddress client = greeting.client();
    const std::size_t before = stream.inbox().unread();
    greeting.leave(stream);
    // Of TLS that counts which is inside.
    if (core_->security == nullptr) {
      stream.identity().count_received(stream.inbox().unread() - before);
    }
    welcome = welcomes(stream, client);
  } catch (...) {
    core_->handshake_failed(std::current_exception(), *this, stream.identity().id());
  }
  if (!welcome) co_return;
  Task<> next = first_task(std::move(connection), accepted);
  co_await std::move(next);
}

/// Whether the limits admit the client, who the peer is from now on; if there is one.
bool Share::welcomes(Connection& stream, const SocketAddress& client) {
  if (stream.ending() == Ending::gone) return false;
  ConnectionIdentity& identity = stream.identity();
  if (client) identity.set_peer(client);
  if (!core_->admission.identify(core_->admission.peer(identity.peer_address()))) {
    stream.cut(kClosedHere, false);
    return false;
  }
  identity.set_of_proxy(false);
  return true;
}

/// Calls the handler once both sides have agreed.
Task<> Share::serve_securely(TcpConnection connection, TimePoint accepted) {
  const std::uint64_t id = connection.id();
  if (gate_of_handshakes_ == nullptr) gate_of_handshakes_ = std::make_unique<HandshakeGate>(loop_);
  bool done = false;
  try {
    const HandshakeGate::UnderWay under_way(*gate_of_handshakes_, connection.connection());
    co_await secure(connection, core_->security, {}, gate_of_handshakes_.get());
    done = true;
  } catch (...) {
    core_->handshake_failed(std::current_exception(), *this, id);
  }
  if (!done) co_return;
  ++core_->handshakes;
  note_wait(accepted);
  const auto handler = core_->handler;  // it may end the server
  Task<> task = (*handler)(std::move(connection));
  co_await std::move(task);
}

}  // namespace weir::detail
