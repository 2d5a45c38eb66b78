// Bytes in and out of a server's connections.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "../support/net_drop.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Answers each byte with three.
Task<> thrice(TcpConnection conn) {
  while (const Chunk chunk = co_await conn.read()) {
    for (int i = 0; i < 3; ++i) co_await conn.send(chunk.view());
  }
}

Task<> ask(TcpConnection& conn, std::size_t size) {
  co_await conn.send(std::string(size, 'x'));
  const Chunk answer = co_await conn.read_exactly(3 * size);
  CHECK(answer.size() == 3 * size);
}

}  // namespace

TEST_CASE("a server counts the bytes of its connections while they live and when they have gone") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t threads : {1UL, 2UL}) {
      CAPTURE(threads);
      TcpServer server(EventLoop::current(), server_options(Engine::automatic, threads));
      server.start(thrice);
      CHECK(server.metrics().bytes_in == 0);
      CHECK(server.metrics().bytes_out == 0);
      std::uint64_t asked = 0;
      std::vector<TcpConnection> clients;
      for (const std::size_t size : {1UL, 64UL, 5000UL, 100'000UL}) {
        TcpConnection conn = co_await connect(server.address().to_string());
        co_await ask(conn, size);
        asked += size;
        co_await turn_until([&] { return server.metrics().bytes_out == 3 * asked; });
        CHECK(server.metrics().bytes_in == asked);
        clients.push_back(std::move(conn));
      }
      clients.resize(2);
      co_await turn_until([&] { return server.connection_count() == 2; });
      CHECK(server.metrics().bytes_in == asked);
      CHECK(server.metrics().bytes_out == 3 * asked);
      for (TcpConnection& conn : clients) co_await ask(conn, 10);
      asked += 20;
      co_await server.drain(10ms);
      CHECK(server.metrics().bytes_in == asked);
      CHECK(server.metrics().bytes_out == 3 * asked);
    }
  });
}

TEST_CASE("connections of others on the loops of a server are not counted") {
  on_each_engine([]() -> Task<> {
    TcpServer one(EventLoop::current(), server_options(Engine::automatic));
    TcpServer other(EventLoop::current(), server_options(Engine::automatic));
    one.start(thrice);
    other.start(thrice);
    TcpConnection conn = co_await connect(one.address().to_string());
    co_await ask(conn, 100);
    co_await turn_until([&] { return one.metrics().bytes_out == 300; });
    CHECK(one.metrics().bytes_in == 100);
    CHECK(other.metrics().bytes_in == 0);
    CHECK(other.metrics().bytes_out == 0);
  });
}

TEST_CASE("what was moved, or came and went in many pieces, counts as well") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), server_options(Engine::automatic));
    const auto handler = [](TcpConnection conn) -> Task<> {
      const Chunk all = co_await conn.read_exactly(300'000);
      CHECK(all.size() == 300'000);
      co_await conn.send(std::string(200'000, 'y'));
      co_await conn.flush();
      co_await conn.send("end");
    };
    server.start(handler);
    TcpConnection conn = co_await connect(server.address().to_string());
    co_await conn.send(std::string(300'000, 'x'));
    std::size_t got = 0;
    while (const Chunk chunk = co_await conn.read()) got += chunk.size();
    CHECK(got == 200'003);
    CHECK(server.metrics().bytes_in == 300'000);
    CHECK(server.metrics().bytes_out == 200'003);
  });
}

TEST_CASE("any thread may ask for the bytes while loops run, begin, end and are busy") {
  for_each_engine([](Engine engine) {
    std::atomic<bool> over{false};
    std::atomic<std::uint64_t> last_in{0};
    {
      std::optional<ServerThread> server(std::in_place, server_options(engine, 2), thrice);
      std::thread asker([&] {
        std::uint64_t before = 0;
        while (!over) {
          const ServerMetrics metrics = (*server)->metrics();
          CHECK(metrics.bytes_in >= before);
          before = metrics.bytes_in;
        }
        last_in = before;
      });
      for (int i = 0; i < 20; ++i) {
        Peer peer = server->connect();
        peer.send("hello");
        CHECK(peer.receive_exactly(15) == "hellohellohello");
      }
      CHECK(eventually([&] { return (*server)->metrics().bytes_out == 300; }));
      CHECK((*server)->metrics().bytes_in == 100);
      over = true;
      asker.join();
      server->stop();
      CHECK((*server)->metrics().bytes_in == 100);
      CHECK((*server)->metrics().bytes_out == 300);
    }
    CHECK(last_in <= 100);
  });
}

TEST_CASE("a loop that is busy is waited for a moment only") {
  for_each_engine([](Engine engine) {
    std::binary_semaphore go(0);
    std::binary_semaphore stuck(0);
    const auto handler = [&](TcpConnection conn) -> Task<> {
      const Chunk chunk = co_await conn.read();
      stuck.release();
      go.acquire();
      co_await conn.send("late");
    };
    ServerThread server(server_options(engine), handler);
    Peer peer = server.connect();
    peer.send("hello");
    stuck.acquire();
    CHECK(server->metrics().bytes_in == 0);
    CHECK(server->metrics().accepts == 1);
    go.release();
    CHECK(peer.receive_exactly(4) == "late");
    CHECK(eventually([&] { return server->metrics().bytes_out == 4; }));
    CHECK(server->metrics().bytes_in == 5);
  });
}

TEST_CASE("the bytes of a loop that is not running are there at once") {
  for_each_engine([](Engine engine) {
    EventLoop loop({.engine = engine});
    TcpServer server(loop, server_options(engine));
    server.start(thrice);
    const auto body = [&]() -> Task<> {
      TcpConnection conn = co_await connect(server.address().to_string());
      co_await ask(conn, 7);
    };
    loop.run_until_complete(body());
    CHECK(server.metrics().bytes_in == 7);
    CHECK(server.metrics().bytes_out == 21);
  });
}

TEST_CASE("drops of handlers and clients at every moment lose no byte of the count") {
  struct Scenario {
    TcpServer server{EventLoop::current(), server_options(Engine::automatic)};
    std::uint64_t got = 0;
    Scenario() { server.start(thrice); }
    Task<> task() {
      for (int i = 0; i < 2; ++i) {
        TcpConnection conn = co_await connect(server.address().to_string());
        for (int j = 0; j < 2; ++j) {
          co_await ask(conn, 5);
          got += 5;
        }
      }
    }
    Task<> afterwards(bool finished) {
      co_await server.drain(10s);
      const ServerMetrics metrics = server.metrics();
      CHECK(metrics.bytes_in >= got);
      CHECK(metrics.bytes_in <= got + 5);
      CHECK(metrics.bytes_out >= 3 * got);
      CHECK(metrics.bytes_out <= 3 * metrics.bytes_in);
      if (finished) CHECK(metrics.bytes_out == 60);
    }
  };
  drop_everywhere([] { return std::make_unique<Scenario>(); }, 5);
}
