#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net_drop.h"
#include "namespace.h"

using namespace weir;
using namespace weir::test;

namespace {

ClientOptions quick(const SocketAddress& address) {
  return {.address = address, .connector = {.initial_delay = 2ms, .max_delay = 8ms}};
}

Task<> echo(TcpConnection connection) {
  while (Chunk data = co_await connection.read()) co_await connection.send(std::move(data));
}

Task<> until_end(TcpConnection& connection) {
  while (const Chunk data = co_await connection.read()) {
  }
}

std::unique_ptr<TcpServer> serve(const SocketAddress& address) {
  ServerOptions options;
  options.address = address;
  auto server = std::make_unique<TcpServer>(EventLoop::current(), options);
  server->start(echo);
  return server;
}

/// A session that checks that the server answers, and stays until the connection ends.
class Sessions {
 public:
  Task<> operator()(TcpConnection& connection) {
    ++running_;
    most_ = std::max(most_, running_);
    struct End {
      int& running;
      ~End() { --running; }
    } end{running_};
    co_await connection.send("ping");
    const Chunk answer = co_await connection.read_exactly(4);
    if (answer.view() != "ping") throw std::runtime_error("no answer");
    ++answered_;
    news_.set();
    co_await until_end(connection);
  }

  Task<> wait_for(int answered) {
    while (answered_ < answered) {
      news_.reset();
      co_await news_.wait();
    }
  }

  TcpClient::Session session() {
    return [this](TcpConnection& connection) { return (*this)(connection); };
  }

  [[nodiscard]] int most() const noexcept { return most_; }
  [[nodiscard]] int running() const noexcept { return running_; }

 private:
  int running_ = 0;
  int most_ = 0;
  int answered_ = 0;
  Event news_;
};

}  // namespace

TEST_CASE("a client reconnects when its server goes and comes back on the same port") {
  on_each_engine([]() -> Task<> {
    auto server = serve(own_loopback());
    const SocketAddress address = server->address();
    TcpClient client(quick(address));
    Sessions sessions;
    TaskGroup group;
    group.spawn(client.run(sessions.session()));
    for (int round = 1; round <= 4; ++round) {
      co_await sessions.wait_for(round);
      server.reset();
      co_await turn_until([&] { return sessions.running() == 0; });
      server = serve(address);
    }
    co_await sessions.wait_for(5);
    CHECK(sessions.most() == 1);  // one connection at a time
    CHECK(client.connects() == 5);
    client.stop();
    co_await group.join();
  });
}

TEST_CASE("a client may start before its server") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    TcpClient client(quick(port.address()));
    Sessions sessions;
    TaskGroup group;
    group.spawn(client.run(sessions.session()));
    co_await sleep(10ms);
    CHECK(client.connects() == 0);
    auto server = serve(port.address());
    co_await sessions.wait_for(1);
    client.stop();
    co_await group.join();
    CHECK(client.connects() == 1);
  });
}

TEST_CASE("a session that ends or throws, whatever it throws, is followed by the next") {
  CapturedLog log;
  on_each_engine([&]() -> Task<> {
    auto server = serve(loopback());
    TcpClient client(quick(server->address()));
    int sessions = 0;
    co_await client.run([&](TcpConnection&) -> Task<> {
      switch (++sessions) {
        case 1:
          co_return;
        case 2:
          throw std::runtime_error("the second session's own");
        case 3:
          throw 3;  // NOLINT(hicpp-exception-baseclass)
        case 4:
          throw std::system_error(std::make_error_code(std::errc::connection_reset));
        default:
          client.stop();
          co_await sleep(1h);
      }
    });
    CHECK(sessions == 5);
  });
  CHECK(log.count("the second session's own") >= 1);
}

TEST_CASE("a callable that throws before it gives a session counts as a lost connection") {
  CapturedLog log;
  on_each_engine([&]() -> Task<> {
    auto server = serve(loopback());
    TcpClient client(quick(server->address()));
    int calls = 0;
    co_await client.run([&](TcpConnection&) -> Task<> {
      if (++calls < 3) throw std::runtime_error("not yet");
      client.stop();
      return turns(1000);
    });
    CHECK(calls == 3);
  });
}

TEST_CASE("a server that resets is a lost connection") {
  CapturedLog log;
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    TcpClient client(quick(acceptor.address()));
    TaskGroup group;
    group.spawn(client.run(until_end));
    for (std::uint64_t i = 1; i <= 3; ++i) {
      TcpConnection connection(co_await acceptor.accept());
      // A reset that overtakes the client's look at its connect would be a failed connect.
      co_await turn_until([&] { return client.connects() == i; });
      connection.force_close();
    }
    client.stop();
    co_await group.join();
  });
}

TEST_CASE("stop from another thread ends a client, wherever it stands") {
  for_each_engine([](Engine engine) {
    const BlackHole hole;
    const RefusingPort port;
    EventLoopThread server_thread;
    std::optional<TcpServer> server;
    ServerOptions options;
    options.address = loopback();
    server.emplace(server_thread.loop(), options);
    server->start(echo);
    for (const SocketAddress& address : {hole.address(), port.address(), server->address()}) {
      for (int i = 0; i < 10; ++i) {
        EventLoop loop(LoopOptions{.engine = engine});
        TcpClient client(quick(address));
        std::binary_semaphore running(0);
        std::jthread stopper([&, i] {
          if (i % 2 == 0) running.acquire();
          client.stop();
        });
        loop.post([&] { running.release(); });
        loop.run_until_complete(client.run(until_end));
      }
    }
  });
}

TEST_CASE("stop before the run ends it at once, and stop in the session drops the session") {
  on_each_engine([]() -> Task<> {
    auto server = serve(loopback());
    TcpClient stopped(quick(server->address()));
    stopped.stop();
    stopped.stop();
    co_await stopped.run(until_end);
    CHECK(stopped.connects() == 0);
    TcpClient client(quick(server->address()));
    bool after = false;
    co_await client.run([&](TcpConnection& connection) -> Task<> {
      client.stop();
      co_await until_end(connection);
      after = true;
    });
    CHECK_FALSE(after);
    CHECK(client.connects() == 1);
    co_await turn_until([&] { return server->connection_count() == 0; });
  });
}

TEST_CASE("a client may be destroyed while it runs, also in its session") {
  on_each_engine([]() -> Task<> {
    auto server = serve(loopback());
    for (int i = 0; i < 4; ++i) {
      auto client = std::make_unique<TcpClient>(quick(server->address()));
      Sessions sessions;
      TaskGroup group;
      if (i < 3) {
        group.spawn(client->run(sessions.session()));
        if (i == 1) co_await turns(2);
        if (i == 2) co_await sessions.wait_for(1);
        client.reset();
      } else {
        group.spawn(client->run([&](TcpConnection& connection) -> Task<> {
          client.reset();
          co_await until_end(connection);
        }));
      }
      co_await group.join();
    }
    co_await turn_until([&] { return server->connection_count() == 0; });
  });
}

TEST_CASE("a client may outlive its loop, and be destroyed on another thread") {
  for_each_engine([](Engine engine) {
    auto client = std::make_unique<TcpClient>(quick(loopback().with_port(1)));
    {
      EventLoop loop(LoopOptions{.engine = engine});
      loop.spawn(client->run(until_end));
      loop.run_until_complete(turns(3));
    }
    client->stop();
    std::jthread([&] { client.reset(); }).join();
  });
}

TEST_CASE("connection waits for a connection, and gives the current one") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    TcpClient client(quick(port.address()));
    std::string answer;
    const auto talk = [&]() -> Task<> {
      TcpConnection& connection = co_await client.connection();
      co_await connection.send("through");
      // The session reads: what it got is checked there.
    };
    std::string heard;
    TaskGroup group;
    group.spawn(talk());
    group.spawn(client.run([&](TcpConnection& connection) -> Task<> {
      const Chunk chunk = co_await connection.read_exactly(7);
      heard = chunk.view();
      client.stop();
      co_await sleep(1h);
    }));
    co_await sleep(5ms);
    auto server = serve(port.address());
    co_await group.join();
    CHECK(heard == "through");
  });
}

TEST_CASE("connection throws operation_canceled once the client is stopped, running or not") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    const auto wait = [](TcpClient& client) -> Task<std::error_code> {
      try {
        (void)co_await client.connection();
      } catch (const std::system_error& error) {
        co_return error.code();
      }
      co_return std::error_code();
    };
    const auto stop = [](TcpClient& client, bool from_thread) -> Task<> {
      co_await turns(2);
      if (from_thread) {
        co_await in_thread([&] { client.stop(); });
      } else {
        client.stop();
      }
    };
    for (const bool from_thread : {false, true}) {
      TcpClient idle(quick(port.address()));
      auto [error, none] = co_await when_all(wait(idle), stop(idle, from_thread));
      CHECK(error == std::errc::operation_canceled);
      CHECK(co_await wait(idle) == std::errc::operation_canceled);
      TcpClient running(quick(port.address()));
      auto [second, run, nothing] =
          co_await when_all(wait(running), running.run(until_end), stop(running, from_thread));
      CHECK(second == std::errc::operation_canceled);
    }
    // A connection that is there still, and ends in a later turn, is not given any more.
    Acceptor acceptor(loopback());
    TcpClient connected(quick(acceptor.address()));
    TaskGroup group;
    group.spawn(connected.run(until_end));
    const Socket kept = co_await acceptor.accept();
    (void)co_await connected.connection();
    connected.stop();
    CHECK(co_await wait(connected) == std::errc::operation_canceled);
    co_await group.join();
    // Destroyed under the one that waits.
    std::optional<TcpClient> gone(quick(port.address()));
    const auto destroy = [&]() -> Task<> {
      co_await turns(2);
      gone.reset();
    };
    auto [error, none] = co_await when_all(wait(*gone), destroy());
    CHECK(error == std::errc::operation_canceled);
  });
}

TEST_CASE("whoever waits for a connection is told when the run fails for good") {
  on_each_engine([]() -> Task<> {
    ClientOptions options;
    {
      const Acceptor nobody(own_loopback());
      options.address = nobody.address();
    }
    options.connector = {.initial_delay = 1ms, .max_attempts = 2};
    TcpClient client(options);
    bool told = false;
    const auto wait = [&]() -> Task<> {
      auto [error, connection] = co_await as_tuple(timeout(kPatience, client.connection()));
      told = error == std::errc::operation_canceled && !connection.has_value();
    };
    TaskGroup group;
    group.spawn(wait());
    const auto session = [](TcpConnection&) -> Task<> { co_return; };
    auto [error, none] = co_await as_tuple(client.run(session));
    CHECK(error == std::errc::connection_refused);
    co_await group.join();
    CHECK(told);
    const auto first = co_await when_any(client.connection(), sleep(1ms));
    CHECK(first.index() == 1);  // another run may give one
  });
}

TEST_CASE("run throws what is fatal, and a second run at the same time is refused") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    ClientOptions options = quick(port.address());
    options.connector.max_attempts = 3;
    TcpClient limited(options);
    auto [error, none] = co_await as_tuple(limited.run(until_end));
    CHECK(error == std::errc::connection_refused);
    // And it may run again.
    auto [again, nothing] = co_await as_tuple(limited.run(until_end));
    CHECK(again == std::errc::connection_refused);
    TcpClient client(quick(port.address()));
    TaskGroup group;
    group.spawn(client.run(until_end));
    CHECK_THROWS_AS(co_await client.run(until_end), std::logic_error);
    CHECK_THROWS_AS(co_await client.run({}), std::invalid_argument);
    client.stop();
    co_await group.join();
  });
}

TEST_CASE("a client may be dropped at every moment, and leaves no descriptor") {
  struct Scenario {
    std::unique_ptr<TcpServer> server = serve(loopback());
    TcpClient client{quick(server->address())};
    Sessions sessions;
    std::size_t before = count_descriptors();

    Task<> task() {
      TaskGroup group;
      group.spawn(client.run(sessions.session()));
      co_await sessions.wait_for(1);
      server->for_each_connection([](TcpConnection& connection) { connection.force_close(); });
      co_await sessions.wait_for(2);
      (void)co_await client.connection();
    }
    Task<> afterwards(bool) {
      CHECK(sessions.running() == 0);
      co_await turn_until([this] { return count_descriptors() <= before; });
    }
  };
  CapturedLog log;
  drop_everywhere([] { return std::make_unique<Scenario>(); });
}

namespace {

/// When each of many came back, in ten equal parts of the whole time that it took.
std::array<std::size_t, 10> histogram(const std::vector<std::chrono::nanoseconds>& delays) {
  std::array<std::size_t, 10> counts{};
  const auto longest = *std::max_element(delays.begin(), delays.end());
  for (const auto delay : delays) {
    const auto bucket = static_cast<std::size_t>(delay * counts.size() / (longest + 1ns));
    ++counts[bucket];
  }
  return counts;
}

/// Clients lose their server at once; when do they come back?
Task<> lose_the_server(int count, std::chrono::milliseconds down) {
  constexpr auto kFirstDelay = 500ms;
  auto server = serve(own_loopback());
  const SocketAddress address = server->address();
  std::vector<std::unique_ptr<TcpClient>> clients;
  std::vector<std::chrono::nanoseconds> delays;
  TimePoint back;
  int there = 0;
  bool is_lost = false;
  Event news;
  TaskGroup group;
  for (int i = 0; i < count; ++i) {
    ClientOptions options;
    options.address = address;
    options.connector.initial_delay = kFirstDelay;
    clients.push_back(std::make_unique<TcpClient>(options));
    group.spawn(clients.back()->run([&](TcpConnection& connection) -> Task<> {
      if (is_lost) delays.push_back(time_now() - back);
      ++there;
      news.set();
      co_await until_end(connection);
    }));
  }
  const auto all = [&]() -> Task<> {
    while (there < count) {
      news.reset();
      co_await news.wait();
    }
  };
  co_await all();
  co_await turn_until([&] { return server->connection_count() == clients.size(); });
  if (down > 0ms) {
    server.reset();
    co_await sleep(down);
  }
  there = 0;
  is_lost = true;
  back = time_now();
  if (down > 0ms) {
    server = serve(address);
  } else {
    server->for_each_connection([](TcpConnection& connection) { connection.force_close(); });
  }
  co_await all();
  for (auto& client : clients) client->stop();
  co_await group.join();
  const auto counts = histogram(delays);
  std::string text;
  for (const std::size_t in_bucket : counts) text += " " + std::to_string(in_bucket);
  MESSAGE(count << " clients, server away for " << down.count() << " ms: back in each tenth of "
                << *std::max_element(delays.begin(), delays.end()) / 1ms << " ms:" << text);
  CHECK(delays.size() == clients.size());
  // A machine that stands still for a while brings those together who came due meanwhile.
  if (EventLoop::current().engine_name() != "simulation") co_return;
  for (const std::size_t in_bucket : counts) CHECK(in_bucket * 10 <= clients.size() * 3);
}

}  // namespace

TEST_CASE("a thousand clients that lose their server at once come back spread out") {
  CapturedLog log;
  const int count = kSanitized ? 300 : 1000;
  on_each_engine([&]() -> Task<> { co_await lose_the_server(count, 0ms); });
}

TEST_CASE("a thousand clients come back spread out also when the server was away for long") {
  CapturedLog log;
  const int count = kSanitized ? 300 : 1000;
  on_each_engine([&]() -> Task<> { co_await lose_the_server(count, 700ms); });
}

TEST_CASE("a client of a host connects to what its name leads to") {
  on_each_engine([]() -> Task<> {
    const auto server = serve(loopback());
    const std::string port = std::to_string(server->address().port());
    TcpClient client({.connector = {.initial_delay = 1ms}, .host = "localhost:" + port});
    std::string heard;
    const auto session = [&](TcpConnection& connection) -> Task<> {
      co_await connection.send("hello");
      heard = (co_await connection.read_exactly(5)).view();
      client.stop();
      co_await sleep(1h);
    };
    co_await client.run(session);
    CHECK(heard == "hello");
  });
}

TEST_CASE("a wrong option of a client throws, and the text names it and its value") {
  const auto text = [](ClientOptions options) {
    return text_of<std::invalid_argument>([&] { const TcpClient client(options); });
  };
  const auto names = [](const std::string& what, const char* option, const char* value) {
    INFO(what);
    CHECK(what.find(option) != std::string::npos);
    CHECK(what.find(value) != std::string::npos);
  };
  const SocketAddress address = loopback().with_port(1);
  names(text({}), "address", "empty");
  names(text({.address = address, .connector = {.initial_delay = -1ms}}), "initial_delay", "-1");
  names(text({.address = address, .connector = {.jitter = 2}}), "jitter", "2");
  names(text({.address = address, .connection = {.water_marks = {.high = 1, .low = 2}}}), "low",
        "2");
  names(text({.address = address, .connection = {.input_high = 0}}), "input_high", "0");
  names(text({.address = address, .connection = {.linger = -1ms}}), "linger", "-1");
}

TEST_CASE("sessions that end at once, without a delay between them, leave others their turn") {
  on_each_kernel_engine("no Unix sockets", []() -> Task<> {
    Acceptor acceptor(SocketAddress::parse("unix:@weir-ends-" + std::to_string(::getpid())));
    TcpClient client(
        {.address = acceptor.address(), .connector = {.initial_delay = 0ms, .max_delay = 0ms}});
    int sessions = 0;
    int seen = -1;
    const auto other = [&]() -> Task<> {
      co_await turns(1);
      seen = sessions;
    };
    const auto session = [&](TcpConnection&) -> Task<> {
      ++sessions;
      co_return;
    };
    TaskGroup group;
    group.spawn(other());
    group.spawn(client.run(session));
    co_await turn_until([&] { return seen >= 0; });
    CHECK(seen < 20);
    client.stop();
    co_await group.join();
  });
}
