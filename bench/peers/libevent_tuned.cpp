// Echo on libevent as those write it who know it well: events on the sockets themselves, as
// bufferevents read 4 KiB at a time at the most, and an evbuffer that takes what came and is
// written from at once. A peer that does not read is not read from.
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "libevent_serve.h"

namespace {

constexpr std::size_t kMostQueued = 1 << 20;

std::size_t buffer_size;

class Connection {
 public:
  Connection(event_base* base, int fd) : fd_(fd), bytes_(evbuffer_new()) {
    readable_ = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, this);
    writable_ = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, this);
    event_add(readable_, nullptr);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    event_free(readable_);
    event_free(writable_);
    evbuffer_free(bytes_);
    close(fd_);
  }

 private:
  static void on_readable(evutil_socket_t, short, void* self) {
    auto* connection = static_cast<Connection*>(self);
    if (!connection->read() || !connection->write()) delete connection;
  }
  static void on_writable(evutil_socket_t, short, void* self) {
    auto* connection = static_cast<Connection*>(self);
    if (!connection->write()) delete connection;
  }

  bool read() {
    evbuffer_iovec space;
    if (evbuffer_reserve_space(bytes_, static_cast<ev_ssize_t>(buffer_size), &space, 1) < 1) {
      return false;
    }
    const ssize_t size = recv(fd_, space.iov_base, buffer_size, 0);
    if (size <= 0) return size < 0 && errno == EAGAIN;
    space.iov_len = static_cast<std::size_t>(size);
    return evbuffer_commit_space(bytes_, &space, 1) == 0;
  }

  bool write() {
    if (evbuffer_get_length(bytes_) != 0 && evbuffer_write(bytes_, fd_) < 0 && errno != EAGAIN) {
      return false;
    }
    const std::size_t left = evbuffer_get_length(bytes_);
    wait_for(writable_, waits_to_write_, left != 0);
    wait_for(readable_, waits_to_read_, left <= kMostQueued);
    return true;
  }

  static void wait_for(event* what, bool& waits, bool is_to) {
    if (waits == is_to) return;
    waits = is_to;
    is_to ? event_add(what, nullptr) : event_del(what);
  }

  int fd_;
  evbuffer* bytes_;
  event* readable_;
  event* writable_;
  bool waits_to_read_ = true;
  bool waits_to_write_ = false;
};

void on_connection(evconnlistener* listener, evutil_socket_t fd, sockaddr*, int, void*) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  new Connection(evconnlistener_get_base(listener), fd);  // deletes itself
}

}  // namespace

int main(int argc, char** argv) {
  peers::Options options = peers::parse_options(argc, argv);
  buffer_size = options.buffer;
  return peers::serve(options, on_connection);
}
