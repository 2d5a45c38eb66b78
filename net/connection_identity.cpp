#include <weir/coro/event.h>
#include <weir/net/connection.h>
#include <weir/net/connection_extras.h>
#include <weir/net/connection_identity.h>

#include <memory>
#include <utility>

namespace weir::detail {

inline Connection& ConnectionIdentity::connection() const noexcept {
  return *whole_of(const_cast<ConnectionIdentity&>(*this), &Connection::identity_);
}

std::string ConnectionIdentity::name() const {
  if (const Connection::Late* late = connection().late_or_null();
      late != nullptr && !late->name.empty()) {
    return late->name;
  }
  const ConnectionOwner* whose = owner();
  const std::string_view first = whose != nullptr ? whose->owner_name() : "connection";
  return std::string(first) + '-' + peer_address().to_string() + '#' + std::to_string(id_);
}

SocketAddress ConnectionIdentity::peer_address() const {
  if (const SocketAddress address = peer_.expand()) return address;
  if (const Connection::Late* late = connection().late_or_null();
      late != nullptr && late->peer != nullptr) {
    return *late->peer;
  }
  const int fd = connection().fd();
  RawAddress raw;
  if (fd < 0 || connection().loop().sockets().peer_address(fd, raw) < 0) return {};
  return SocketAddress(raw);
}

void ConnectionIdentity::set_peer(const SocketAddress& peer) {
  if (!peer.is_ip()) connection().late().peer = std::make_unique<SocketAddress>(peer);
  peer_ = CompactAddress(peer);
}

SocketAddress ConnectionIdentity::local_address() const {
  if (const Connection::Late* late = connection().late_or_null();
      late != nullptr && late->address) {
    return late->address;
  }
  const int fd = connection().fd();
  RawAddress raw;
  if (fd < 0 || connection().loop().sockets().local_address(fd, raw) < 0) return {};
  return SocketAddress(raw);
}

void ConnectionIdentity::keep_names() noexcept {
  try {
    std::string last = name();
    const SocketAddress address = local_address();
    Connection::Late& more = connection().late();
    more.name = std::move(last);
    more.address = address;
  } catch (...) {  // short of memory: the names are what it costs
  }
}

Event* ConnectionIdentity::draining() const noexcept {
  ConnectionOwner* whose = owner();
  if (whose == nullptr) return nullptr;
  return &whose->draining(connection().outbox().accepted() > 0);
}

bool ConnectionIdentity::is_draining() const noexcept {
  ConnectionOwner* whose = owner();
  return whose != nullptr && whose->draining(true).is_set();
}

void ConnectionIdentity::tell_of_tls() const noexcept {
  if (ConnectionOwner* whose = owner()) whose->met_tls(connection());
}

ConnectionOwner* ConnectionIdentity::leave_owner() noexcept {
  ConnectionOwner* whose = owner();
  received_ = &connection().loop().uncounted();
  return whose;
}

ConnectionOwner* ConnectionIdentity::owner() const noexcept {
  if (received_ == &connection().loop().uncounted()) return nullptr;
  return whole_of(*received_, &ConnectionOwner::received);
}

}  // namespace weir::detail
