// Values that go with a task, and the context of log lines, in the handlers of a server.
#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

TaskLocal<std::string> request;

Task<> answer(TcpConnection& conn) { co_await conn.send(request.get() + ";"); }

/// Answers each line with what was set before, and sets the line.
Task<> remember(TcpConnection conn) {
  for (;;) {
    const Chunk line = co_await conn.read_until("\n", 80);
    if (!line) co_return;
    co_await answer(conn);
    request.set(std::string(line.view().substr(0, line.size() - 1)));
    logging::set_context(request.get());
    if (request.get() == "fail") throw std::runtime_error("a bug");
  }
}

}  // namespace

TEST_CASE("each handler begins without values, wherever its server was started, and has its own") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t threads : {1UL, 2UL}) {
      for (const bool reuse_port : {false, true}) {
        CAPTURE(threads);
        TcpServer server(EventLoop::current(),
                         server_options(Engine::automatic, threads, reuse_port));
        request.set("started");
        server.start(remember);
        const auto talk = [&](std::string name) -> Task<> {
          TcpConnection conn = co_await connect(server.address().to_string());
          co_await conn.send(name + "1\n");
          CHECK((co_await conn.read_until(";", 80)).view() == ";");
          co_await conn.send(name + "2\n");
          CHECK((co_await conn.read_until(";", 80)).view() == name + "1;");
          co_await conn.send(name + "3\n");
          CHECK((co_await conn.read_until(";", 80)).view() == name + "2;");
        };
        co_await when_all(talk("a"), talk("b"), talk("c"));
        CHECK(request.get() == "started");
        co_await server.drain(10s);
      }
    }
  });
}

TEST_CASE("what a server says of a handler's failure has the handler's context") {
  for_each_engine([](Engine engine) {
    const CapturedLog log;
    ServerThread server(server_options(engine), remember);
    Peer peer = server.connect();
    peer.send("fail\n");
    (void)peer.wait_for_end();
    CHECK(eventually([&] { return server->handler_failures() == 1; }));
    CHECK(log.count("[fail] ") == 1);
    CHECK(log.count("a bug") == 1);
  });
}

TEST_CASE("a client's session sees the values of who runs the client") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), server_options(Engine::automatic));
    server.start(echo);
    TcpClient client({.address = server.address()});
    request.set("1");
    std::string seen;
    const auto session = [&](TcpConnection& conn) -> Task<> {
      seen = request.get();
      request.set("session's");
      client.stop();
      co_await conn.read();
    };
    co_await client.run(session);
    CHECK(seen == "1");
    CHECK(request.get() == "1");
    co_await server.drain(10s);
  });
}
