#pragma once

#include <weir/weir.h>

#include <ares.h>
#include <arpa/inet.h>
#include <netdb.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
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
  explicit Cares(const CaresOptions& with = {}) : channel_(nullptr, &ares_destroy) {
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
    answer->port = std::to_string(port);
    answer->until_told = answer;
    ares_addrinfo_hints hints{};
    hints.ai_family = AF_UNSPEC;
    ares_getaddrinfo(channel_.get(), name.c_str(), nullptr, &hints, &Cares::on_answer,
                     answer.get());
    set_alarm();
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

  static void on_answer(void* data, int status, int /*timeouts*/, ares_addrinfo* info) {
    const auto answer = std::move(static_cast<Answer*>(data)->until_told);
    answer->status = status;
    for (const auto* node = info == nullptr ? nullptr : info->nodes; node; node = node->ai_next) {
      char host[NI_MAXHOST];
      if (getnameinfo(node->ai_addr, node->ai_addrlen, host, sizeof host, nullptr, 0,
                      NI_NUMERICHOST) != 0) {
        continue;
      }
      const std::string text = node->ai_family == AF_INET6 ? '[' + std::string(host) + ']' : host;
      answer->addresses.push_back(weir::SocketAddress::parse(text + ':' + answer->port));
    }
    ares_freeaddrinfo(info);
    answer->done.set();
  }
  static void on_socket(void* self, ares_socket_t fd, int read, int write) {
    const int events = (read != 0 ? POLLIN : 0) | (write != 0 ? POLLOUT : 0);
    static_cast<Cares*>(self)->watched_.watch(fd, events);
  }

  void act(ares_socket_t readable, ares_socket_t writable) {
    ares_process_fd(channel_.get(), readable, writable);
    set_alarm();
  }
  void act_on(int fd, int revents) {
    act((revents & ~POLLOUT) != 0 ? fd : ARES_SOCKET_BAD,
        (revents & POLLOUT) != 0 ? fd : ARES_SOCKET_BAD);
  }
  void set_alarm() {
    timeval until{};
    if (ares_timeout(channel_.get(), nullptr, &until) == nullptr) {
      watched_.wake_in(std::chrono::milliseconds(-1));
    } else {
      watched_.wake_in(std::chrono::milliseconds(until.tv_sec * 1000 + until.tv_usec / 1000 + 1));
    }
  }

  Watched watched_{[this](int fd, int revents) { act_on(fd, revents); },
                   [this] { act(ARES_SOCKET_BAD, ARES_SOCKET_BAD); }};
  std::unique_ptr<std::remove_pointer_t<ares_channel>, decltype(&ares_destroy)> channel_;
};

}  // namespace adapters
