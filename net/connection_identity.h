#pragma once

#include <weir/net/socket_address.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace weir {

class Event;

namespace detail {

class Connection;

/// Whoever keeps account of connections: a server.
class ConnectionOwner {
 public:
  /// Called once, when the descriptor has been closed.
  virtual void connection_closed(Connection& connection) noexcept = 0;
  [[nodiscard]] virtual std::string_view owner_name() const noexcept = 0;
  /// Set once it lets its connections end and takes no new ones; later for those on which nothing
  /// has been sent.
  [[nodiscard]] virtual Event& draining(bool used) noexcept = 0;

  /// A client began with TLS where nothing was transformed.
  virtual void met_tls(Connection& /*connection*/) noexcept {}

  std::uint64_t received = 0;  // bytes that came for its connections' users; on its loop

 protected:
  ~ConnectionOwner() = default;
};

/// Whose a connection is, which of them, and with whom: a connection's `identity_`.
class ConnectionIdentity {
 public:
  /// Without an owner it counts there.
  ConnectionIdentity(ConnectionOwner* owner, std::uint64_t& uncounted, std::uint64_t id,
                     const SocketAddress& peer)
      : received_(owner != nullptr ? &owner->received : &uncounted),
        id_(id & (~std::uint64_t{0} >> 1)),
        is_of_proxy_(false),
        peer_(peer) {}

  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  [[nodiscard]] std::string name() const;
  [[nodiscard]] SocketAddress peer_address() const;
  [[nodiscard]] SocketAddress local_address() const;
  /// For a user who still has the connection when it has gone.
  void keep_names() noexcept;

  // Of a proxy that has to say first for whom it connects: its owner does not count it as a peer's.
  [[nodiscard]] bool is_of_proxy() const noexcept { return is_of_proxy_; }
  void set_of_proxy(bool on) noexcept { is_of_proxy_ = on; }
  /// Who it is from now on. Throws `std::bad_alloc`.
  void set_peer(const SocketAddress& peer);

  /// nullptr without an owner.
  [[nodiscard]] Event* draining() const noexcept;
  [[nodiscard]] bool is_draining() const noexcept;
  /// The owner goes before the connection, or learns that it is closed.
  ConnectionOwner* leave_owner() noexcept;
  void tell_of_tls() const noexcept;
  void count_received(std::size_t size) noexcept { *received_ += size; }

 private:
  [[nodiscard]] Connection& connection() const noexcept;

  [[nodiscard]] ConnectionOwner* owner() const noexcept;

  std::uint64_t* received_;  // the owner's, by which it is known
  std::uint64_t id_ : 63;
  std::uint64_t is_of_proxy_ : 1;
  CompactAddress peer_;
};

}  // namespace detail
}  // namespace weir
