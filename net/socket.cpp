#include <weir/core/event_loop.h>
#include <weir/io/kernel_sockets.h>
#include <weir/net/socket.h>

namespace weir {
namespace {

Sockets& current_sockets() noexcept {
  EventLoop* loop = EventLoop::current_or_null();
  return loop != nullptr ? loop->sockets() : kernel_sockets();
}

}  // namespace

Socket::Socket(int fd) noexcept : Socket(current_sockets(), fd) {}

SocketAddress Socket::local_address() const {
  RawAddress raw;
  if (fd_ < 0 || sockets_->local_address(fd_, raw) < 0) return {};
  return SocketAddress(raw);
}

SocketAddress Socket::peer_address() const {
  RawAddress raw;
  if (fd_ < 0 || sockets_->peer_address(fd_, raw) < 0) return {};
  return SocketAddress(raw);
}

}  // namespace weir
