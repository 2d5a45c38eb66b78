// What a server says of its connections.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "../support/allocations.h"
#include "../support/captured_log.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Ends in the way that its peer asks for.
Task<> end_as_asked(TcpConnection conn) {
  co_await conn.send("?");  // so that its peer does not reset it before it is accepted
  const Chunk how = co_await conn.read_until(";", 20);
  if (how.view() == "deadline;") {
    co_await timeout(1ms, conn.read());
  } else if (how.view() == "too long a line;") {
    co_await conn.read_until("\n", 4);
  } else if (how.view() == "sender;") {
    conn.sender().close();
    for (;;) {  // until the loop has heard of it
      co_await yield();
      co_await conn.send("more");
    }
  } else if (how.view() == "bug;") {
    throw std::runtime_error("a bug\nof the handler's");
  }
  while (const Chunk more = co_await conn.read()) continue;  // until it is reset, or idle too long
}

}  // namespace

TEST_CASE("what a peer does is information and no failure, and each line names its connection") {
  for_each_engine([](Engine engine) {
    const CapturedLog log;
    ServerThread patient(server_options(engine), end_as_asked);
    ServerOptions options = server_options(engine);
    options.idle_timeout = 50ms;
    ServerThread impatient(options, end_as_asked);
    std::vector<std::string> names;
    for (const char* how : {"deadline", "too long a line", "sender", "reset", "idle", "bug"}) {
      CAPTURE(how);
      ServerThread& server = how == std::string_view("idle") ? impatient : patient;
      Peer peer = server.connect();
      CHECK(peer.receive_exactly(1) == "?");
      if (how != std::string_view("idle")) peer.send(std::string(how) + ';');
      if (how == std::string_view("too long a line")) peer.send("and its rest");
      names.push_back(peer.local_address().to_string() + '#');
      if (how == std::string_view("reset")) {
        peer.reset();
      } else {
        (void)peer.wait_for_end();
      }
      peer.close();
      CHECK(eventually([&] { return log.count(names.back()) == 1; }));
    }
    CHECK(eventually([&] { return patient->handler_failures() == 1; }));
    CHECK(impatient->handler_failures() == 0);
    CHECK(log.errors() == 1);
    CHECK(log.lines().size() == names.size());
    CHECK(log.count(names.back() + "5: a bug\\x0aof the handler's") == 1);
  });
}

TEST_CASE("a thousand connections that break cost a few lines, and their number is said") {
  for_each_engine([](Engine engine) {
    const CapturedLog log;
    ServerThread server(server_options(engine), end_as_asked);
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 1000; ++i) {
      Peer peer = server.connect();
      peer.send(i % 2 == 0 ? "bug;" : "deadline;");
      (void)peer.wait_for_end();
      peer.reset();
    }
    CHECK(eventually([&] { return server->handler_failures() == 500; }));
    // A few a second, so that their number is the machine's; each is written or counted.
    constexpr std::string_view kLeftOut = "left out ";
    const auto told_of_all = [&] {
      long told = 0;
      for (const std::string& line : log.lines()) {
        told += line.starts_with(kLeftOut) ? std::stol(line.substr(kLeftOut.size())) : 1;
      }
      return told == 1000;
    };
    CHECK(eventually(told_of_all));
    const auto seconds = (std::chrono::steady_clock::now() - begin) / 1s + 1;
    const auto lines = static_cast<long>(log.lines().size());
    CHECK(lines <= 2 * (seconds + 1) * 10);
    if (lines < 500) CHECK(log.count("left out") >= 2);
  });
}

TEST_CASE("a failure without memory to tell it ends nothing but its own connection") {
  for_each_engine([](Engine engine) {
    const CapturedLog log;
    std::atomic<std::uint64_t> failed{0};
    ServerThread server(server_options(engine), [&](TcpConnection conn) -> Task<> {
      const Chunk request = co_await conn.read();
      if (request.view() == "bug") {
        struct Fails {
          explicit Fails(std::atomic<std::uint64_t>& count) : total(count) {}
          ~Fails() { total += none.failed(); }
          std::atomic<std::uint64_t>& total;
          FailingAllocations none{0};
        };
        const auto fails = std::make_shared<Fails>(failed);
        EventLoop& loop = conn.loop();
        loop.post([fails] {});  // no memory on this thread until the loop has come round
        throw std::bad_alloc();
      }
      co_await conn.send("served");
    });
    Peer first = server.connect();
    first.send("bug");
    CHECK(first.receive_all().empty());
    Peer second = server.connect();
    second.send("x");
    CHECK(second.receive_all() == "served");
    CHECK(server->handler_failures() == 1);
    CHECK(log.errors() == 1);
    CHECK(failed > 0);
    CHECK(log.count("a handler of") == 1);
  });
}
