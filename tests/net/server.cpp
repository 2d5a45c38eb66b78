#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

TEST_CASE("a server echoes until it is stopped from another thread") {
  for_each_engine([](Engine engine) {
    ServerThread server(server_options(engine), echo);
    std::vector<Peer> peers;
    for (int i = 0; i < 10; ++i) peers.push_back(server.connect());
    for (Peer& peer : peers) CHECK(echoes(peer));
    CHECK(server->connection_count() == 10);
    peers[0].close();
    peers[1].reset();
    CHECK(eventually([&] { return server->connection_count() == 8; }));
    for (std::size_t i = 2; i < 10; ++i) CHECK(echoes(peers[i]));
    server.stop();
    CHECK(server->connection_count() == 0);
    for (std::size_t i = 2; i < 10; ++i) (void)peers[i].wait_for_end();
  });
}

TEST_CASE("a handler may stop its server") {
  for_each_engine([](Engine engine) {
    for (const std::size_t threads : {1UL, 2UL}) {
      std::atomic<TcpServer*> of = nullptr;
      ServerThread server(server_options(engine, threads), [&of](TcpConnection conn) -> Task<> {
        const Chunk chunk = co_await conn.read();
        of.load()->stop();
        co_await conn.read();
      });
      of = &*server;
      Peer other = server.connect();
      Peer peer = server.connect();
      peer.send("stop");
      server.join();
      (void)peer.wait_for_end();
      (void)other.wait_for_end();
      CHECK(server->connection_count() == 0);
    }
  });
}

TEST_CASE("a server may be stopped before it runs, while it starts, and more than once") {
  for_each_engine([](Engine engine) {
    for (int round = 0; round < 30; ++round) {
      TcpServer server(server_options(engine, 1 + static_cast<std::size_t>(round) % 3));
      if (round % 3 == 0) server.stop();
      std::jthread thread([&] { server.run(echo); });
      if (round % 2 == 0) std::this_thread::yield();
      server.stop();
      server.stop();
    }
  });
}

TEST_CASE("a server that was stopped before its start serves nobody") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t threads : {1UL, 2UL}) {
      for (const bool reuse_port : {false, true}) {
        CAPTURE(threads);
        CAPTURE(reuse_port);
        TcpServer server(EventLoop::current(),
                         server_options(Engine::automatic, threads, reuse_port));
        server.stop();
        std::atomic<bool> served{false};
        server.start([&served](TcpConnection) -> Task<> {
          served = true;
          co_return;
        });
        const auto look = [&] { (void)Peer::knock(server.address()); };
        co_await in_thread(look);
        CHECK_FALSE(served);
        const DrainReport report = co_await server.drain(1h);
        CHECK(report.finished + report.forced == 0);
      }
    }
  });
}

TEST_CASE("clients that come before the run are served from the backlog") {
  for_each_engine([](Engine engine) {
    TcpServer server(server_options(engine));
    server.listen();
    CHECK(server.address().port() != 0);
    std::vector<Peer> peers;
    for (int i = 0; i < 5; ++i) {
      peers.push_back(Peer::connect(server.address()));
      peers.back().send("early");
    }
    std::jthread thread([&] { server.run(echo); });
    for (Peer& peer : peers) CHECK(peer.receive_exactly(5) == "early");
    server.stop();
  });
}

TEST_CASE("a server starts on a loop that runs in another thread, and ends in this one") {
  for_each_engine([](Engine engine) {
    LoopOptions options;
    options.engine = engine;
    EventLoopThread thread(options);
    for (int round = 0; round < 5; ++round) {
      TcpServer server(thread.loop(), server_options(engine));
      server.start(echo);
      Peer peer = Peer::connect(server.address());
      CHECK(echoes(peer));
      CHECK(server.connection_count() == 1);
      CHECK(&server.loop() == &thread.loop());
      if (round % 2 == 1) server.stop();
    }
  });
}

TEST_CASE("a server on the current loop may be destroyed there with everything under way") {
  on_each_engine([]() -> Task<> {
    std::optional<TcpServer> server(std::in_place, EventLoop::current(),
                                    server_options(Engine::automatic));
    server->start(echo);
    std::vector<Peer> peers;
    for (int i = 0; i < 5; ++i) peers.push_back(Peer::connect(server->address()));
    co_await turn_until([&] { return server->connection_count() == 5; });
    peers[0].send("one of them is busy");
    peers.push_back(Peer::connect(server->address()));
    server.reset();
    for (Peer& peer : peers) {
      const auto end = [&peer] { return peer.wait_for_end(); };
      (void)co_await in_thread(end);
    }
  });
}

TEST_CASE("a handler may destroy its server") {
  on_each_engine([]() -> Task<> {
    const CapturedLog log;
    for (const bool at_once : {true, false}) {
      CAPTURE(at_once);
      std::optional<TcpServer> server(std::in_place, EventLoop::current(),
                                      server_options(Engine::automatic));
      server->start([&server, at_once](TcpConnection conn) -> Task<> {
        if (!at_once) co_await conn.read();
        server.reset();
        co_await conn.read();
        FAIL_CHECK("resumed after its server was gone");
      });
      std::vector<Peer> peers;
      for (int i = 0; i < 3; ++i) peers.push_back(Peer::connect(server->address()));
      for (Peer& peer : peers) peer.send("go");
      co_await turn_until([&] { return !server; });
      co_await turns(5);
      for (Peer& peer : peers) {
        const auto end = [&peer] { return peer.wait_for_end(); };
        (void)co_await in_thread(end);
      }
    }
    CHECK(log.errors() == 0);  // it is no error of theirs that their connections are gone
  });
}

TEST_CASE("a client that comes in the very turn of the stop is not served after it") {
  on_each_engine([]() -> Task<> {
    for (const bool destroy : {false, true}) {
      CAPTURE(destroy);
      std::optional<TcpServer> server(std::in_place, EventLoop::current(),
                                      server_options(Engine::automatic));
      bool stopped = false;
      server->start([&](TcpConnection conn) -> Task<> {
        CHECK_FALSE((stopped && destroy));
        co_await conn.read();
      });
      co_await turns(1);
      const auto before = completions();
      Peer peer = Peer::connect(server->address());
      before_resuming(before, 1, [&] {
        stopped = true;
        if (destroy) {
          server.reset();
        } else {
          server->stop();
        }
      });
      const auto end = [&peer] { return peer.wait_for_end(); };
      (void)co_await in_thread(end);
      co_await turn_until([&] { return stopped; });
      co_await turns(5);
      if (server) CHECK(server->connection_count() == 0);
    }
  });
}

TEST_CASE("a client on its way to another loop when the server stops is not served there") {
  on_each_kernel_engine("its loops share a thread", []() -> Task<> {
    EventLoop& base = EventLoop::current();
    TcpServer server(base, server_options(Engine::automatic, 2));
    std::atomic<int> served{0};
    std::atomic<std::uint16_t> served_elsewhere{0};  // the port of such a client
    server.start([&](TcpConnection conn) -> Task<> {
      if (&EventLoop::current() != &base) served_elsewhere = conn.peer_address().port();
      ++served;
      co_await conn.read();
    });
    std::vector<Peer> clients;
    for (int i = 0; i < 4; ++i) clients.push_back(Peer::connect(server.address()));
    co_await turn_until([&] { return served == 4; });
    const auto before = completions();
    std::vector<Peer> late;
    for (int i = 0; i < 4; ++i) late.push_back(Peer::connect(server.address()));
    bool stopped = false;
    before_resuming(before, 1, [&] {
      server.stop();
      // The other loop has cut off its clients, and ours goes on to hand it one more.
      for (Peer& client : clients) {
        if (client.local_address().port() == served_elsewhere) (void)client.wait_for_end();
      }
      stopped = true;
    });
    co_await turn_until([&] { return stopped; });
    co_await turn_until([&] { return server.connection_count() == 0; });
    const auto end = [&] {
      for (Peer& peer : late) (void)peer.wait_for_end();
    };
    co_await in_thread(end);
    CHECK(served == 4);
  });
}

TEST_CASE("an exception that leaves a handler closes its connection, is counted and logged") {
  for_each_engine([](Engine engine) {
    const CapturedLog log;
    {
      std::atomic<int> calls{0};
      ServerThread server(server_options(engine), [&calls](TcpConnection conn) -> Task<> {
        switch (calls++) {
          case 0:
            throw std::runtime_error("thrown at once");
          case 1:
            co_await conn.read();
            throw std::runtime_error("thrown later");
          case 2:
            throw 42;
          default:
            co_await echo(std::move(conn));
        }
      });
      Peer first = server.connect();
      CHECK(first.receive_all().empty());
      Peer second = server.connect();
      second.send("x");
      CHECK(second.receive_all().empty());
      Peer third = server.connect();
      CHECK(third.receive_all().empty());
      Peer fourth = server.connect();
      CHECK(echoes(fourth));
      CHECK(server->handler_failures() == 3);
      for (Peer* peer : {&first, &second, &third}) peer->close();
      CHECK(eventually([&] { return server->connection_count() == 1; }));
    }
    CHECK(log.count("thrown at once") == 1);
    CHECK(log.count("thrown later") == 1);
    CHECK(log.count("unknown type") == 1);
    for (const std::string& line : log.lines()) {
      CHECK(line.find("server") != std::string::npos);
    }
  });
}

TEST_CASE("handlers on other loops end with the base loop, and may throw by then") {
  for_each_engine([](Engine engine) {
    const CapturedLog log;
    LoopOptions options;
    options.engine = engine;
    for (const bool reuse_port : {false, true}) {
      CAPTURE(reuse_port);
      auto base = std::make_unique<EventLoop>(options);
      TcpServer server(*base, server_options(engine, 2, reuse_port));
      std::atomic<int> served{0};
      std::atomic<int> ended{0};
      struct Ended {
        std::atomic<int>& count;
        ~Ended() { ++count; }
      };
      server.start([&](TcpConnection conn) -> Task<> {
        const Ended end{ended};
        ++served;
        co_await conn.read();
        throw std::runtime_error("thrown late");
      });
      CHECK(server.loops().size() == 2);
      Peer first = Peer::connect(server.address());
      Peer second = Peer::connect(server.address());
      const auto serve_both = [&]() -> Task<> { co_await turn_until([&] { return served == 2; }); };
      base->run_until_complete(serve_both());
      first.send("x");  // it throws while the base loop ends, or after it
      base.reset();
      CHECK(eventually([&] { return ended == 2; }));
      const int end = second.wait_for_end();
      CHECK((end == 0 || end == ECONNRESET));
      CHECK(eventually([&] { return Peer::knock(server.address()) != 0; }));
    }
    CHECK(log.count("thrown late") <= 2);
  });
}

TEST_CASE("a handler that throws before it makes its coroutine harms nobody") {
  for_each_engine([](Engine engine) {
    const CapturedLog log;
    std::atomic<bool> bad{true};
    ServerThread server(server_options(engine), [&bad](TcpConnection conn) -> Task<> {
      if (bad.exchange(false)) throw std::runtime_error("no coroutine");
      return echo(std::move(conn));
    });
    Peer first = server.connect();
    CHECK(first.receive_all().empty());
    first.close();
    Peer second = server.connect();
    CHECK(echoes(second));
    CHECK(server->handler_failures() == 1);
    CHECK(log.count("no coroutine") == 1);
    CHECK(eventually([&] { return server->connection_count() == 1; }));
  });
}

TEST_CASE("a handler's captures live as long as any of its coroutines") {
  on_each_engine([]() -> Task<> {
    std::string said;
    std::weak_ptr<const std::string> watched;
    TcpConnection kept;
    {
      TcpServer server(EventLoop::current(), server_options(Engine::automatic));
      {
        auto greeting = std::make_shared<const std::string>("kept alive");
        watched = greeting;
        server.start([greeting, &said](TcpConnection conn) -> Task<> {
          const Chunk chunk = co_await conn.read();
          said = *greeting;
          co_await conn.send(*greeting);
        });
      }
      CHECK_FALSE(watched.expired());
      Peer peer = Peer::connect(server.address());
      peer.send("x");
      co_await turn_until([&] { return !said.empty(); });
      CHECK(said == "kept alive");
    }
    co_await turns(3);
    CHECK(watched.expired());
  });
}

TEST_CASE("connections have names with the server's, their peer and a number of their own") {
  for_each_engine([](Engine engine) {
    std::mutex mutex;
    std::set<std::string> names;
    std::set<std::uint64_t> ids;
    ServerOptions options = server_options(engine, 2);
    options.name = "greeter";
    ServerThread server(std::move(options), [&](TcpConnection conn) -> Task<> {
      {
        const std::lock_guard lock(mutex);
        names.insert(conn.name());
        ids.insert(conn.id());
      }
      co_await echo(std::move(conn));
    });
    std::vector<Peer> peers;
    for (int i = 0; i < 20; ++i) peers.push_back(server.connect());
    for (Peer& peer : peers) CHECK(echoes(peer));
    const std::lock_guard lock(mutex);
    CHECK(names.size() == 20);
    CHECK(ids.size() == 20);
    CHECK(*ids.begin() == 1);
    CHECK(*ids.rbegin() == 20);
    for (const Peer& peer : peers) {
      const std::string prefix = "greeter-" + peer.local_address().to_string() + '#';
      CHECK(std::any_of(names.begin(), names.end(),
                        [&](const std::string& name) { return name.starts_with(prefix); }));
    }
  });
}

TEST_CASE("a server of several loops spreads its connections evenly over them") {
  for_each_engine([](Engine engine) {
    ServerThread server(server_options(engine, 3), echo);
    std::vector<Peer> peers;
    for (int i = 0; i < 12; ++i) peers.push_back(server.connect());
    for (Peer& peer : peers) CHECK(echoes(peer));
    std::map<EventLoop*, int> of_loop;  // one at a time, it says
    server->for_each_connection([&](TcpConnection& conn) { ++of_loop[&conn.loop()]; });
    CHECK(of_loop.size() == 3);
    for (const auto& [loop, count] : of_loop) CHECK(count == 4);
  });
}

TEST_CASE("for_each_connection reaches every connection from any thread") {
  for_each_engine([](Engine engine) {
    for (const std::size_t threads : {1UL, 3UL}) {
      ServerThread server(server_options(engine, threads), echo);
      std::vector<Peer> peers;
      for (int i = 0; i < 12; ++i) peers.push_back(server.connect());
      for (Peer& peer : peers) CHECK(echoes(peer));
      std::set<std::uint64_t> seen;  // one at a time, it says
      server->for_each_connection([&](TcpConnection& conn) {
        CHECK(&conn.loop() == EventLoop::current_or_null());
        seen.insert(conn.id());
        (void)conn.sender().try_send("news");
      });
      CHECK(seen.size() == 12);
      for (Peer& peer : peers) CHECK(peer.receive_exactly(4) == "news");
      server->for_each_connection([](TcpConnection& conn) { conn.force_close(); });
      CHECK(eventually([&] { return server->connection_count() == 0; }));
    }
  });
}

TEST_CASE("for_each_connection reaches every connection from a handler") {
  for_each_engine([](Engine engine) {
    for (const std::size_t threads : {1UL, 3UL}) {
      std::atomic<TcpServer*> of = nullptr;
      ServerThread server(server_options(engine, threads), [&of](TcpConnection conn) -> Task<> {
        while (Chunk chunk = co_await conn.read()) {
          auto news = std::make_shared<const std::string>(chunk.view());
          of.load()->for_each_connection(
              [news](TcpConnection& each) { (void)each.sender().try_send(*news); });
        }
      });
      of = &*server;
      std::vector<Peer> peers;
      for (int i = 0; i < 9; ++i) peers.push_back(server.connect());
      CHECK(eventually([&] { return server->connection_count() == 9; }));
      for (std::size_t i = 0; i < 3; ++i) {
        peers[i].send("to all");
        for (Peer& peer : peers) CHECK(peer.receive_exactly(6) == "to all");
      }
    }
  });
}

TEST_CASE("a server in use of a port says which one") {
  for_each_engine([](Engine engine) {
    ServerThread first(server_options(engine), echo);
    ServerOptions options = server_options(engine);
    options.address = first->address();
    TcpServer second(options);
    const std::string text = text_of<std::system_error>([&] { second.run(echo); });
    CHECK(text.find(first->address().to_string()) != std::string::npos);
    CHECK(text.find("in use") != std::string::npos);
    Peer peer = first.connect();
    CHECK(echoes(peer));
  });
}

TEST_CASE("bad options of a server are refused by name and value") {
  const auto text = [](auto change) {
    ServerOptions options;
    options.address = loopback();
    change(options);
    return text_of<std::invalid_argument>([&] { TcpServer server(options); });
  };
  const auto names = [&](auto change, const char* part) {
    CAPTURE(part);
    CHECK(text(change).find(part) != std::string::npos);
  };
  names([](ServerOptions& o) { o.address = SocketAddress(); }, "address is empty");
  names([](ServerOptions& o) { o.threads = 0; }, "threads is 0");
  names([](ServerOptions& o) { o.threads = 5000; }, "threads is 5000");
  names([](ServerOptions& o) { o.backlog = 0; }, "backlog is 0");
  names([](ServerOptions& o) { o.idle_timeout = -5ms; }, "idle_timeout is -5");
  names([](ServerOptions& o) { o.drain_timeout = -7ms; }, "drain_timeout is -7");
  names([](ServerOptions& o) { o.connection.water_marks = {.high = 5, .low = 6}; }, "low is 6");
  names([](ServerOptions& o) { o.connection.linger = -1ms; }, "linger is -1");
  names([](ServerOptions& o) { o.loop.ring_entries = 3; }, "ring_entries is 3");
  names([](ServerOptions& o) { o.loop.buffer_count = 0; }, "buffer_count is 0");
}

TEST_CASE("a server is started once, with a handler, and runs only a loop of its own") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), server_options(Engine::automatic));
    CHECK_THROWS_AS(server.start(nullptr), std::invalid_argument);
    CHECK_THROWS_AS(server.run(echo), std::logic_error);
    server.start(echo);
    CHECK_THROWS_AS(server.start(echo), std::logic_error);
    co_return;
  });
}

TEST_CASE("a server serves a Unix socket") {
  for_each_engine([](Engine engine) {
    ServerOptions options = server_options(engine);
    options.address = SocketAddress::parse("unix:@weir-server-" + std::to_string(::getpid()));
    ServerThread server(options, echo);
    Peer peer = server.connect();
    CHECK(echoes(peer));
    CHECK(server->address() == options.address);
  });
}

TEST_CASE("a server may go while another thread begins to run its loop") {
  for_each_engine([](Engine engine) {
    LoopOptions options;
    options.engine = engine;
    for (int round = 0; round < 100; ++round) {
      EventLoop loop(options);
      std::optional<TcpServer> server(std::in_place, loop, server_options(engine));
      server->start(echo);
      std::atomic<bool> begins{false};
      const Thread runner([&] {
        begins = true;
        loop.run();
      });
      CHECK(eventually([&] { return begins.load(); }));
      server.reset();
      loop.stop();
    }
  });
}
