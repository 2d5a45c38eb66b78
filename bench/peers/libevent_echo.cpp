// Echo on libevent's bufferevents. A peer that does not read is not read from. With
// LIBEVENT_DEADLINE every connection has a deadline that each read sets anew.
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "libevent_serve.h"

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
  return peers::serve(options, on_connection);
}
