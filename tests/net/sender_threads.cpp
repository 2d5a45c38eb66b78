#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net.h"
#include "../support/process.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr int kThreads = 4;
constexpr int kProducers = 3;
constexpr int kMessages = kSanitized ? 500 : 5000;

/// A message that says whose it is, which of them, and is as long as that says.
std::string message_of(int thread, int number) {
  const auto size = static_cast<std::size_t>((number * 37 + thread * 11) % 300);
  const std::array<std::int32_t, 3> head{thread, number, static_cast<std::int32_t>(size)};
  std::string message(sizeof head, '\0');
  std::memcpy(message.data(), head.data(), sizeof head);
  message.append(size, static_cast<char>('a' + (thread * 7 + number) % 26));
  return message;
}

/// Reads such messages until all threads' are there, whole and each thread's in order.
Task<> check_messages(TcpConnection& connection, int threads, int messages) {
  std::vector<int> next(static_cast<std::size_t>(threads));
  for (int i = 0; i < threads * messages; ++i) {
    const Chunk head = co_await connection.read_exactly(12);
    std::array<std::int32_t, 3> fields{};
    REQUIRE(head.size() == sizeof fields);
    std::memcpy(fields.data(), head.data(), sizeof fields);
    const auto [thread, number, size] = fields;
    REQUIRE((thread >= 0 && thread < threads));
    REQUIRE(number == next[static_cast<std::size_t>(thread)]++);
    const std::string expected = message_of(thread, number);
    REQUIRE(static_cast<std::size_t>(size) == expected.size() - sizeof fields);
    if (size == 0) continue;
    const Chunk body = co_await connection.read_exactly(static_cast<std::size_t>(size));
    REQUIRE(body.view() == std::string_view(expected).substr(sizeof fields));
  }
}

Task<> echo(TcpConnection connection) {
  while (Chunk data = co_await connection.read()) co_await connection.send(std::move(data));
}

ServerOptions server_options(std::size_t threads = 1, bool reuse_port = false) {
  ServerOptions options;
  options.address = loopback();
  options.threads = threads;
  options.reuse_port = reuse_port;
  return options;
}

/// Connects, has a few bytes echoed and closes, until told to stop; errors are the peer's end.
class Churn {
 public:
  Churn(const SocketAddress& address, int threads) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this, address](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
          try {
            Peer peer = Peer::connect(address);
            peer.send("churn");
            if (peer.receive_exactly(5) == "churn") ++echoes_;
          } catch (const std::system_error&) {
          }
        }
      });
    }
  }
  Churn(const Churn&) = delete;
  Churn& operator=(const Churn&) = delete;

  /// Waits for as many more echoes.
  void wait_for(int more) const {
    const int wanted = echoes_ + more;
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (echoes_ < wanted && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    CHECK(echoes_ >= wanted);
  }
  [[nodiscard]] int echoes() const noexcept { return echoes_; }

 private:
  std::atomic<int> echoes_{0};
  std::vector<std::jthread> threads_;
};

}  // namespace

TEST_CASE("messages of many threads leave whole, and each thread's in order") {
  on_each_engine([]() -> Task<> {
    auto [a, b] = link_pair();
    const Sender sender = a.sender();
    std::vector<std::unique_ptr<Thread>> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
      threads.push_back(std::make_unique<Thread>([sender, thread] {
        for (int i = 0; i < kMessages; ++i) {
          while (!sender.try_send(message_of(thread, i))) {
            if (!sender.open()) return;
            yield_thread();
          }
        }
      }));
    }
    co_await check_messages(b, kThreads, kMessages);
    threads.clear();
  });
}

TEST_CASE("coroutines on other loops send on one connection, and wait for room") {
  on_each_engine([]() -> Task<> {
    EventLoopThreadPool pool;
    pool.start(2);
    auto [a, b] = link_pair({.water_marks = {.high = 4096, .low = 1024}});
    const auto send_all = [](Sender sender, int thread) -> Task<> {
      for (int i = 0; i < kMessages; ++i) co_await sender.send(message_of(thread, i));
    };
    TaskGroup group;
    const auto cross = [&](int thread) -> Task<> {
      co_await on(pool.next(), send_all(a.sender(), thread));
    };
    for (int thread = 0; thread < kThreads; ++thread) group.spawn(cross(thread));
    co_await check_messages(b, kThreads, kMessages);
    co_await group.join();
  });
}

TEST_CASE("a sender that waits on another loop is dropped, or told that the connection is closed") {
  on_each_engine([]() -> Task<> {
    EventLoopThread other;
    for (int i = 0; i < 50; ++i) {
      auto [a, peer] = connect_pair({.water_marks = {.high = 1000, .low = 0}});
      const Sender sender = a.sender();
      while (sender.try_send(std::string(100'000, 'x'))) co_await yield();
      const auto wait = [](Sender where) -> Task<bool> {
        try {
          co_await where.send("late");
        } catch (const std::system_error& error) {
          co_return error.code() == std::errc::broken_pipe;
        }
        co_return true;
      };
      const auto race = [&]() -> Task<> { CHECK(co_await on(other.loop(), wait(sender))); };
      std::optional<TaskGroup> group(std::in_place);
      group->spawn(race());
      co_await turns(i % 4);
      if (i % 2 == 0) {
        a.force_close();
        co_await group->join();
      } else {
        group.reset();
        a.force_close();
      }
      peer.reset();
    }
  });
}

TEST_CASE("a sender outlives connection and loop") {
  for_each_engine([](Engine engine) {
    Sender sender;
    std::atomic<bool> stop{false};
    std::optional<std::jthread> thread;
    {
      EventLoop loop(LoopOptions{.engine = engine});
      const auto body = [&]() -> Task<> {
        auto [a, b] = link_pair();
        sender = a.sender();
        thread.emplace([&stop, copy = sender] {
          while (!stop) (void)copy.try_send("on and on");
        });
        CHECK((co_await b.read_exactly(900)).size() == 900);
      };
      loop.run_until_complete(body());
    }
    CHECK_FALSE(sender.try_send("late"));
    CHECK_FALSE(sender.open());
    stop = true;
  });
}

TEST_CASE(
    "a channel carries items between loops and threads, each once, each producer's in order") {
  EventLoopThreadPool pool;
  pool.start(2);
  constexpr int kItems = kSanitized ? 1000 : 10'000;
  const auto body = [&]() -> Task<> {
    Channel<std::pair<int, int>> channel(16);
    const auto produce = [&channel](int producer) -> Task<> {
      for (int i = 0; i < kItems; ++i) {
        auto item = std::pair(producer, i);
        const bool sent = co_await channel.send(std::move(item));
        CHECK(sent);
      }
    };
    std::array<std::atomic<int>, kProducers> counts{};
    const auto consume = [&channel, &counts]() -> Task<> {
      std::array<int, kProducers> last{-1, -1, -1};
      while (auto item = co_await channel.receive()) {
        const auto producer = static_cast<std::size_t>(item->first);
        CHECK(item->second > last[producer]);
        last[producer] = item->second;
        ++counts[producer];
      }
    };
    const auto all_producers = [&]() -> Task<> {
      co_await when_all(on(*pool.loops()[0], produce(0)), on(*pool.loops()[1], produce(1)),
                        produce(2));
      channel.close();
    };
    co_await when_all(all_producers(), on(*pool.loops()[0], consume()),
                      on(*pool.loops()[1], consume()), consume());
    for (const auto& count : counts) CHECK(count == kItems);
  };
  run(body());
}

TEST_CASE("channel ends that are dropped on other loops lose no item") {
  EventLoopThreadPool pool;
  pool.start(2);
  const auto body = [&]() -> Task<> {
    Channel<int> channel(2);
    constexpr int kItems = 2000;
    std::atomic<int> received{0};
    const auto produce = [&]() -> Task<> {
      for (int i = 0; i < kItems; ++i) {
        const bool sent = co_await channel.send(i);
        CHECK(sent);
      }
      channel.close();
    };
    const auto impatient = [&]() -> Task<> {
      for (bool open = true; open;) {
        const auto first = co_await when_any(channel.receive(), yield());
        if (first.index() != 0) continue;
        open = std::get<0>(first).has_value();
        if (open) ++received;
      }
    };
    co_await when_all(on(*pool.loops()[0], produce()), on(*pool.loops()[1], impatient()),
                      impatient());
    CHECK(received == kItems);
  };
  run(body());
}

TEST_CASE("a server with two loops serves churn on both, by hand-out and by reuse_port") {
  for (const bool reuse_port : {false, true}) {
    std::mutex mutex;
    std::set<std::thread::id> threads;
    EventLoopThread base;
    std::optional<TcpServer> server;
    server.emplace(base.loop(), server_options(2, reuse_port));
    server->start([&](TcpConnection connection) -> Task<> {
      {
        const std::lock_guard lock(mutex);
        threads.insert(std::this_thread::get_id());
      }
      EventLoop& home = connection.loop();
      while (Chunk data = co_await connection.read()) {
        CHECK(home.in_loop_thread());
        co_await connection.send(std::move(data));
      }
    });
    {
      const Churn churn(server->address(), 3);
      churn.wait_for(kSanitized ? 100 : 1000);
    }
    const std::lock_guard lock(mutex);
    CHECK(threads.size() == 2);
    server.reset();
  }
}

TEST_CASE("a server is stopped from another thread, in any moment of its life") {
  CapturedLog log;
  for (const std::size_t threads : {1UL, 2UL}) {
    for (int i = 0; i < (kSanitized ? 20 : 100); ++i) {
      TcpServer server(server_options(threads));
      server.listen();
      const SocketAddress address = server.address();
      std::jthread stopper([&server, address, i] {
        try {
          for (int clients = 0; clients < i % 4; ++clients) (void)Peer::connect(address);
        } catch (const std::system_error&) {
        }
        server.stop();
      });
      server.run(echo);
    }
  }
}

TEST_CASE("a server is destroyed while clients connect, from another thread than its loop's") {
  CapturedLog log;
  for (const bool reuse_port : {false, true}) {
    for (int i = 0; i < (kSanitized ? 5 : 20); ++i) {
      EventLoopThread base;
      std::optional<TcpServer> server;
      server.emplace(base.loop(), server_options(i % 2 == 0 ? 2 : 1, reuse_port));
      server->start(echo);
      const Churn churn(server->address(), 2);
      churn.wait_for(5);
      if (i % 3 == 1) server->stop();
      server.reset();
    }
  }
}

TEST_CASE("a loop may end before the server on it") {
  CapturedLog log;
  for (const std::size_t threads : {1UL, 2UL}) {
    std::optional<EventLoopThread> base(std::in_place);
    TcpServer server(base->loop(), server_options(threads));
    server.start(echo);
    {
      const Churn churn(server.address(), 1);
      churn.wait_for(5);
    }
    const Peer open = Peer::connect(server.address());
    base.reset();
    server.stop();
  }
}

TEST_CASE("a loop may end before the clients on it, and a pool with all of them") {
  CapturedLog log;
  EventLoopThread base;
  TcpServer server(base.loop(), server_options(2));
  server.start(echo);
  for (int i = 0; i < (kSanitized ? 5 : 20); ++i) {
    EventLoopThreadPool pool;
    pool.start(2);
    std::vector<std::unique_ptr<TcpClient>> clients;
    for (int j = 0; j < 20; ++j) {
      ClientOptions options;
      options.address = server.address();
      options.connector.initial_delay = 1ms;
      clients.push_back(std::make_unique<TcpClient>(options));
      pool.next().spawn(clients.back()->run([](TcpConnection& connection) -> Task<> {
        for (;;) {
          co_await connection.send("ping");
          (void)co_await connection.read_exactly(4);
        }
      }));
    }
    while (clients.back()->connects() == 0) std::this_thread::yield();
    for (std::size_t j = 0; j < clients.size(); j += 2) clients[j]->stop();
    if (i % 2 == 0) {
      pool.stop();
      clients.clear();
    } else {
      clients.clear();
      pool.stop();
    }
  }
}

TEST_CASE("connections are visited and counted from other threads under churn") {
  EventLoopThread base;
  TcpServer server(base.loop(), server_options(2));
  server.start(echo);
  const Churn churn(server.address(), 2);
  for (int i = 0; i < 50; ++i) {
    std::atomic<std::size_t> visited{0};
    server.for_each_connection([&](TcpConnection& connection) {
      CHECK(connection.loop().in_loop_thread());
      ++visited;
    });
    (void)server.connection_count();
  }
  churn.wait_for(20);
}
