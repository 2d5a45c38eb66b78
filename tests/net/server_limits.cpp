#include <doctest/doctest.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

TEST_CASE(
    "connections beyond max_connections are closed at once, and a place that is left is given") {
  for_each_engine([](Engine engine) {
    for (const std::size_t threads : {1UL, 2UL}) {
      ServerOptions options = server_options(engine, threads);
      options.max_connections = 3;
      ServerThread server(std::move(options), echo);
      std::vector<Peer> peers;
      for (int i = 0; i < 3; ++i) {
        peers.push_back(server.connect());
        CHECK(echoes(peers.back()));
      }
      for (std::uint64_t i = 1; i <= 5; ++i) {
        Peer refused = server.connect();
        (void)refused.wait_for_end();
        CHECK(eventually([&] { return server->refused() == i; }));
      }
      CHECK(server->connection_count() == 3);
      for (Peer& peer : peers) CHECK(echoes(peer));  // undisturbed
      // On every way out: FIN, RST, and cut from this side.
      for (int round = 0; round < 6; ++round) {
        if (round % 3 == 0) peers[0].close();
        if (round % 3 == 1) peers[0].reset();
        if (round % 3 == 2) {
          server->for_each_connection([](TcpConnection& conn) { conn.force_close(); });
          for (Peer& peer : peers) peer.close();
          CHECK(eventually([&] { return server->connection_count() == 0; }));
          peers.clear();
          for (int i = 0; i < 3; ++i) {
            peers.push_back(server.connect());
            CHECK(echoes(peers.back()));
          }
          continue;
        }
        CHECK(eventually([&] { return server->connection_count() == 2; }));
        peers[0] = server.connect();
        CHECK(echoes(peers[0]));
      }
    }
  });
}

TEST_CASE("max_connections_per_peer counts hosts, each by itself") {
  for_each_engine([](Engine engine) {
    ServerOptions options = server_options(engine);
    options.address = SocketAddress::parse("0.0.0.0:0");
    options.max_connections_per_peer = 2;
    ServerThread server(std::move(options), echo);
    const std::string port = std::to_string(server->address().port());
    const auto at = [&](const char* host) {
      return Peer::connect(SocketAddress::parse(std::string(host) + ":" + port));
    };
    // A client that goes to 127.0.0.2 has that address itself only if it binds it: all the same
    // peer.
    std::vector<Peer> peers;
    peers.push_back(at("127.0.0.1"));
    peers.push_back(at("127.0.0.1"));
    for (Peer& peer : peers) CHECK(echoes(peer));
    for (int i = 0; i < 3; ++i) {
      Peer refused = at("127.0.0.1");
      (void)refused.wait_for_end();
    }
    CHECK(eventually([&] { return server->refused() == 3; }));
    for (int i = 0; i < 20; ++i) {  // the count goes down on every way out
      if (i % 2 == 0) peers[0].reset();
      if (i % 2 == 1) peers[0].close();
      CHECK(eventually([&] { return server->connection_count() == 1; }));
      peers[0] = at("127.0.0.1");
      CHECK(echoes(peers[0]));
    }
    CHECK(server->refused() == 3);
  });
}

TEST_CASE(
    "clients that are gone before they are served leave no trace in the count of their peer") {
  for_each_engine([](Engine engine) {
    ServerOptions options = server_options(engine);
    options.max_connections_per_peer = 2;
    ServerThread server(std::move(options), echo);
    for (int i = 0; i < 200; ++i) server.connect().reset();
    CHECK(eventually([&] { return server->connection_count() == 0; }));
    Peer first = server.connect();
    Peer second = server.connect();
    CHECK(eventually([&] { return server->connection_count() == 2; }));
    CHECK(echoes(first));
    CHECK(echoes(second));
  });
}

TEST_CASE("idle_timeout drops a peer that sends nothing, and one whose message never ends") {
  for_each_engine([](Engine engine) {
    ServerOptions options = server_options(engine);
    options.idle_timeout = 100ms;
    std::atomic<int> timed_out{0};
    ServerThread server(std::move(options), [&timed_out](TcpConnection conn) -> Task<> {
      for (;;) {
        auto [error, line] = co_await as_tuple(conn.read_until("\n", 1 << 20));
        if (error == std::errc::timed_out) ++timed_out;
        if (error || !line) co_return;
        co_await conn.send(std::move(line));
      }
    });
    const auto start = std::chrono::steady_clock::now();
    Peer silent = server.connect();
    (void)silent.wait_for_end();
    CHECK(std::chrono::steady_clock::now() - start >= 100ms);

    Peer trickling = server.connect();
    int error = 0;
    bool ended = false;
    for (int i = 0; i < 100'000 && !ended; ++i) {
      try {
        trickling.send("x");
        ended = [&] {
          pollfd readable{.fd = trickling.fd(), .events = POLLIN, .revents = 0};
          return ::poll(&readable, 1, 5) > 0;
        }();
      } catch (const std::system_error& failure) {
        error = failure.code().value();
        ended = true;
      }
    }
    CHECK(ended);
    (void)error;
    CHECK(eventually([&] { return timed_out == 2; }));
    silent.close();
    trickling.close();
    CHECK(eventually([&] { return server->connection_count() == 0; }));
  });
}

TEST_CASE("idle_timeout leaves those alone who talk, or who are still being sent to") {
  for_each_engine([](Engine engine) {
    ServerOptions options = server_options(engine);
    options.idle_timeout = 200ms;
    ServerThread server(std::move(options), echo);
    // Whom the machine kept from talking for that long was dropped rightly: once more.
    bool alive = false;
    auto longest = options.idle_timeout;
    for (int i = 0; i < 100 && !alive && longest >= options.idle_timeout; ++i) {
      longest = 0ms;
      const auto begin = std::chrono::steady_clock::now();
      auto said = begin;  // before the server heard it
      const auto look = [&] {
        longest = std::max(longest, std::chrono::ceil<std::chrono::milliseconds>(
                                        std::chrono::steady_clock::now() - said));
      };
      try {
        Peer talking = server.connect();
        do {
          const auto now = std::chrono::steady_clock::now();
          alive = echoes(talking);
          look();
          said = now;
          pollfd nothing{.fd = talking.fd(), .events = POLLIN, .revents = 0};
          alive = alive && ::poll(&nothing, 1, 20) == 0;
        } while (alive && said < begin + 600ms);
      } catch (const std::system_error&) {  // reset
        alive = false;
      }
      look();
    }
    CHECK(alive);
  });
}
