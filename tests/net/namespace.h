#pragma once

#include <weir/net/socket_address.h>

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/net.h"

/// Places where nobody answers, and networks of a test's own.
namespace weir::test {

using namespace weir::detail;  // NOLINT: what is tested

/// A loopback port that refuses connections: bound, so that nobody else gets it, and not listening.
class RefusingPort {
 public:
  RefusingPort() : sockets_(TestMachine::current().sockets()), fd_(sockets_.open(AF_INET)) {
    RawAddress bound;
    if (sockets_.set(fd_, Sockets::Option::reuse_address, 1) != 0 ||
        sockets_.bind(fd_, loopback().raw()) != 0 || sockets_.local_address(fd_, bound) != 0) {
      throw std::runtime_error("RefusingPort");
    }
    address_ = SocketAddress(bound);
  }
  RefusingPort(const RefusingPort&) = delete;
  RefusingPort& operator=(const RefusingPort&) = delete;
  ~RefusingPort() { sockets_.close(fd_); }

  [[nodiscard]] const SocketAddress& address() const noexcept { return address_; }

  /// The same: a listener may be bound to it beside this (SO_REUSEADDR, which it must set too).
  [[nodiscard]] const SocketAddress& take_over() const noexcept { return address_; }

 private:
  Sockets& sockets_;
  int fd_;
  SocketAddress address_;
};

/// A listener whose backlog is full and stays so: connects to it neither succeed nor fail.
class BlackHole {
 public:
  explicit BlackHole(const char* host = "127.0.0.1")
      : sockets_(TestMachine::current().sockets()), fd_(sockets_.open(AF_INET)) {
    const SocketAddress wanted = SocketAddress::parse(std::string(host) + ":0");
    RawAddress bound;
    if (sockets_.bind(fd_, wanted.raw()) != 0 || sockets_.listen(fd_, 0) != 0 ||
        sockets_.local_address(fd_, bound) != 0) {
      throw std::runtime_error("BlackHole");
    }
    address_ = SocketAddress(bound);
    for (int i = 0; i < 4; ++i) {
      fillers_.push_back(sockets_.open(AF_INET));
      (void)sockets_.connect(fillers_.back(), address_.raw());
    }
  }
  BlackHole(const BlackHole&) = delete;
  BlackHole& operator=(const BlackHole&) = delete;
  ~BlackHole() {
    for (const int fd : fillers_) sockets_.close(fd);
    sockets_.close(fd_);
  }

  [[nodiscard]] const SocketAddress& address() const noexcept { return address_; }

  /// Makes room: from now on connects succeed.
  void open_up() { (void)sockets_.listen(fd_, 128); }

 private:
  Sockets& sockets_;
  int fd_;
  std::vector<int> fillers_;
  SocketAddress address_;
};

/// Why this process may not make network namespaces; empty if it may.
inline const std::string& no_namespaces() {
  static const std::string reason = [] {
    std::string text;
    std::thread([&text] {
      if (::unshare(CLONE_NEWNET) != 0) {
        text = "unshare: " + std::generic_category().message(errno);
      } else if (std::system("ip link set lo up >/dev/null 2>&1") != 0) {
        text = "ip(8) is missing or refused";
      }
    }).join();
    return text;
  }();
  return reason;
}

/// Calls the function in a thread with a network of its own, loopback up. False, with the reason
/// printed, where that is not permitted.
inline bool in_namespace(const std::function<void()>& function) {
  if (!no_namespaces().empty()) {
    MESSAGE("skipped in a network namespace: " << no_namespaces());
    return false;
  }
  std::exception_ptr failure;
  std::thread([&] {
    try {
      if (::unshare(CLONE_NEWNET) != 0 || std::system("ip link set lo up") != 0) {
        throw std::runtime_error("a second network namespace is refused");
      }
      function();
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure != nullptr) std::rethrow_exception(failure);
  return true;
}

/// The range of ephemeral ports of the namespace that the calling thread is in.
inline void set_local_ports(int first, int last) {
  std::ofstream file("/proc/sys/net/ipv4/ip_local_port_range");
  file << first << ' ' << last << std::flush;
  if (!file) throw std::runtime_error("ip_local_port_range cannot be set");
}

}  // namespace weir::test
