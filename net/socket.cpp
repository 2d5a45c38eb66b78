#include <weir/core/machine.h>
#include <weir/net/socket.h>

#include <system_error>

namespace weir {

Socket::Socket(int fd) noexcept : Socket(detail::current_machine().sockets(), fd) {}

SocketAddress Socket::local_address() const {
  detail::RawAddress raw;
  if (fd_ < 0 || sockets_->local_address(fd_, raw) < 0) return {};
  return SocketAddress(raw);
}

SocketAddress Socket::bound_address() const {
  detail::RawAddress raw;
  if (const int result = sockets_->local_address(fd_, raw); result < 0) {
    throw std::system_error(-result, std::generic_category(), "weir: the address of a listener");
  }
  return SocketAddress(raw);
}

SocketAddress Socket::peer_address() const {
  detail::RawAddress raw;
  if (fd_ < 0 || sockets_->peer_address(fd_, raw) < 0) return {};
  return SocketAddress(raw);
}

}  // namespace weir
