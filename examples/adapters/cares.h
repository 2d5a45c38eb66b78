#pragma once

#include <weir/weir.h>

#include <ares.h>
#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "watched.h"

/// c-ares' resolver on weir's loop: names without a thread.
namespace adapters {

struct CaresOptions {
  std::string servers;  // "127.0.0.1:53,[::1]:53"; empty: the system's, of /etc/resolv.conf
  std::chrono::milliseconds timeout = std::chrono::seconds(2);  // of the first try
  int tries = 3;                                                // with every server
};

/// Belongs to one loop; outlives what it resolves.
class Cares {
 public:
  explicit Cares(const CaresOptions& with = {})
      : look_(std::min(with.timeout, std::chrono::milliseconds(250))),
        channel_(nullptr, &ares_destroy) {
    static const int library = ares_library_init(ARES_LIB_INIT_ALL);
    check(library);
    ares_options options{};
    options.sock_state_cb = &Cares::on_socket;
    options.sock_state_cb_data = this;
    options.timeout = static_cast<int>(with.timeout.count());
    options.tries = with.tries;
    ares_channel made = nullptr;
    check(ares_init_options(&made, &options,
                            ARES_OPT_SOCK_STATE_CB | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES));
    channel_.reset(made);
    if (!with.servers.empty()) check(ares_set_servers_ports_csv(made, with.servers.c_str()));
  }

  /// Addresses of both families, as /etc/hosts or the servers have them, in the order of RFC 6724.
  /// Dropped: the question goes on, and nobody hears the answer. Throws `std::runtime_error`.
  weir::Task<std::vector<weir::SocketAddress>> resolve(std::string name, std::uint16_t port) {
    const auto answer = std::make_shared<Answer>();
    answer->port = ':' + std::to_string(port);
    answer->until_told = answer;
    ares_addrinfo_hints hints{};
    hints.ai_family = AF_UNSPEC;
    ares_getaddrinfo(channel_.get(), name.c_str(), nullptr, &hints, &Cares::on_answer,
                     answer.get());
    watched_.wake_within(look_);
    co_await answer->done.wait();
    check(answer->status);
    co_return std::move(answer->addresses);
  }

 private:
  struct Answer {
    weir::Event done = {};
    std::string port = {};
    int status = ARES_SUCCESS;
    std::vector<weir::SocketAddress> addresses = {};
    std::shared_ptr<Answer> until_told = {};
  };

  static void check(int status) {
    if (status != ARES_SUCCESS) throw std::runtime_error(ares_strerror(status));
  }
  /// As `parse` reads it; inet_ntop(3) takes a tenth of the whole look-up for an IPv4 address.
  static std::string host_of(const sockaddr* address) {
    if (address->sa_family == AF_INET6) {
      char host[INET6_ADDRSTRLEN];
      const auto& ip = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
      return '[' + std::string(inet_ntop(AF_INET6, &ip, host, sizeof host)) + ']';
    }
    const auto& ip = reinterpret_cast<const sockaddr_in*>(address)->sin_addr;
    const auto* byte = reinterpret_cast<const unsigned char*>(&ip);
    std::string host = std::to_string(byte[0]);
    for (int i = 1; i < 4; ++i) (host += '.') += std::to_string(byte[i]);
    return host;
  }
  static void on_answer(void* data, int status, int /*timeouts*/, ares_addrinfo* info) {
    const auto answer = std::move(static_cast<Answer*>(data)->until_told);
    answer->status = status;
    for (const auto* node = info == nullptr ? nullptr : info->nodes; node; node = node->ai_next)
      answer->addresses.push_back(
          weir::SocketAddress::parse(host_of(node->ai_addr) + answer->port));
    ares_freeaddrinfo(info);
    answer->done.set();
  }
  static void on_socket(void* self, ares_socket_t fd, int read, int write) {
    const int events = (read != 0 ? POLLIN : 0) | (write != 0 ? POLLOUT : 0);
    static_cast<Cares*>(self)->watched_.watch(fd, events);
  }
  void act_on(int fd, int revents) {
    ares_process_fd(channel_.get(), (revents & ~POLLOUT) != 0 ? fd : ARES_SOCKET_BAD,
                    (revents & POLLOUT) != 0 ? fd : ARES_SOCKET_BAD);
    watched_.wake_within(look_);
  }
  /// When the next question is lost, which takes a look at all of them.
  void look() {
    ares_process_fd(channel_.get(), ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    timeval until{};
    if (ares_timeout(channel_.get(), nullptr, &until) == nullptr) return;
    watched_.wake_in(std::chrono::milliseconds(until.tv_sec * 1000 + until.tv_usec / 1000 + 1));
  }

  Watched watched_{[this](int fd, int revents) { act_on(fd, revents); }, [this] { look(); }};
  std::chrono::milliseconds look_;  // not after the first that may be lost: c-ares waits 250 ms
  std::unique_ptr<ares_channeldata, decltype(&ares_destroy)> channel_;
};

}  // namespace adapters
