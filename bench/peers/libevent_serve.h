// What both servers on libevent do around their connections.
#pragma once

#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <csignal>
#include <cstdio>

#include "options.h"

namespace peers {

/// Accepts on loopback until SIGTERM. The exit status.
inline int serve(Options& options, evconnlistener_cb on_connection) {
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
  announce(ntohs(address.sin_port));
  event_base_dispatch(base);
  return 0;
}

}  // namespace peers
