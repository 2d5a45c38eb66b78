#pragma once

#include <weir/core/sockets.h>
#include <weir/net/socket_address.h>

#include <utility>

namespace weir {

/// An open stream socket; owns its descriptor. Move-only. May be handed from one loop to another
/// as long as nothing awaits it.
class Socket {
 public:
  Socket() noexcept = default;
  /// Adopts a descriptor of this process; on the current loop, if one runs.
  explicit Socket(int fd) noexcept;
  /// Adopts a descriptor; `sockets` must outlive this (a loop's `sockets()`).
  Socket(detail::Sockets& sockets, int fd) noexcept : sockets_(&sockets), fd_(fd) {}
  Socket(Socket&& other) noexcept : sockets_(other.sockets_), fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    if (this != &other) {
      close();
      sockets_ = other.sockets_;
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~Socket() { close(); }

  [[nodiscard]] int fd() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

  /// The unknown address where the system does not say.
  [[nodiscard]] SocketAddress local_address() const;
  /// The same of a socket that must have one. Throws `std::system_error` (getsockname(2)).
  [[nodiscard]] SocketAddress bound_address() const;
  [[nodiscard]] SocketAddress peer_address() const;

  /// Gives the descriptor away; nothing is closed.
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  void close() noexcept {
    if (const int fd = release(); fd >= 0) sockets_->close(fd);
  }

 private:
  detail::Sockets* sockets_ = nullptr;
  int fd_ = -1;
};

}  // namespace weir
