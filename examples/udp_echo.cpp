// udp_echo --port N [--address A] [--engine auto|uring|epoll]
//
// Sends each datagram back, on a socket of the system's that weir watches. What the kernel has no
// room for is lost, as datagrams may be.
#include <weir/weir.h>

#include <sys/socket.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <vector>

#include "common/arguments.h"
#include "common/udp_socket.h"

using namespace weir;

namespace {

constexpr int kBatch = 64;  // datagrams until the loop's other tasks have a turn

Task<> echo(int udp) {
  std::vector<char> bytes(65536);  // the largest there is
  for (int count = 1;; ++count) {
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    auto* peer = reinterpret_cast<sockaddr*>(&from);
    const ssize_t got = ::recvfrom(udp, bytes.data(), bytes.size(), 0, peer, &size);
    if (got < 0) {
      co_await readable(udp);
      continue;
    }
    (void)::sendto(udp, bytes.data(), static_cast<std::size_t>(got), 0, peer, size);
    if (count % kBatch == 0) co_await yield();
  }
}

Task<> serve(SocketAddress address) {
  Signals signals(SIGINT, SIGTERM);
  const UdpSocket udp(address.family());
  udp.bind(address);
  std::printf("listening on %s\n", udp.address().to_string().c_str());
  std::fflush(stdout);
  (void)co_await when_any(signals.next(), echo(udp.fd()));
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv);
  const ServerOptions options = arguments.server_options("udp_echo");
  if (options.threads != 1) throw std::invalid_argument("--threads: there is one");
  EventLoop loop(options.loop);
  loop.run_until_complete(serve(options.address));
} catch (const std::exception& error) {
  std::fprintf(stderr, "udp_echo: %s\n", error.what());
  return 1;
}
