// Echo on weir, with a deadline for every read.
#include <weir/weir.h>

#include <chrono>
#include <cstdio>
#include <string_view>

using namespace weir;
using namespace std::chrono_literals;

Task<> echo(TcpConnection conn) {
  for (;;) {
    Chunk data = co_await timeout(30s, conn.read());  // throws when time is up
    if (!data) co_return;
    co_await conn.send(std::move(data));
  }
}

// --port N [--engine uring|epoll]
int main(int argc, char** argv) try {
  std::string port = "0";
  LoopOptions loop;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::string_view(argv[i]) == "--port") port = argv[i + 1];
    if (std::string_view(argv[i]) == "--engine") {
      loop.engine = std::string_view(argv[i + 1]) == "epoll" ? Engine::epoll : Engine::uring;
    }
  }
  TcpServer server({.address = SocketAddress::parse("127.0.0.1:" + port), .loop = loop});
  server.listen();
  std::printf("listening on %s\n", server.address().to_string().c_str());
  std::fflush(stdout);
  server.run(echo);
} catch (const std::exception& error) {
  std::fprintf(stderr, "weir_deadline: %s\n", error.what());
  return 1;
}
