#pragma once

#include <weir/weir.h>

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

/// A datagram socket, non-blocking: for `weir::readable` and the calls of the system.
class UdpSocket {
 public:
  /// Throws `std::system_error`, as the others do.
  explicit UdpSocket(int family)
      : fd_(::socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "a datagram socket");
  }
  UdpSocket(const UdpSocket&) = delete;
  UdpSocket& operator=(const UdpSocket&) = delete;
  ~UdpSocket() { ::close(fd_); }

  void bind(const weir::SocketAddress& address) const { set(&::bind, address); }
  /// From now on the kernel lets through only what comes from there.
  void connect(const weir::SocketAddress& address) const { set(&::connect, address); }

  [[nodiscard]] weir::SocketAddress address() const {
    weir::detail::RawAddress raw;
    socklen_t size = sizeof raw.bytes;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(raw.bytes), &size);
    raw.size = size;
    return weir::SocketAddress(raw);
  }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  void set(int (*call)(int, const sockaddr*, socklen_t), const weir::SocketAddress& address) const {
    const auto* to = reinterpret_cast<const sockaddr*>(address.raw().bytes);
    if (call(fd_, to, address.raw().size) != 0) {
      throw std::system_error(errno, std::generic_category(), address.to_string());
    }
  }

  int fd_;
};
