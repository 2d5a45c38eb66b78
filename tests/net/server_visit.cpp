// for_each_connection, where the function does more than look.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

TEST_CASE("a function that visits connections may destroy their server") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t threads : {1UL, 2UL}) {
      CAPTURE(threads);
      std::optional<TcpServer> server(std::in_place, EventLoop::current(),
                                      server_options(Engine::automatic, threads));
      server->start(echo);
      std::vector<Peer> peers;
      for (int i = 0; i < 4; ++i) peers.push_back(Peer::connect(server->address()));
      co_await turn_until([&] { return server->connection_count() == 4; });
      int visits = 0;
      if (threads == 1) {
        server->for_each_connection([&](TcpConnection& conn) {
          ++visits;
          server.reset();
          CHECK(conn.state() != ConnectionState::connected);
          CHECK_FALSE(conn.name().empty());
        });
        CHECK(visits == 1);
      } else {
        // On the other loops it runs later, or not at all.
        server->for_each_connection([](TcpConnection& conn) { conn.force_close(); });
        server.reset();
      }
      for (Peer& peer : peers) {
        const auto end = [&peer] { return peer.wait_for_end(); };
        const int error = co_await in_thread(end);
        CHECK((error == 0 || error == ECONNRESET));
      }
    }
  });
}

TEST_CASE("a function that visits connections may end any of them, and their handlers") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), server_options(Engine::automatic));
    std::vector<TcpConnection> kept;  // by nobody's handler
    server.start([&kept](TcpConnection conn) -> Task<> {
      kept.push_back(std::move(conn));
      co_return;
    });
    std::vector<Peer> peers;
    for (int i = 0; i < 8; ++i) peers.push_back(Peer::connect(server.address()));
    co_await turn_until([&] { return kept.size() == 8; });
    std::vector<std::uint64_t> visited;
    server.for_each_connection([&](TcpConnection& conn) {
      visited.push_back(conn.id());
      if (visited.size() == 1) {  // itself, the next, and the last but one
        kept[0].force_close();
        kept.erase(kept.begin() + 6);
        kept.erase(kept.begin(), kept.begin() + 2);
        CHECK(conn.state() != ConnectionState::connected);
      }
    });
    // In later turns, if it took long; those that are still about to close may be among them.
    co_await turn_until([&] { return visited.size() >= 6; });
    CHECK(std::is_sorted(visited.begin(), visited.end()));
    CHECK(std::adjacent_find(visited.begin(), visited.end()) == visited.end());
    kept.clear();
    co_await turn_until([&] {
      for (Peer& peer : peers) peer.close();
      return server.connection_count() == 0;
    });
  });
}

TEST_CASE("a walk does not meet a connection that went just before its turn") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), server_options(Engine::automatic));
    std::vector<TcpConnection> kept;  // so that what went is still there, in memory
    std::size_t ended = 0;
    server.start([&](TcpConnection conn) -> Task<> {
      kept.push_back(std::move(conn));
      TcpConnection& mine = kept.back();
      while (Chunk chunk = co_await mine.read()) continue;
      ++ended;
    });
    kept.reserve(4);
    std::vector<Peer> peers;
    for (int i = 0; i < 4; ++i) peers.push_back(Peer::connect(server.address()));
    // Who has read the end has nothing with the kernel: a close is done when it returns.
    for (Peer& peer : peers) peer.shutdown_send();
    co_await turn_until([&] { return ended == 4; });
    const std::vector<std::uint64_t> ids{kept[0].id(), kept[1].id(), kept[2].id(), kept[3].id()};
    std::vector<std::uint64_t> visited;
    server.for_each_connection([&](TcpConnection& conn) {
      REQUIRE(conn.state() == ConnectionState::connected);
      visited.push_back(conn.id());
      if (conn.id() != ids[0]) return;
      kept[1].force_close();
      kept[2].force_close();
      CHECK(server.connection_count() == 2);
    });
    co_await turn_until([&] { return visited.size() >= 2; });  // in later turns, if it took long
    co_await turns(2);
    CHECK(visited == std::vector<std::uint64_t>{ids[0], ids[3]});
    kept.clear();
    co_await turn_until([&] {
      for (Peer& peer : peers) peer.close();
      return server.connection_count() == 0;
    });
  });
}

TEST_CASE("a walk over many connections leaves turns of the loop to others") {
  for_each_engine([](Engine engine) {
    ServerThread server(server_options(engine), echo);
    constexpr std::size_t kConnections = 60;
    std::vector<Peer> peers;
    for (std::size_t i = 0; i < kConnections; ++i) peers.push_back(server.connect());
    CHECK(eventually([&] { return server->connection_count() == kConnections; }));
    // Each call takes a millisecond at least, so that few of them fit into a turn.
    std::vector<std::uint64_t> turns_of_calls;
    server->for_each_connection([&](TcpConnection& conn) {
      turns_of_calls.push_back(conn.loop().metrics().turns);
      const TimePoint until = conn.loop().machine().now() + 1ms;
      while (conn.loop().machine().now() < until) continue;
    });
    REQUIRE(turns_of_calls.size() == kConnections);
    long most = 0;
    for (const std::uint64_t turn : turns_of_calls) {
      most = std::max<long>(most, std::count(turns_of_calls.begin(), turns_of_calls.end(), turn));
    }
    CHECK(most < 10);
  });
}

TEST_CASE("a walk that takes several turns meets each connection once, whoever comes or goes") {
  for_each_engine([](Engine engine) {
    ServerThread server(server_options(engine), echo);
    std::vector<Peer> peers;
    for (int i = 0; i < 40; ++i) peers.push_back(server.connect());
    CHECK(eventually([&] { return server->connection_count() == 40; }));
    std::vector<std::uint64_t> visited;
    std::vector<Peer> late;
    server->for_each_connection([&](TcpConnection& conn) {
      visited.push_back(conn.id());
      late.push_back(server.connect());  // is not met by this walk
      if (visited.size() % 4 == 0) conn.force_close();
      const TimePoint until = conn.loop().machine().now() + 1ms;
      while (conn.loop().machine().now() < until) continue;
    });
    CHECK(visited.size() == 40);
    CHECK(std::is_sorted(visited.begin(), visited.end()));
    CHECK(std::adjacent_find(visited.begin(), visited.end()) == visited.end());
    CHECK(eventually([&] { return server->connection_count() == 70; }));
    for (Peer& peer : late) CHECK(echoes(peer));
  });
}

TEST_CASE("what the function throws comes out of for_each_connection") {
  for_each_engine([](Engine engine) {
    for (const std::size_t threads : {1UL, 3UL}) {
      ServerThread server(server_options(engine, threads), echo);
      std::vector<Peer> peers;
      for (int i = 0; i < 6; ++i) peers.push_back(server.connect());
      CHECK(eventually([&] { return server->connection_count() == 6; }));
      const std::string text = text_of<std::runtime_error>([&] {
        server->for_each_connection([](TcpConnection&) { throw std::runtime_error("seen"); });
      });
      CHECK(text == "seen");
      for (Peer& peer : peers) CHECK(echoes(peer));
    }
  });
}
