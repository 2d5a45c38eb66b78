#include <weir/weir.h>

#include <cstdio>

using namespace weir;

Task<> echo(TcpConnection conn) {
  while (Chunk data = co_await conn.read()) co_await conn.send(std::move(data));
}

Task<bool> talk() {
  TcpServer server(EventLoop::current(), {.address = SocketAddress::parse("127.0.0.1:0")});
  server.start(echo);
  TcpConnection conn = co_await connect(server.address().to_string());
  co_await conn.send("hello");
  Chunk back = co_await timeout(10s, conn.read_exactly(5));
  co_return back.view() == "hello";
}

int main() {
  static_assert(WEIR_VERSION_MAJOR == 0 && WEIR_VERSION_MINOR >= 1);
  const bool right = run(talk());
  std::puts(right ? "hello" : "something else");
  return right ? 0 : 1;
}
