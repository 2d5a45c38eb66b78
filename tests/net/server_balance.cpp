// On which loop of a server a connection comes.
#include <doctest/doctest.h>

#include <algorithm>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

/// How many connections each loop has had so far; those of a server's handler.
class PerLoop {
 public:
  TcpServer::Handler handler() {
    return [this](TcpConnection conn) -> Task<> {
      {
        const std::lock_guard lock(mutex_);
        last_ = &conn.loop();
        ++counts_[last_];
      }
      co_await conn.send("!");
      (void)co_await conn.read();
      const std::lock_guard lock(mutex_);
      --counts_[&conn.loop()];
    };
  }
  EventLoop* last() {
    const std::lock_guard lock(mutex_);
    return last_;
  }
  /// The most that one has to the mean.
  double unevenness(std::size_t loops) {
    const std::lock_guard lock(mutex_);
    int most = 0;
    int all = 0;
    for (const auto& [loop, count] : counts_) {
      most = std::max(most, count);
      all += count;
    }
    return most * static_cast<double>(loops) / all;
  }

 private:
  std::mutex mutex_;
  EventLoop* last_ = nullptr;
  std::map<EventLoop*, int> counts_;
};

ServerOptions balanced(Balance balance, std::size_t threads) {
  ServerOptions options;
  options.address = loopback();
  options.threads = threads;
  options.balance = balance;
  return options;
}

Task<Peer> served(const TcpServer& server) {
  const SocketAddress address = server.address();
  const auto connect = [address] {
    Peer peer = Peer::connect(address);
    (void)peer.receive_exactly(1);
    return peer;
  };
  co_return co_await in_thread(connect);
}

/// Every fourth client stays, the others go at once.
Task<double> unevenness_of(Balance balance) {
  constexpr std::size_t kLoops = 4;
  PerLoop loops;
  TcpServer server(EventLoop::current(), balanced(balance, kLoops));
  server.start(loops.handler());
  std::vector<Peer> staying;
  for (int i = 0; i < 48; ++i) {
    Peer peer = co_await served(server);
    if (i % 4 == 0) {
      staying.push_back(std::move(peer));
    } else {
      peer.close();
    }
    co_await turn_until([&] { return server.connection_count() == staying.size(); });
  }
  co_return loops.unevenness(kLoops);
}

}  // namespace

TEST_CASE("connections that last unequally long are as many on each loop, but by round robin") {
  on_each_engine([]() -> Task<> {
    const double least = co_await unevenness_of(Balance::least_connections);
    CHECK(least <= 1.15);
    const double in_turn = co_await unevenness_of(Balance::round_robin);
    CHECK(in_turn == 4.0);
  });
}

TEST_CASE("loops without connections are served in turn") {
  on_each_engine([]() -> Task<> {
    for (const Balance balance : {Balance::least_connections, Balance::round_robin}) {
      PerLoop loops;
      TcpServer server(EventLoop::current(), balanced(balance, 3));
      server.start(loops.handler());
      std::vector<EventLoop*> order;
      for (int i = 0; i < 6; ++i) {
        {
          const Peer peer = co_await served(server);
        }
        order.push_back(loops.last());
        co_await turn_until([&] { return server.connection_count() == 0; });
      }
      CHECK(std::set<EventLoop*>(order.begin(), order.begin() + 3).size() == 3);
      CHECK(std::equal(order.begin(), order.begin() + 3, order.begin() + 3));
    }
  });
}

TEST_CASE("who is refused, reset or cut off does not count among a loop's connections") {
  on_each_engine([]() -> Task<> {
    PerLoop loops;
    ServerOptions options = balanced(Balance::least_connections, 2);
    options.max_connections = 2;
    TcpServer server(EventLoop::current(), std::move(options));
    server.start(loops.handler());
    for (int round = 0; round < 3; ++round) {
      Peer first = co_await served(server);
      EventLoop* one = loops.last();
      Peer second = co_await served(server);
      CHECK(loops.last() != one);
      const std::uint64_t before = server.refused();
      for (std::uint64_t i = 1; i <= 3; ++i) {
        const Peer refused = Peer::connect(server.address());
        co_await turn_until([&] { return server.refused() == before + i; });
      }
      first.reset();
      if (round == 0) second.close();
      if (round > 0) {
        server.for_each_connection([](TcpConnection& conn) { conn.force_close(); });
      }
      co_await turn_until([&] { return server.connection_count() == 0; });
    }
  });
}

TEST_CASE("the kernel's balance is a listener for each loop, as with reuse_port") {
  for_each_engine([](Engine engine) {
    const auto shares_port = [&](ServerOptions options) {
      options.loop.engine = engine;
      ServerThread server(std::move(options), &echo);
      EventLoop loop(LoopOptions{.engine = engine});
      try {
        const Acceptor another(loop, server->address(), {.reuse_port = true});
        return true;
      } catch (const std::system_error& error) {
        CHECK(error.code() == std::errc::address_in_use);
        return false;
      }
    };
    CHECK(shares_port(balanced(Balance::kernel, 2)));
    CHECK_FALSE(shares_port(balanced(Balance::least_connections, 2)));
    ServerOptions options = balanced(Balance::round_robin, 2);
    options.reuse_port = true;
    CHECK(shares_port(options));
  });
}

TEST_CASE("no more connections wait for a loop that is stuck than the server may have") {
  for_each_engine([](Engine engine) {
    ServerOptions options = server_options(engine, 2);
    options.balance = Balance::round_robin;
    options.max_connections = 4;
    ServerThread server(options, echo);
    std::promise<void> blocks;
    std::promise<void> release;
    CHECK(eventually([&] { return server->loops().size() == 2; }));
    server->loops().front()->post([&, released = release.get_future().share()] {
      blocks.set_value();
      released.wait();
    });
    blocks.get_future().wait();
    std::vector<Peer> peers;
    for (int i = 0; i < 20; ++i) peers.push_back(server.connect());
    // Of ten for each loop four are there, or wait.
    CHECK(eventually([&] { return server->refused() >= 12; }));
    CHECK(server->refused() == 12);
    release.set_value();
  });
}
