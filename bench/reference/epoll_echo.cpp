// The same echo server on epoll, as one wrote it before io_uring: one thread, edge-triggered, every
// read answered by one write right away.
//
// All connections read into one buffer, so an idle connection owns none. Only bytes the socket does
// not take are copied aside, and while there are any the connection is not read from.

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <deque>
#include <system_error>
#include <vector>

#include "echo_server.h"

namespace {

constexpr std::size_t kDefaultBufferSize = 65536;
constexpr int kMaxEvents = 512;
// After so many reads it is the turn of the others, however much a peer sends.
constexpr int kMaxReadsPerTurn = 16;
constexpr int kAcceptRetryMilliseconds = 100;

struct Connection {
  Connection* next = nullptr;  // in the list of the unfinished or of the free ones
  int fd = -1;
  bool unfinished = false;  // has more to read although no event will say so again
  std::vector<char> unsent;
  std::size_t unsent_begin = 0;
};

class EchoServer {
 public:
  EchoServer(const reference::Options& options, int listener, int termination_signal)
      : buffer_(options.buffer_size != 0 ? options.buffer_size : kDefaultBufferSize),
        listener_(listener),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_ < 0) fail("epoll_create1");
    if (!control(EPOLL_CTL_ADD, termination_signal, EPOLLIN, &terminated_)) fail("epoll_ctl");
    if (!control(EPOLL_CTL_ADD, listener_, EPOLLIN, &accept_paused_)) fail("epoll_ctl");
  }
  ~EchoServer() { ::close(epoll_); }
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;

  void run() {
    epoll_event events[kMaxEvents];
    while (!terminated_) {
      const int count = epoll_wait(epoll_, events, kMaxEvents, timeout());
      if (count < 0 && errno != EINTR) fail("epoll_wait");
      if (count == 0 && accept_paused_) pause_accept(false);
      // The unfinished come after the events: only they may be closed without an event of theirs,
      // and after it an event would point to an object that is no more.
      Connection* unfinished = first_unfinished_;
      first_unfinished_ = nullptr;
      for (int i = 0; i < count; ++i) handle(events[i]);
      while (unfinished != nullptr) {
        Connection& connection = *unfinished;
        unfinished = connection.next;
        connection.unfinished = false;
        read(connection, true);
      }
    }
  }

 private:
  [[noreturn]] static void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
  }

  bool control(int operation, int fd, std::uint32_t events, void* tag) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = tag;
    return epoll_ctl(epoll_, operation, fd, &event) == 0;
  }

  int timeout() const {
    if (first_unfinished_ != nullptr) return 0;
    return accept_paused_ ? kAcceptRetryMilliseconds : -1;
  }

  void handle(const epoll_event& event) {
    if (event.data.ptr == &terminated_) {
      terminated_ = true;
    } else if (event.data.ptr == &accept_paused_) {
      accept_all();
    } else {
      auto& connection = *static_cast<Connection*>(event.data.ptr);
      if (connection.unfinished) return;  // will be read to its end below or in the next turn
      if (!connection.unsent.empty() && !send_unsent(connection)) return;
      read(connection, (event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
    }
  }

  void accept_all() {
    for (;;) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0) {
        open(fd);
      } else if (errno == EAGAIN) {
        return;
      } else if (errno != EINTR && errno != ECONNABORTED) {
        // At the limit of descriptors the listener stays ready: looking away is the only way not to
        // spin.
        return pause_accept(true);
      }
    }
  }

  void pause_accept(bool pause) {
    accept_paused_ = pause;
    const std::uint32_t events = pause ? 0U : EPOLLIN;
    if (!control(EPOLL_CTL_MOD, listener_, events, &accept_paused_)) fail("epoll_ctl");
  }

  void open(int fd) {
    Connection* connection = free_;
    if (connection != nullptr) {
      free_ = connection->next;
    } else {
      connection = &connections_.emplace_back();
    }
    connection->fd = fd;
    if (!control(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, connection)) {
      close(*connection);  // ENOMEM, ENOSPC: this one cannot be served
    }
  }

  // Edge-triggered: has to read until there is nothing more. A read that did not fill the buffer
  // has taken everything, and what comes later makes an event of its own; only an end of the stream
  // may already stand behind it (`to_the_end`), and must be read as well.
  void read(Connection& connection, bool to_the_end) {
    for (int i = 0; i < kMaxReadsPerTurn; ++i) {
      const ssize_t count = recv(connection.fd, buffer_.data(), buffer_.size(), 0);
      if (count <= 0) {
        if (count < 0 && errno == EAGAIN) return;
        if (count < 0 && errno == EINTR) continue;
        return close(connection);
      }
      const auto length = static_cast<std::size_t>(count);
      if (!send_all(connection, length)) return;
      if (length < buffer_.size() && !to_the_end) return;
    }
    connection.unfinished = true;
    connection.next = first_unfinished_;
    first_unfinished_ = &connection;
  }

  // False if the connection is not to be read from now: the rest waits for EPOLLOUT, or it is
  // closed.
  bool send_all(Connection& connection, std::size_t length) {
    const ssize_t count = ::send(connection.fd, buffer_.data(), length, MSG_NOSIGNAL);
    if (count == static_cast<ssize_t>(length)) return true;
    if (count < 0 && errno != EAGAIN && errno != EINTR) {
      close(connection);
      return false;
    }
    const char* rest = buffer_.data() + (count > 0 ? count : 0);
    connection.unsent.assign(rest, static_cast<const char*>(buffer_.data()) + length);
    return send_unsent(connection);
  }

  bool send_unsent(Connection& connection) {
    std::vector<char>& unsent = connection.unsent;
    while (connection.unsent_begin < unsent.size()) {
      const ssize_t count = ::send(connection.fd, unsent.data() + connection.unsent_begin,
                                   unsent.size() - connection.unsent_begin, MSG_NOSIGNAL);
      if (count < 0 && errno == EAGAIN) return false;
      if (count < 0 && errno != EINTR) {
        close(connection);
        return false;
      }
      if (count > 0) connection.unsent_begin += static_cast<std::size_t>(count);
    }
    unsent.clear();
    connection.unsent_begin = 0;
    return true;
  }

  void close(Connection& connection) {
    ::close(connection.fd);
    if (accept_paused_) pause_accept(false);
    connection.unsent = {};  // gives the memory back too
    connection.unsent_begin = 0;
    connection.next = free_;
    free_ = &connection;
  }

  std::vector<char> buffer_;
  const int listener_;
  const int epoll_;
  bool terminated_ = false;
  bool accept_paused_ = false;

  std::deque<Connection> connections_;  // never shrinks, never moves
  Connection* free_ = nullptr;
  Connection* first_unfinished_ = nullptr;
};

void serve(const reference::Options& options, int listener) {
  const int termination_signal = reference::open_termination_signal();
  EchoServer server(options, listener, termination_signal);
  reference::announce(listener);
  server.run();
}

}  // namespace

int main(int argc, char** argv) { return reference::run_server(argc, argv, serve); }
