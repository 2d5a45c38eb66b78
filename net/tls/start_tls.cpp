#include <weir/net/connection.h>
#include <weir/net/connection_access.h>
#include <weir/net/handshake.h>
#include <weir/net/tls/start_tls.h>
#include <weir/net/tls/tls_transform.h>

#include <cerrno>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace weir {
namespace {

Task<> upgrade(TcpConnection& connection, std::shared_ptr<detail::HandshakeFactory> factory,
               std::string name) {
  detail::Connection* of = nullptr;
  do {
    of = detail::ConnectionAccess::of(connection);
    // From now on what others send is put together at the end of a turn: nothing of it is on its
    // way in the clear when this resumes, unless that took more than a turn.
    if (of != nullptr) of->outbox().level().add(detail::OutboxLevel::kTransformed);
    co_await connection.flush();
    of = detail::ConnectionAccess::of(connection);
  } while (of != nullptr && of->transmitter().in_flight());
  // Nothing of a handshake would go out any more.
  if (of != nullptr && of->outbox().level().has(detail::OutboxLevel::kEnding)) {
    detail::throw_failure(EPIPE);
  }
  co_await detail::secure(connection, std::move(factory), std::move(name));
}

}  // namespace

Task<> start_tls(TcpConnection& connection, const TlsContext& context, StartTlsOptions options) {
  return upgrade(connection, context.factory(), std::string(options.server_name));
}

std::optional<TlsInfo> tls_info(const TcpConnection& connection) {
  detail::Connection* of = detail::ConnectionAccess::of(connection);
  if (of == nullptr) return std::nullopt;
  const auto* transform = dynamic_cast<const detail::TlsTransform*>(of->transform());
  if (transform == nullptr || !transform->done()) return std::nullopt;
  return transform->info();
}

}  // namespace weir
