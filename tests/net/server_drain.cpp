#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

/// A server with its I/O loops, whose base loop is the current one.
ServerOptions options_with(std::size_t threads, bool reuse_port = false) {
  ServerOptions options = server_options(Engine::automatic, threads, reuse_port);
  options.address = own_loopback();  // so that nobody else answers when it has ended
  return options;
}

/// What a thread's storage holds goes after the thread's loop.
class SaysAtThreadEnd {
 public:
  explicit SaysAtThreadEnd(std::atomic<bool>& said) : said_(said) {}
  SaysAtThreadEnd(const SaysAtThreadEnd&) = delete;
  SaysAtThreadEnd& operator=(const SaysAtThreadEnd&) = delete;
  ~SaysAtThreadEnd() { said_ = true; }

 private:
  std::atomic<bool>& said_;
};

Task<> drain_and_say(Task<DrainReport> drain, std::atomic<bool>& begins, std::atomic<bool>& ended) {
  begins = true;
  (void)co_await std::move(drain);
  ended = true;
}

}  // namespace

TEST_CASE("a drain waits for the handlers and counts them as finished") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t threads : {1UL, 2UL}) {
      TcpServer server(EventLoop::current(), options_with(threads));
      server.start(echo);
      std::vector<Peer> peers;
      for (int i = 0; i < 5; ++i) peers.push_back(Peer::connect_to(server));
      const auto talk = [&peers] {
        bool right = true;
        for (Peer& peer : peers) right = echoes(peer) && right;
        return right;
      };
      bool right = co_await in_thread(talk);
      CHECK(right);
      std::optional<DrainReport> report;
      const auto drain = [&]() -> Task<> { report = co_await server.drain(1h); };
      TaskGroup group;
      group.spawn(drain());
      right = co_await in_thread(talk);  // they are served on
      CHECK(right);
      CHECK_FALSE(report);
      peers.clear();
      co_await group.join();
      REQUIRE(report);
      CHECK(report->finished == 5);
      CHECK(report->forced == 0);
      co_await turn_until([&] { return server.connection_count() == 0; });
    }
  });
}

TEST_CASE("a drain cuts off at its deadline who has not finished, and counts them") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t threads : {1UL, 2UL}) {
      TcpServer server(EventLoop::current(), options_with(threads));
      server.start(echo);
      std::vector<Peer> peers;
      for (int i = 0; i < 5; ++i) peers.push_back(Peer::connect_to(server));
      co_await turn_until([&] { return server.connection_count() == 5; });
      peers[0].close();
      peers[1].close();
      co_await turn_until([&] { return server.connection_count() == 3; });
      const DrainReport report = co_await server.drain(30ms);
      CHECK(report.finished <= 2);  // who has closed may still be about to end
      CHECK(report.forced == 3);
      for (std::size_t i = 2; i < 5; ++i) {
        const auto end = [&peer = peers[i]] { return peer.wait_for_end(); };
        const int error = co_await in_thread(end);
        CHECK((error == 0 || error == ECONNRESET));
      }
      co_await turn_until([&] { return server.connection_count() == 0; });
    }
  });
}

TEST_CASE("a drain that cuts off many leaves turns of the loop to others") {
  on_each_kernel_engine("there no time passes in a turn", []() -> Task<> {
    // Each takes a millisecond to end at least, so that few of them fit into a turn.
    struct Slow {
      std::vector<std::uint64_t>& turns;
      Slow(std::vector<std::uint64_t>& of) : turns(of) {}
      Slow(const Slow&) = delete;
      Slow& operator=(const Slow&) = delete;
      ~Slow() {
        EventLoop& loop = EventLoop::current();
        turns.push_back(loop.metrics().turns);
        const TimePoint until = loop.machine().now() + 1ms;
        while (loop.machine().now() < until) continue;
      }
    };
    constexpr std::size_t kConnections = 60;
    std::vector<std::uint64_t> turns_of_ends;
    TcpServer server(EventLoop::current(), options_with(1));
    server.start([&](TcpConnection conn) -> Task<> {
      const Slow slow(turns_of_ends);
      for (;;) (void)co_await conn.read();
    });
    std::vector<Peer> peers;
    for (std::size_t i = 0; i < kConnections; ++i) {
      peers.push_back(Peer::connect_to(server));
    }
    co_await turn_until([&] { return has_agreed(server, kConnections); });
    const DrainReport report = co_await server.drain(1ms);
    CHECK(report.forced == kConnections);
    REQUIRE(turns_of_ends.size() == kConnections);
    long most = 0;
    for (const std::uint64_t turn : turns_of_ends) {
      most = std::max<long>(most, std::count(turns_of_ends.begin(), turns_of_ends.end(), turn));
    }
    CHECK(most < 10);
    for (Peer& peer : peers) {
      const auto end = [&peer] { return peer.wait_for_end(); };
      const int error = co_await in_thread(end);
      CHECK(error == ECONNRESET);
    }
  });
}

TEST_CASE("who is cut off in the middle of an answer sees a reset, by a drain and by a stop") {
  on_each_engine([]() -> Task<> {
    for (const bool drained : {true, false}) {
      CAPTURE(drained);
      TcpServer server(EventLoop::current(), options_with(1));
      server.start([](TcpConnection conn) -> Task<> {
        co_await conn.send("the first half");
        co_await sleep(1h);
      });
      Peer peer = Peer::connect_to(server);
      const auto receive = [&peer] { return peer.receive_exactly(14); };
      const std::string half = co_await in_thread(receive);
      CHECK(half == "the first half");
      if (drained) {
        const DrainReport report = co_await server.drain(1ms);
        CHECK(report.forced == 1);
      } else {
        server.stop();
      }
      const auto end = [&peer] { return peer.wait_for_end(); };
      const int error = co_await in_thread(end);
      CHECK(error == ECONNRESET);
    }
  });
}

TEST_CASE("a handler that waits for a request or a drain ends when the drain begins") {
  on_each_engine([]() -> Task<> {
    struct Shape {
      std::size_t threads;
      bool reuse_port;
    };
    for (const Shape shape : {Shape{1, false}, Shape{2, false}, Shape{2, true}}) {
      CAPTURE(shape.threads);
      TcpServer server(EventLoop::current(), options_with(shape.threads, shape.reuse_port));
      server.start([](TcpConnection conn) -> Task<> {
        while (!conn.is_draining()) {
          auto next = co_await when_any(conn.read_until("\n", 100), conn.draining());
          if (Chunk* line = std::get_if<0>(&next); line != nullptr && *line) {
            co_await conn.send(std::move(*line));
          } else {
            co_await conn.send("bye\n");
            co_return;
          }
        }
      });
      constexpr int kPeers = 6;
      std::vector<Peer> peers;
      for (int i = 0; i < kPeers; ++i) peers.push_back(Peer::connect_to(server));
      for (Peer& peer : peers) {
        const auto talk = [&peer] { return echoes(peer, "hello\n"); };
        const bool right = co_await in_thread(talk);
        CHECK(right);
      }
      std::optional<DrainReport> report;
      const auto drain = [&]() -> Task<> { report = co_await server.drain(1h); };
      TaskGroup group;
      group.spawn(drain());
      for (Peer& peer : peers) {
        const auto rest = [&peer] { return peer.receive_all(); };
        const std::string farewell = co_await in_thread(rest);
        CHECK(farewell == "bye\n");
        peer.close();
      }
      co_await group.join();
      REQUIRE(report);
      CHECK(report->finished == kPeers);
      CHECK(report->forced == 0);
    }
  });
}

TEST_CASE("a connection without a server never drains, and a wait for that can be dropped") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    CHECK_FALSE(conn.is_draining());
    auto [error, none] = co_await as_tuple(timeout(1ms, conn.draining()));
    CHECK(error == std::errc::timed_out);
    peer.send("x");
    const auto first = co_await when_any(conn.draining(), conn.read());
    CHECK(first.index() == 1);
    const TcpConnection nowhere;
    CHECK_FALSE(nowhere.is_draining());
    auto [again, nothing] = co_await as_tuple(timeout(1ms, nowhere.draining()));
    CHECK(again == std::errc::timed_out);
  });
}

TEST_CASE("a drain of an idle server ends at once, and again") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), options_with(1));
    server.start(echo);
    for (int i = 0; i < 2; ++i) {
      const DrainReport report = co_await server.drain(1h);
      CHECK(report.finished == 0);
      CHECK(report.forced == 0);
    }
    CHECK_THROWS_AS(Peer::connect(server.address()), std::system_error);
  });
}

TEST_CASE("clients in the backlog when a drain begins are served, on one loop and on several") {
  if (plain_only("its clients have said all before anybody agrees with them")) return;
  on_each_engine([]() -> Task<> {
    struct Shape {
      std::size_t threads;
      bool reuse_port;
      bool waits_for_drain;
    };
    const auto echo_until_drain = [](TcpConnection conn) -> Task<> {
      for (;;) {
        auto next = co_await when_any(conn.draining(), conn.read());
        Chunk* data = std::get_if<1>(&next);
        if (data == nullptr || !*data) co_return;
        co_await conn.send(std::move(*data));
      }
    };
    for (const Shape shape : {Shape{1, false, false}, Shape{2, false, false}, Shape{2, true, false},
                              Shape{1, false, true}, Shape{2, false, true}, Shape{2, true, true}}) {
      CAPTURE(shape.threads);
      CAPTURE(shape.reuse_port);
      CAPTURE(shape.waits_for_drain);
      TcpServer server(EventLoop::current(), options_with(shape.threads, shape.reuse_port));
      server.start(shape.waits_for_drain ? TcpServer::Handler(echo_until_drain)
                                         : TcpServer::Handler(echo));
      std::vector<Peer> peers;
      for (int i = 0; i < 20; ++i) {
        peers.push_back(Peer::connect_to(server));
        peers.back().send("in time");
        peers.back().shutdown_send();
      }
      std::optional<DrainReport> report;
      const auto drain = [&]() -> Task<> { report = co_await server.drain(1h); };
      TaskGroup group;
      group.spawn(drain());
      const auto talk = [&peers] {
        int served = 0;
        for (Peer& peer : peers) {
          int error = 0;
          served += peer.receive_all(&error) == "in time" && error == 0 ? 1 : 0;
          peer.close();
        }
        return served;
      };
      const int served = co_await in_thread(talk);
      CHECK(served == 20);
      co_await group.join();
      REQUIRE(report);
      CHECK(report->forced == 0);
      CHECK(report->finished <= 20);
      co_await turn_until([&] { return server.connection_count() == 0; });
    }
  });
}

TEST_CASE("a drain waits for a reply under way whose handler has ended") {
  on_each_engine([]() -> Task<> {
    constexpr std::size_t kReply = 4 << 20;
    for (const std::size_t threads : {1UL, 2UL}) {
      CAPTURE(threads);
      TcpServer server(EventLoop::current(), options_with(threads));
      server.start([](TcpConnection conn) -> Task<> {
        co_await conn.read();
        conn.set_water_marks({.high = 2 * kReply, .low = 0});
        std::string reply = pattern(kReply);
        co_await conn.send(std::move(reply));
      });
      Peer peer = Peer::connect_to(server, 16 << 10);
      peer.send("x");
      std::string got;
      const auto receive = [&peer] {
        std::string all = peer.receive_all();
        peer.close();
        return all;
      };
      const auto collect = [&]() -> Task<> { got = co_await in_thread(receive); };
      TaskGroup group;
      group.spawn(collect());
      const DrainReport report = co_await server.drain(1h);
      CHECK(server.connection_count() == 0);
      CHECK(report.finished == 1);
      CHECK(report.forced == 0);
      co_await group.join();
      CHECK(matching(got, 1, 0) == kReply);
    }
  });
}

TEST_CASE("a drain resets at its limit a reply under way whose handler has ended") {
  on_each_engine([]() -> Task<> {
    constexpr std::size_t kReply = 4 << 20;
    for (const std::size_t threads : {1UL, 2UL}) {
      CAPTURE(threads);
      TcpServer server(EventLoop::current(), options_with(threads));
      std::atomic<bool> ended{false};
      server.start([&](TcpConnection conn) -> Task<> {
        co_await conn.read();
        conn.set_water_marks({.high = 2 * kReply, .low = 0});
        std::string reply = pattern(kReply);
        co_await conn.send(std::move(reply));
        ended = true;
      });
      Peer peer = Peer::connect_to(server, 16 << 10);
      peer.send("x");
      co_await turn_until([&] { return ended.load(); });
      const DrainReport report = co_await server.drain(20ms);
      CHECK(server.connection_count() == 0);
      CHECK(report.finished == 0);
      CHECK(report.forced == 1);
      const auto end = [&peer] { return peer.wait_for_end(); };
      const int error = co_await in_thread(end);
      CHECK(error == ECONNRESET);
    }
  });
}

TEST_CASE("nothing of a server is left when its drain resumes, whoever was cut off") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t threads : {1UL, 2UL}) {
      TcpServer server(EventLoop::current(), options_with(threads));
      server.start(echo);
      std::vector<Peer> peers;
      for (int i = 0; i < 5; ++i) peers.push_back(Peer::connect_to(server));
      co_await turn_until([&] { return server.connection_count() == 5; });
      const DrainReport report = co_await server.drain(1ms);
      CHECK(server.connection_count() == 0);
      CHECK(report.finished + report.forced == 5);
    }
  });
}

TEST_CASE("who connects while the kernel still lets go of a draining listener is served") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t threads : {1UL, 2UL}) {
      CAPTURE(threads);
      TcpServer server(EventLoop::current(), options_with(threads));
      server.start(echo);
      co_await turns(2);
      std::optional<DrainReport> report;
      const auto drain = [&]() -> Task<> { report = co_await server.drain(1h); };
      TaskGroup group;
      group.spawn(drain());  // up to where it waits
      std::vector<Peer> peers;
      try {
        for (int i = 0; i < 5; ++i) peers.push_back(Peer::connect_to(server));
      } catch (const std::system_error& error) {  // it has let go already
        CHECK(error.code() == std::errc::connection_refused);
      }
      CAPTURE(peers.size());
      const auto talk = [&peers] {
        std::size_t right = 0;
        for (Peer& peer : peers) right += echoes(peer) ? 1 : 0;
        return right;
      };
      const std::size_t right = co_await in_thread(talk);
      CHECK(right == peers.size());
      const std::size_t count = peers.size();
      peers.clear();
      co_await group.join();
      REQUIRE(report);
      CHECK(report->finished == count);
    }
  });
}

TEST_CASE("a drain ends when its server is stopped or destroyed") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t threads : {1UL, 2UL}) {
      for (const bool destroyed : {false, true}) {
        CAPTURE(threads);
        CAPTURE(destroyed);
        std::optional<TcpServer> server(std::in_place, EventLoop::current(), options_with(threads));
        server->start(echo);
        Peer peer = Peer::connect_to(*server);
        co_await turn_until([&] { return server->connection_count() == 1; });
        std::optional<DrainReport> report;
        const auto drain = [&]() -> Task<> { report = co_await server->drain(1h); };
        TaskGroup group;
        group.spawn(drain());
        co_await turns(2);
        CHECK_FALSE(report);
        if (destroyed) {
          server.reset();
        } else {
          server->stop();
        }
        co_await group.join();
        REQUIRE(report);
        CHECK(report->finished == 0);
        CHECK(report->forced == 1);
      }
    }
  });
}

TEST_CASE("a handler may drain its server, and is cut off itself at the deadline") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), options_with(1));
    bool resumed = false;
    server.start([&](TcpConnection conn) -> Task<> {
      co_await conn.read();
      co_await server.drain(20ms);
      resumed = true;
      co_await conn.read();
    });
    Peer peer = Peer::connect_to(server);
    peer.send("x");
    const auto end = [&peer] { return peer.wait_for_end(); };
    (void)co_await in_thread(end);
    co_await turn_until([&] { return server.connection_count() == 0; });
    (void)resumed;
  });
}

TEST_CASE("a drain that is dropped leaves its server stoppable") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), options_with(1));
    server.start(echo);
    Peer peer = Peer::connect_to(server);
    co_await turn_until([&] { return server.connection_count() == 1; });
    auto [error, report] = co_await as_tuple(timeout(5ms, server.drain(1h)));
    CHECK(error == std::errc::timed_out);
    CHECK(server.connection_count() == 1);
    server.stop();
    co_await turn_until([&] { return server.connection_count() == 0; });
  });
}

TEST_CASE("a server one of whose loops has ended drains, and hands nothing over from it") {
  on_each_kernel_engine("it ends no loop of a pool", []() -> Task<> {
    const CapturedLog log;
    for (const bool reuse_port : {false, true}) {
      CAPTURE(reuse_port);
      std::atomic<bool> ended{false};
      TcpServer server(EventLoop::current(), options_with(2, reuse_port));
      server.start([&ended](TcpConnection conn) -> Task<> {
        co_await conn.read();
        thread_local const SaysAtThreadEnd says(ended);
        EventLoop::current().stop();
      });
      Peer peer = Peer::connect_to(server);
      peer.send("x");
      co_await turn_until([&] { return ended.load(); });
      const std::vector<std::string> nowhere{"/nowhere/at/all"};
      const bool accepts = co_await server.hand_over(nowhere);
      CHECK_FALSE(accepts);
      const DrainReport report = co_await server.drain(1h);
      CHECK(report.finished + report.forced == 0);
    }
  });
}

TEST_CASE("a drain that begins while another thread destroys its server ends") {
  for_each_engine([](Engine engine) {
    LoopOptions options;
    options.engine = engine;
    EventLoopThread base(options);
    for (int round = 0; round < 30; ++round) {
      std::optional<TcpServer> server(std::in_place, base.loop(), server_options(engine, 3, true));
      server->start(echo);
      std::atomic<bool> begins{false};
      std::atomic<bool> ended{false};
      base.loop().spawn(drain_and_say(server->drain(5ms), begins, ended));
      CHECK(eventually([&] { return begins.load(); }));
      server.reset();
      CHECK(eventually([&] { return ended.load(); }));
    }
  });
}

TEST_CASE("a drain does not wait where a handler holds up its loop") {
  on_each_kernel_engine("its loops share a thread", []() -> Task<> {
    std::atomic<bool> holds{false};
    std::atomic<bool> let_go{false};
    std::atomic<bool> gave_up{false};
    TcpServer server(EventLoop::current(), options_with(2));
    server.start([&](TcpConnection conn) -> Task<> {
      co_await conn.read();
      holds = true;
      const auto end = std::chrono::steady_clock::now() + kPatience;
      while (!let_go && !gave_up) {
        gave_up = std::chrono::steady_clock::now() > end;
        std::this_thread::yield();
      }
    });
    Peer peer = Peer::connect_to(server);
    peer.send("x");
    co_await turn_until([&] { return holds.load(); });
    std::optional<DrainReport> report;
    const auto drain = [&]() -> Task<> { report = co_await server.drain(1ms); };
    TaskGroup group;
    group.spawn(drain());
    co_await sleep(5ms);  // its limit passes as well
    co_await turns(5);
    CHECK_FALSE(report);
    let_go = true;
    co_await group.join();
    CHECK_FALSE(gave_up);
    REQUIRE(report);
    CHECK(report->finished + report->forced == 1);
  });
}

TEST_CASE("a drain may have as much time as any duration says") {
  on_each_engine([]() -> Task<> {
    const auto drain_for_ever = [](auto limit) -> Task<> {
      TcpServer server(EventLoop::current(), options_with(1));
      server.start(echo);
      Peer peer = Peer::connect_to(server);
      co_await turn_until([&] { return server.connection_count() == 1; });
      std::optional<DrainReport> report;
      const auto drain = [&]() -> Task<> { report = co_await server.drain(limit); };
      TaskGroup group;
      group.spawn(drain());
      co_await turns(2);
      peer.close();
      co_await group.join();
      REQUIRE(report);
      CHECK(report->finished == 1);
      CHECK(report->forced == 0);
    };
    co_await drain_for_ever(std::chrono::milliseconds::max());
    co_await drain_for_ever(std::chrono::hours::max());
    co_await drain_for_ever(std::chrono::duration<double>(1e300));
  });
}
