#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Connects, exchanges a few bytes and closes, again and again.
int connect_in_a_row(const SocketAddress& address, int count) {
  int right = 0;
  for (int i = 0; i < count; ++i) {
    Peer peer = Peer::connect(address);
    right += echoes(peer, "hello") ? 1 : 0;
    // RST in place of FIN, or the ports would be used up: the one who closes first waits on.
    peer.reset();
  }
  return right;
}

constexpr std::size_t kTalkers = 500;
// A quarter under TSan: all of it takes minutes there on two cores.
constexpr std::size_t kBytes = kThreadSanitizer ? 256 << 10 : 1 << 20;

}  // namespace

TEST_CASE("20,000 short connections in a row") {
  for_each_engine([](Engine engine) {
    const CapturedLog log;  // each reset is a handler's failure, and a line
    constexpr int kConnections = 20'000;
    ServerThread server(server_options(engine), [](TcpConnection conn) -> Task<> {
      for (;;) {
        auto [error, chunk] = co_await as_tuple(conn.read());
        if (error || !chunk) co_return;
        (void)co_await as_tuple(conn.send(std::move(chunk)));
      }
    });
    CHECK(connect_in_a_row(server->address(), kConnections) == kConnections);
    CHECK(eventually([&] { return server->connection_count() == 0; }));
    CHECK(server->shed() == 0);
    CHECK(server->refused() == 0);
  });
}

TEST_CASE("short connections are spread over the threads of a server") {
  for_each_engine([](Engine engine) {
    for (const bool reuse_port : {false, true}) {
      std::atomic<int> handled{0};
      ServerThread server(server_options(engine, 2, reuse_port),
                          [&handled](TcpConnection conn) -> Task<> {
                            ++handled;
                            for (;;) {
                              auto [error, chunk] = co_await as_tuple(conn.read());
                              if (error || !chunk) co_return;
                              (void)co_await as_tuple(conn.send(std::move(chunk)));
                            }
                          });
      CHECK(connect_in_a_row(server->address(), 500) == 500);
      CHECK(handled == 500);
      CHECK(eventually([&] { return server->connection_count() == 0; }));
    }
  });
}

TEST_CASE("500 connections each move 1 MiB of checked bytes both ways at once on two threads") {
  if (kThreadSanitizer) MESSAGE("256 KiB each under TSan, for the time that it takes");
  for_each_engine([](Engine engine) {
    // The server sends a stream of its own while it checks the client's.
    const auto talk = [](TcpConnection& conn, std::uint64_t out, std::uint64_t in) -> Task<bool> {
      const auto send = [](TcpConnection& to, std::uint64_t seed) -> Task<> {
        for (std::size_t offset = 0; offset < kBytes; offset += 32 << 10) {
          co_await to.send(pattern(32 << 10, seed, offset));
        }
        co_await to.shutdown();
      };
      TaskGroup group;
      group.spawn(send(conn, out));
      std::size_t got = 0;
      while (Chunk chunk = co_await conn.read()) {
        if (matching(chunk.view(), in, got) != chunk.size()) co_return false;
        got += chunk.size();
      }
      co_await group.join();
      co_return got == kBytes;
    };
    std::atomic<std::size_t> served{0};
    ServerThread server(server_options(engine, 2), [&](TcpConnection conn) -> Task<> {
      const Chunk number = co_await conn.read_exactly(sizeof(std::uint64_t));
      std::uint64_t seed = 0;
      std::memcpy(&seed, number.data(), sizeof seed);
      const bool right = co_await talk(conn, 2 * seed + 1, 2 * seed);
      if (right) ++served;
    });
    std::size_t right = 0;
    LoopOptions options;
    options.engine = engine;
    EventLoop loop(options);
    const auto scene = [&]() -> Task<> {
      const auto client = [&](Socket socket, std::uint64_t seed) -> Task<> {
        TcpConnection conn(std::move(socket));
        char number[sizeof seed];
        std::memcpy(number, &seed, sizeof seed);
        co_await conn.send(std::string_view(number, sizeof number));
        const bool exact = co_await talk(conn, 2 * seed, 2 * seed + 1);
        right += exact ? 1 : 0;
      };
      TaskGroup group;
      for (std::uint64_t i = 0; i < kTalkers; ++i) {
        Peer peer = server.connect();
        group.spawn(client(Socket(EventLoop::current().sockets(), peer.release()), i));
      }
      co_await group.join();
    };
    loop.run_until_complete(scene());
    CHECK(right == kTalkers);
    CHECK(eventually([&] { return served == kTalkers; }));
  });
}
