#include <weir/net/connection_pool.h>
#include <weir/sim.h>

#include <doctest/doctest.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

/// A server that says of each line from which connection it came; "bye" ends that.
struct Numbered {
  Numbered() : server(EventLoop::current(), options()) {
    server.start([](TcpConnection conn) -> Task<> {
      for (;;) {
        const Chunk line = co_await conn.read_until("\n", 100);
        if (line.is_end() || line.view() == "bye\n") co_return;
        co_await conn.send(std::to_string(conn.id()) + '\n');
      }
    });
  }
  static ServerOptions options() {
    ServerOptions with;
    with.address = loopback();
    return with;
  }
  [[nodiscard]] ConnectionPoolOptions pool(std::size_t most) const {
    ConnectionPoolOptions with;
    with.address = server.address().to_string();
    with.max_connections = most;
    return with;
  }

  TcpServer server;
};

Task<std::string> ask(ConnectionPool& pool) {
  ConnectionPool::Lease lease = co_await pool.acquire();
  co_await lease->send("hello\n");
  const Chunk answer = co_await lease->read_until("\n", 100);
  std::string number(answer.view().substr(0, answer.size() - 1));
  lease.give_back();
  co_return number;
}

Task<> serve_at_10_0_0_1() {
  ServerOptions with;
  with.address = SocketAddress::parse("10.0.0.1:80");
  TcpServer server(EventLoop::current(), with);
  server.start(echo);
  co_await sleep(1h);
}

Task<> use_and_leave_idle(bool& checked) {
  ConnectionPoolOptions options;
  options.address = "10.0.0.1:80";
  options.idle_timeout = 10s;
  ConnectionPool pool(options);
  {
    ConnectionPool::Lease first = co_await pool.acquire();
    ConnectionPool::Lease second = co_await pool.acquire();
    first.give_back();
    co_await sleep(6s);
    second.give_back();
  }
  CHECK(pool.idle() == 2);
  co_await sleep(5s);
  CHECK(pool.idle() == 1);
  ConnectionPool::Lease lease = co_await pool.acquire();
  CHECK(lease.is_reused());
  co_await sleep(20s);  // in use
  lease.give_back();
  co_await sleep(9s);
  CHECK(pool.idle() == 1);
  co_await sleep(2s);
  CHECK(pool.idle() == 0);
  checked = true;
}

}  // namespace

TEST_CASE("a connection that was given back is the next one's") {
  on_each_engine([]() -> Task<> {
    const Numbered numbered;
    ConnectionPool pool(numbered.pool(3));
    for (int i = 0; i < 5; ++i) {
      const std::string number = co_await ask(pool);
      CHECK(number == "1");
      CHECK(pool.idle() == 1);
      CHECK(pool.in_use() == 0);
    }
    ConnectionPool::Lease first = co_await pool.acquire();
    CHECK(first.is_reused());
    const std::string second = co_await ask(pool);
    CHECK(second == "2");
    ConnectionPool::Lease other = co_await pool.acquire();
    first.give_back();
    CHECK_FALSE(first);
    other.give_back();  // this one last
    const std::string third = co_await ask(pool);
    CHECK(third == "2");
    CHECK(pool.idle() == 2);
  });
}

TEST_CASE(
    "there are never more connections than the pool may have, and who waits is served in turn") {
  on_each_engine([]() -> Task<> {
    const Numbered numbered;
    ConnectionPool pool(numbered.pool(2));
    ConnectionPool::Lease one = co_await pool.acquire();
    ConnectionPool::Lease two = co_await pool.acquire();
    std::string order;
    const auto wait = [&](char name) -> Task<> {
      ConnectionPool::Lease lease = co_await pool.acquire();
      order += name;
      co_await turns(2);
      lease.give_back();
    };
    TaskGroup group;
    group.spawn(wait('a'));
    {
      TaskGroup dropped;
      dropped.spawn(wait('x'));
      group.spawn(wait('b'));
      group.spawn(wait('c'));
      co_await turns(3);
    }
    CHECK(order.empty());
    CHECK(pool.in_use() == 2);
    one.give_back();
    co_await group.join();
    CHECK(order == "abc");
    two = {};  // closed, not given back
    CHECK(pool.in_use() == 0);
    CHECK(pool.idle() == 1);
    const std::string number = co_await ask(pool);
    CHECK(number == "1");
    CHECK(numbered.server.metrics().accepts == 2);
  });
}

TEST_CASE("a connection that has ended, or on which something is unread, is not used again") {
  on_each_engine([]() -> Task<> {
    const Numbered numbered;
    ConnectionPool pool(numbered.pool(2));
    ConnectionPool::Lease lease = co_await pool.acquire();
    co_await lease->send("bye\n");  // it ends while it is idle
    co_await lease->flush();
    lease.give_back();
    co_await turn_until([&] { return numbered.server.connection_count() <= 1; });
    co_await turns(5);
    const std::string number = co_await ask(pool);
    CHECK(number == "2");
    lease = co_await pool.acquire();
    co_await lease->send("hello\n");
    const Chunk begun = co_await lease->peek(1);
    CHECK(begun.size() == 1);
    lease.give_back();
    CHECK(pool.idle() == 0);
    const std::string next = co_await ask(pool);
    CHECK(next == "3");
  });
}

TEST_CASE("who fails to connect leaves his place, and the error says why") {
  on_each_engine([]() -> Task<> {
    ConnectionPoolOptions options;
    options.address = own_loopback().to_string();
    options.max_connections = 1;
    ConnectionPool pool(options);
    for (int i = 0; i < 3; ++i) {
      auto [error, lease] = co_await as_tuple(pool.acquire());
      CHECK(error == std::errc::connection_refused);
      CHECK(pool.in_use() == 0);
    }
  });
}

TEST_CASE("what was leased outlives its pool, and who waits is told that it has gone") {
  on_each_engine([]() -> Task<> {
    const Numbered numbered;
    std::optional<ConnectionPool> pool(std::in_place, numbered.pool(1));
    ConnectionPool::Lease lease = co_await pool->acquire();
    std::error_code told;
    const auto wait = [&]() -> Task<> {
      auto [error, never] = co_await as_tuple(pool->acquire());
      told = error;
    };
    TaskGroup group;
    group.spawn(wait());
    co_await turns(2);
    pool.reset();
    co_await group.join();
    CHECK(told == errc::closed_here);
    co_await lease->send("hello\n");
    const Chunk answer = co_await lease->read_until("\n", 100);
    CHECK(answer.view() == "1\n");
    lease.give_back();  // to nobody
    co_await turn_until([&] { return numbered.server.connection_count() == 0; });
  });
}

TEST_CASE("each loop has a pool of its own by LoopLocal") {
  on_each_engine([]() -> Task<> {
    const Numbered numbered;
    LoopLocal<ConnectionPool> pools(
        [options = numbered.pool(2)] { return ConnectionPool(options); });
    const std::string number = co_await ask(pools.get());
    CHECK(number == "1");
    CHECK(pools.get().idle() == 1);
  });
}

TEST_CASE("idle connections are closed in time, each by itself") {
  sim::World world({.seed = 1});
  bool checked = false;
  world.add_host("10.0.0.1").spawn(serve_at_10_0_0_1());
  world.add_host("10.0.0.2").spawn(use_and_leave_idle(checked));
  world.run_for(2min);
  CHECK(checked);
}

TEST_CASE("a wrong option of a pool throws, and the text names it") {
  const auto text = [](ConnectionPoolOptions options) {
    return text_of<std::invalid_argument>([&] { const ConnectionPool pool(std::move(options)); });
  };
  ConnectionPoolOptions options;
  CHECK(text(options).find("address") != std::string::npos);
  options.address = "127.0.0.1:1";
  options.max_connections = 0;
  CHECK(text(options).find("max_connections") != std::string::npos);
  options.max_connections = 1;
  options.idle_timeout = -1ms;
  CHECK(text(options).find("idle_timeout") != std::string::npos);
}

TEST_CASE("a pool may keep its connections for as long as there is time, and outlive its loop") {
  for_each_engine([](Engine engine) {
    std::optional<ConnectionPool> pool;
    for (int round = 0; round < 2; ++round) {
      LoopOptions options;
      options.engine = engine;
      EventLoop loop(options);
      loop.run_until_complete([&]() -> Task<> {
        const Numbered numbered;
        ConnectionPoolOptions with = numbered.pool(2);
        with.idle_timeout = std::chrono::milliseconds::max();
        if (!pool) pool.emplace(with);
        if (round == 0) {
          const std::string number = co_await ask(*pool);
          CHECK(number == "1");
          CHECK(pool->idle() == 1);
        } else {  // what was idle has gone with its loop, and the server as well
          auto [error, lease] = co_await as_tuple(pool->acquire());
          CHECK(error == std::errc::connection_refused);
          CHECK(pool->idle() == 0);
        }
        CHECK(pool->in_use() == 0);
      });
    }
  });
}

TEST_CASE("who is dropped anywhere in acquiring a connection leaves the pool whole") {
  const auto scenario = [](sim::World& world) {
    world.add_host("10.0.0.1").spawn(serve_at_10_0_0_1());
    auto& client = world.add_host("10.0.0.2");
    ConnectionPoolOptions options;
    options.address = "10.0.0.1:80";
    options.max_connections = 1;
    auto& pool = world.make<std::optional<ConnectionPool>>();
    auto& served = world.make<int>(0);
    auto& left = world.make<std::size_t>(1U);
    const auto own = [](std::optional<ConnectionPool>& of, ConnectionPoolOptions with,
                        std::size_t& in_use) -> Task<> {
      of.emplace(std::move(with));
      co_await sleep(20s);
      in_use = of->in_use();
      of.reset();
    };
    const auto use = [](std::optional<ConnectionPool>& from, int& count) -> Task<> {
      for (int i = 0; i < 2; ++i) {
        ConnectionPool::Lease lease = co_await from->acquire();
        co_await lease->send("hello\n");
        const Chunk answer = co_await lease->read_until("\n", 100);
        CHECK(answer.view() == "hello\n");
        lease.give_back();
        ++count;
        co_await yield();
      }
    };
    client.spawn(own(pool, options, left));
    client.spawn(use(pool, served));
    client.spawn_dropped(use(pool, served), "dropped");
    client.spawn(use(pool, served));
    world.run_for(30s);
    world.check(served >= 4, "the others are served");
    world.check(left == 0, "nobody has a connection any more");
  };
  const sim::Exploration found = sim::drop_everywhere({.seed = 1}, scenario);
  CHECK_MESSAGE(found.failures.empty(), found.text());
}
