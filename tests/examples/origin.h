#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <utility>

#include "../support/net_server.h"

namespace weir::test {

/// A listening socket of the test, for the far end of a proxy.
class Origin {
 public:
  Origin() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(fd_, 64) == 0);
    socklen_t size = sizeof address;
    REQUIRE(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
  }
  Origin(const Origin&) = delete;
  Origin& operator=(const Origin&) = delete;
  ~Origin() { close(); }

  [[nodiscard]] Peer accept() const {
    pollfd readable{.fd = fd_, .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&readable, 1, 120'000) == 1);
    const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    REQUIRE(fd >= 0);
    return Peer(fd);
  }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  /// The port as a request of SOCKS has it.
  [[nodiscard]] std::string port_bytes() const {
    return {static_cast<char>(port_ >> 8), static_cast<char>(port_ & 0xff)};
  }

 private:
  int fd_;
  std::uint16_t port_ = 0;
};

}  // namespace weir::test
