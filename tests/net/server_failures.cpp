// What fails in a server, by a peer's doing or for want of memory.
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "../support/allocations.h"
#include "../support/captured_log.h"
#include "../support/net_server.h"
#include "../support/process.h"

using namespace weir;
using namespace weir::test;

namespace {

/// As whoever else has it can: nobody gets in through it any more.
void break_listener(const SocketAddress& address) {
  for (const auto& [fd, what] : open_descriptors()) {
    if (!what.starts_with("socket:") || option_of(fd, SOL_SOCKET, SO_ACCEPTCONN) != 1) continue;
    sockaddr_in bound{};
    socklen_t size = sizeof bound;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0) continue;
    if (ntohs(bound.sin_port) == address.port()) CHECK(::shutdown(fd, SHUT_RD) == 0);
  }
}

}  // namespace

TEST_CASE("what peers do is information, and no failure of a handler") {
  for_each_engine([](Engine engine) {
    const CapturedLog log;
    {
      ServerThread server(server_options(engine), [](TcpConnection conn) -> Task<> {
        const Chunk what = co_await conn.read_exactly(1);
        switch (what ? what.view()[0] : '-') {
          case 'd':
            co_await timeout(1ms, conn.read());
            break;
          case 'l':
            co_await conn.read_until("\n", 8);
            break;
          case 'm':
            co_await conn.read_exactly(8);
            break;
          case 'r':
            while (const Chunk more = co_await conn.read()) continue;
            break;
          case 'c':
            conn.sender().force_close();
            co_await sleep(1ms);
            co_await conn.send("x");
            break;
          default:
            throw std::runtime_error("a fault of the handler's own");
        }
      });
      const auto ask = [&](const char* bytes, bool ends, bool resets) {
        Peer peer = server.connect();
        peer.send(bytes);
        if (ends) peer.shutdown_send();
        if (resets) {
          peer.reset();
        } else {
          (void)peer.wait_for_end();
          peer.close();
        }
        CHECK(eventually([&] { return server->connection_count() == 0; }));
      };
      ask("d", false, false);           // a deadline passes
      ask("l123456789", false, false);  // a line is too long
      ask("m1", true, false);           // the end comes in the middle of a message
      ask("c", false, false);           // its own Sender ends it
      ask("r", false, true);            // a reset
      CHECK(server->handler_failures() == 0);
      ask("f", false, false);
      CHECK(server->handler_failures() == 1);
    }
    CHECK(log.count("a fault of the handler's own") == 1);
  });
}

TEST_CASE(
    "a handler that fails because another connection broke leaves no part as if it were all") {
  on_each_engine([]() -> Task<> {
    Acceptor behind(loopback());
    TcpServer server(EventLoop::current(), server_options(Engine::automatic));
    const SocketAddress backend = behind.address();
    server.start([backend](TcpConnection conn) -> Task<> {
      TcpConnection upstream(co_await Connector(backend).connect());
      while (const Chunk part = co_await upstream.read()) co_await conn.send(part.view());
    });
    for (const bool half_closed : {false, true}) {
      CAPTURE(half_closed);
      Peer peer = Peer::connect(server.address());
      if (half_closed) peer.shutdown_send();
      TcpConnection upstream(co_await behind.accept());
      co_await upstream.send("part");
      co_await upstream.flush();
      std::string answer;
      const auto get_part = [&] { answer = peer.receive_exactly(4); };
      co_await in_thread(get_part);
      upstream.force_close();
      int error = 0;
      const auto get_end = [&] { error = peer.wait_for_end(); };
      co_await in_thread(get_end);
      CHECK(answer == "part");
      CHECK(error == ECONNRESET);
    }
    CHECK(server.handler_failures() == 2);
    co_await server.drain(kPatience);
  });
}

TEST_CASE("short of memory a connection is reset, and its server lives") {
  const auto body = [](std::size_t threads) -> Task<> {
    ServerOptions options = server_options(Engine::automatic, threads);
    options.max_connections_per_peer = 1000;
    TcpServer server(EventLoop::current(), std::move(options));
    server.start(echo);
    std::vector<Peer> served;
    const auto serve_one = [&]() -> Task<> {
      served.push_back(Peer::connect(server.address()));
      const auto talk = [&] { return echoes(served.back()); };
      const bool right = co_await in_thread(talk);
      CHECK(right);
    };
    std::uint64_t nth = 0;
    for (bool failing = true; failing; ++nth) {
      CAPTURE(nth);
      REQUIRE(nth < 100);
      co_await serve_one();  // which takes what could be used again
      Peer peer = Peer::connect(server.address());
      {
        const FailingAllocations failures(nth);
        const std::size_t before = server.connection_count();
        for (int turn = 0; turn < 1000 && failures.failed() == 0; ++turn) {
          co_await yield();
          if (server.connection_count() > before) break;
        }
        co_await yield();
        failing = failures.failed() > 0;
      }
      int error = 0;
      const auto talk = [&] {
        try {
          if (echoes(peer)) return true;
        } catch (const std::system_error& broken) {
          error = broken.code().value();
        }
        return false;
      };
      const bool right = co_await in_thread(talk);
      if (right) {
        served.push_back(std::move(peer));
      } else {
        CHECK(failing);
        CHECK((error == ECONNRESET || error == EPIPE));
      }
    }
    CHECK(nth > 1);
    co_await turn_until([&] { return server.connection_count() == served.size(); });
    const DrainReport report = co_await server.drain(1ms);
    CHECK(report.finished + report.forced == served.size());
  };
  for_each_engine([&](Engine engine) {
    const CapturedLog log;
    for (const std::size_t threads : {1UL, 2UL}) {
      CAPTURE(threads);
      // A thread of its own has no frames yet that it could use again.
      std::thread([&] { on_engine(engine, [&] { return body(threads); }); }).join();
    }
  });
}

TEST_CASE("a listener that breaks is told of at once, and who is there is served on") {
  on_each_kernel_engine("nobody else has its listeners", []() -> Task<> {
    const CapturedLog log;
    TcpServer server(EventLoop::current(), server_options(Engine::automatic));
    server.start(echo);
    Peer peer = Peer::connect(server.address());
    const auto talk = [&peer] { return echoes(peer); };
    bool right = co_await in_thread(talk);
    CHECK(right);
    break_listener(server.address());
    co_await turn_until([&] { return log.count("cannot accept") == 1; });
    right = co_await in_thread(talk);
    CHECK(right);
    peer.close();
    const DrainReport report = co_await server.drain(1h);
    CHECK(report.forced == 0);
  });
}

TEST_CASE("a run whose listener breaks drains, and throws why") {
  for_each_kernel_engine("nobody else has its listeners", [](Engine engine) {
    const CapturedLog log;
    for (const std::size_t threads : {1UL, 2UL}) {
      CAPTURE(threads);
      TcpServer server(server_options(engine, threads));
      server.listen();
      std::error_code thrown;
      std::thread runs([&] {
        try {
          server.run(echo);
        } catch (const std::system_error& error) {
          thrown = error.code();
        }
      });
      {
        Peer peer = Peer::connect(server.address());
        CHECK(echoes(peer));
        break_listener(server.address());
        CHECK(eventually([&] { return log.count("draining") > 0; }));
        CHECK(echoes(peer));
      }
      runs.join();
      CHECK(thrown == std::errc::invalid_argument);
      CHECK(server.connection_count() == 0);
    }
  });
}

TEST_CASE("an exception that leaves a handler ends what it had sent with RST, and no FIN") {
  for_each_engine([](Engine engine) {
    const CapturedLog log;
    ServerThread server(server_options(engine), [](TcpConnection conn) -> Task<> {
      const Chunk how = co_await conn.read_exactly(1);
      switch (how.view()[0]) {
        case 'p':
          co_await conn.send("part");
          throw std::runtime_error("a fault of the handler's own");
        case 'f':
          co_await conn.send("part");
          co_await conn.flush();
          throw std::bad_alloc();
        case 'd':
          co_await conn.send("what there was");
          co_await timeout(1ms, conn.read());
          break;
        case 's':
          co_await conn.send("all");
          co_await conn.shutdown();
          throw std::runtime_error("after the end");
        default:
          throw std::runtime_error("before anything was sent");
      }
    });
    const auto ask = [&](const char* how, std::string_view answer, int end) {
      CAPTURE(how);
      Peer peer = server.connect();
      peer.send(how);
      int error = 0;
      CHECK(peer.receive_all(&error) == answer);
      CHECK(error == end);
    };
    ask("p", "part", ECONNRESET);
    ask("f", "part", ECONNRESET);
    ask("d", "what there was", 0);
    ask("s", "all", 0);
    ask("n", "", 0);
    CHECK(eventually([&] { return server->connection_count() == 0; }));
    CHECK(server->handler_failures() == 4);
  });
}
