// How a server's run ends: what is still under way then, and what a signal does.
#include <doctest/doctest.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "../support/captured_log.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr std::size_t kReply = 8 << 20;

/// Queues more than any socket takes, and ends.
Task<> reply_at_once(TcpConnection conn) {
  co_await conn.read();
  conn.set_water_marks({.high = 2 * kReply, .low = 0});
  std::string reply = pattern(kReply);
  co_await conn.send(std::move(reply));
}

/// What a client got that reads to the end in a thread of its own.
class Reader {
 public:
  explicit Reader(Peer peer)
      : peer_(std::move(peer)), thread_([this] {
          bytes_ = peer_.receive_all(&error_);
          peer_.close();
        }) {}

  /// Waits for the end of the stream.
  int error() {
    if (thread_.joinable()) thread_.join();
    return error_;
  }
  std::size_t right() {
    (void)error();
    return matching(bytes_, 1, 0);
  }

 private:
  Peer peer_;
  std::string bytes_;
  int error_ = 0;
  std::jthread thread_;
};

}  // namespace

TEST_CASE("what handlers have sent arrives whole when a signal ends the run on a foreign thread") {
  for_each_engine([](Engine engine) {
    for (const std::size_t threads : {1UL, 2UL}) {
      CAPTURE(threads);
      std::atomic<bool> replied{false};
      auto server = std::make_unique<TcpServer>(server_options(engine, threads));
      server->listen();
      std::thread runs([&] {
        server->run([&](TcpConnection conn) -> Task<> {
          co_await reply_at_once(std::move(conn));
          replied = true;
        });
      });
      Peer peer = Peer::connect(server->address(), 16 << 10);
      peer.send("x");
      CHECK(eventually([&] { return replied.load(); }));
      ::raise(SIGTERM);
      Reader reader(std::move(peer));
      runs.join();
      CHECK(server->connection_count() == 0);
      server.reset();
      CHECK(reader.error() == 0);
      CHECK(reader.right() == kReply);
    }
  });
}

TEST_CASE("a loop whose task is done is left when what was closed behind it has gone out") {
  for_each_engine([](Engine engine) {
    LoopOptions options;
    options.engine = engine;
    auto loop = std::make_unique<EventLoop>(options);
    std::optional<Reader> reader;
    const auto serve = [&]() -> Task<> {
      auto [conn, peer] = connect_pair({}, 16 << 10);
      peer.send("x");
      co_await reply_at_once(std::move(conn));
      reader.emplace(std::move(peer));
    };
    std::thread([&] { loop->run_until_complete(serve()); }).join();
    loop.reset();  // which cannot turn any more on this thread
    CHECK(reader->error() == 0);
    CHECK(reader->right() == kReply);
  });
}

TEST_CASE("a loop that is stopped resets what it cannot send any more") {
  for_each_engine([](Engine engine) {
    LoopOptions options;
    options.engine = engine;
    auto loop = std::make_unique<EventLoop>(options);
    Peer kept;
    const auto serve = [&]() -> Task<> {
      auto [conn, peer] = connect_pair({.linger = 1ms}, 16 << 10);
      peer.send("x");
      co_await reply_at_once(std::move(conn));
      kept = std::move(peer);
      loop->stop();
    };
    loop->spawn(serve());
    std::thread([&] { loop->run(); }).join();
    loop.reset();
    int error = 0;
    const std::string part = kept.receive_all(&error);
    CHECK(part.size() < kReply);
    CHECK(error == ECONNRESET);
  });
}

TEST_CASE("signals that come while a run ends kill nobody") {
  for_each_engine([](Engine engine) {
    std::atomic<int> ended{0};
    struct RaisesAtItsEnd {
      std::atomic<int>& count;
      ~RaisesAtItsEnd() {
        ::raise(SIGTERM);  // nobody asks for that one any more
        ++count;
      }
    };
    TcpServer server(server_options(engine));
    server.listen();
    std::thread runs([&] {
      server.run([&](TcpConnection conn) -> Task<> {
        const RaisesAtItsEnd last{ended};
        co_await conn.read();
        co_await conn.draining();
        ::raise(SIGTERM);  // the second: the end at once
        co_await sleep(1h);
      });
    });
    Peer peer = Peer::connect(server.address());
    peer.send("x");
    CHECK(eventually([&] { return server.connection_count() == 1; }));
    ::raise(SIGTERM);
    runs.join();
    CHECK(ended == 1);
    CHECK(server.connection_count() == 0);
  });
}

TEST_CASE("a server listens on several addresses, which are all drained") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t threads : {1UL, 2UL}) {
      CAPTURE(threads);
      ServerOptions options = server_options(Engine::automatic, threads);
      SocketAddress second;
      {
        const Acceptor one(own_loopback());  // whose ports are two, and free again
        const Acceptor other(own_loopback());
        options.address = one.address();
        second = other.address();
      }
      TcpServer server(EventLoop::current(), options);
      server.add_address(second);
      CHECK_THROWS_AS(server.add_address(SocketAddress()), std::invalid_argument);
      server.start(echo);
      CHECK_THROWS_AS(server.add_address(own_loopback()), std::logic_error);
      CHECK(server.address() != second);
      Peer at_first = Peer::connect(server.address());
      Peer at_second = Peer::connect(second);
      const auto talk = [&] { return echoes(at_first) && echoes(at_second); };
      const bool right = co_await in_thread(talk);
      CHECK(right);
      std::optional<DrainReport> report;
      const auto drain = [&]() -> Task<> { report = co_await server.drain(1h); };
      TaskGroup group;
      group.spawn(drain());  // up to where it waits
      at_first.close();
      at_second.close();
      co_await group.join();
      REQUIRE(report);
      CHECK(report->finished == 2);
      CHECK_THROWS_AS(Peer::connect(server.address()), std::system_error);
      CHECK_THROWS_AS(Peer::connect(second), std::system_error);
    }
  });
}

TEST_CASE("a server tells its loops and its counts to any thread") {
  for_each_engine([](Engine engine) {
    for (const std::size_t threads : {1UL, 3UL}) {
      CAPTURE(threads);
      ServerOptions options = server_options(engine, threads);
      options.max_connections = 2;
      ServerThread server(std::move(options), echo);
      CHECK(eventually([&] { return server->loops().size() == threads; }));
      if (threads == 1) CHECK(server->loops().front() == &server->loop());
      {
        Peer first = server.connect();
        CHECK(echoes(first));
        Peer second = server.connect();
        CHECK(echoes(second));
        Peer refused = server.connect();
        (void)refused.wait_for_end();
        CHECK(eventually([&] { return server->metrics().refused == 1; }));
        const ServerMetrics metrics = server->metrics();
        CHECK(metrics.connections == 2);
        CHECK(metrics.accepts == 2);
        CHECK(metrics.shed == 0);
        CHECK(metrics.failures == 0);
      }
      server.stop();
      CHECK(server->loops().empty());
      CHECK(server->metrics().connections == 0);
      CHECK(server->metrics().accepts == 2);
    }
  });
}

TEST_CASE("a server that another thread runs may be destroyed, and its run ends first") {
  for_each_engine([](Engine engine) {
    for (const std::size_t threads : {1UL, 2UL}) {
      CAPTURE(threads);
      auto server = std::make_unique<TcpServer>(server_options(engine, threads));
      server->listen();
      std::atomic<bool> returned = false;
      std::thread runner([&returned, &run = *server] {
        run.run(echo);
        returned = true;
      });
      Peer peer = Peer::connect(server->address());
      CHECK(echoes(peer));
      server.reset();
      CHECK(peer.wait_for_end() == ECONNRESET);
      runner.join();
      CHECK(returned);
    }
  });
}
