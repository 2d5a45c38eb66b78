// Echo on libevent's bufferevents. A peer that does not read is not read from. With
// LIBEVENT_DEADLINE every connection has a deadline that each read sets anew.
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <csignal>

#include "options.h"

namespace {

constexpr std::size_t kMostQueued = 1 << 20;

void on_read(bufferevent* connection, void*) {
  evbuffer* output = bufferevent_get_output(connection);
  evbuffer_add_buffer(output, bufferevent_get_input(connection));
  if (evbuffer_get_length(output) > kMostQueued) bufferevent_disable(connection, EV_READ);
}

void on_drained(bufferevent* connection, void*) {
  if ((bufferevent_get_enabled(connection) & EV_READ) == 0) bufferevent_enable(connection, EV_READ);
}

void on_event(bufferevent* connection, short, void*) { bufferevent_free(connection); }

void on_connection(evconnlistener* listener, evutil_socket_t fd, sockaddr*, int, void* argument) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  bufferevent* connection =
      bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE);
  bufferevent_setcb(connection, on_read, on_drained, on_event, nullptr);
#ifdef LIBEVENT_DEADLINE
  const timeval deadline{.tv_sec = static_cast<const peers::Options*>(argument)->deadline,
                         .tv_usec = 0};
  bufferevent_set_timeouts(connection, &deadline, nullptr);
#else
  (void)argument;
#endif
  bufferevent_enable(connection, EV_READ | EV_WRITE);
}

}  // namespace

int main(int argc, char** argv) {
  peers::Options options = peers::parse_options(argc, argv);
  std::signal(SIGPIPE, SIG_IGN);
  event_base* base = event_base_new();

  event* terminate = evsignal_new(
      base, SIGTERM,
      [](evutil_socket_t, short, void* loop) {
        event_base_loopbreak(static_cast<event_base*>(loop));
      },
      base);
  event_add(terminate, nullptr);

  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(options.port);
  evconnlistener* listener = evconnlistener_new_bind(
      base, on_connection, &options, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 4096,
      reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (listener == nullptr) {
    std::perror("listen");
    return 1;
  }
  socklen_t length = sizeof address;
  getsockname(evconnlistener_get_fd(listener), reinterpret_cast<sockaddr*>(&address), &length);
  peers::announce(ntohs(address.sin_port));
  event_base_dispatch(base);
}
