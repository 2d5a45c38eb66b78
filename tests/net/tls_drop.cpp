// A task that shakes hands, reads, sends or ends is dropped at every moment: nothing may be left,
// and what was sent is whole.
#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "../support/net_drop.h"
#include "../support/tls.h"

using namespace weir;
using namespace weir::test;

namespace {

Task<> upgrade(TcpConnection& conn, TlsContext context, std::string name) {
  const StartTlsOptions options{.server_name = name};
  co_await start_tls(conn, context, options);
}

TlsContext context_of(bool server) { return server ? server_context() : client_context(); }

/// One side is dropped in its handshake: the other one's fails, or has just been done.
struct ShakingHands {
  explicit ShakingHands(bool drops_server) : server_drops(drops_server) {
    other.spawn(shake(server_drops ? pair.a : pair.b, !server_drops));
  }
  Task<> shake(TcpConnection& conn, bool server) {
    Task<> task = upgrade(conn, context_of(server), "localhost");
    const auto result = co_await as_tuple(std::move(task));
    failed = static_cast<bool>(result.error);
    over.set();
  }
  Task<> task() {
    TcpConnection& conn = server_drops ? pair.b : pair.a;
    TlsContext context = context_of(server_drops);
    co_await upgrade(conn, std::move(context), "localhost");
  }
  Task<> afterwards(bool finished) {
    if (!finished) CHECK((server_drops ? pair.b : pair.a).state() != ConnectionState::connected);
    co_await over.wait();
    if (finished) CHECK_FALSE(failed);
  }

  bool server_drops;
  bool failed = false;
  Event over;
  Linked pair = link_pair();
  TaskGroup other;
};

/// The same after the handshake: what comes is whole, whoever reads it.
struct Talking {
  static constexpr std::size_t kTotal = 40'000;

  Talking() { feeder.spawn(feed()); }
  Task<> feed() {
    Task<> left = upgrade(pair.a, client_context(), "localhost");
    Task<> right = upgrade(pair.b, server_context(), {});
    co_await when_all(std::move(left), std::move(right));
    ready.set();
    for (std::size_t at = 0; at < kTotal; at += 4000) {
      co_await pair.b.send(pattern(4000, 1, at));
      co_await turns(1);
    }
    co_await pair.b.shutdown();
  }
  void take(const Chunk& chunk) {
    REQUIRE(matching(chunk.view(), 1, got) == chunk.size());
    got += chunk.size();
  }
  Task<> task() {
    co_await ready.wait();
    while (got < kTotal) {
      const Chunk chunk = co_await pair.a.read_exactly(500);
      take(chunk);
    }
  }
  Task<> afterwards(bool /*finished*/) {
    co_await ready.wait();
    while (Chunk chunk = co_await pair.a.read()) take(chunk);
    CHECK(got == kTotal);
    co_await feeder.join();
  }

  Event ready;
  std::size_t got = 0;
  Linked pair = link_pair();
  TaskGroup feeder;
};

/// A sender: each message leaves whole or not at all, and the end is an end.
struct EndedByDrop {
  static constexpr std::size_t kMessage = 20'000;

  EndedByDrop() { shaking.spawn(agree()); }
  Task<> agree() {
    Task<> left = upgrade(pair.a, client_context(), "localhost");
    Task<> right = upgrade(pair.b, server_context(), {});
    co_await when_all(std::move(left), std::move(right));
    ready.set();
  }
  Task<> task() {
    co_await ready.wait();
    for (int i = 0; i < 4; ++i) co_await pair.a.send(pattern(kMessage));
    co_await pair.a.flush();
    co_await pair.a.shutdown();
  }
  Task<> afterwards(bool finished) {
    co_await ready.wait();
    pair.a = TcpConnection();
    std::size_t got = 0;
    while (Chunk chunk = co_await pair.b.read()) got += chunk.size();
    CHECK(got % kMessage == 0);
    if (finished) CHECK(got == 4 * kMessage);
  }

  Event ready;
  Linked pair = link_pair({.water_marks = {.high = 1, .low = 0}}, {}, 8 << 10);
  TaskGroup shaking;
};

}  // namespace

TEST_CASE("a handshake that is dropped leaves nothing, and a connection of no use") {
  for (const bool server : {false, true}) {
    drop_everywhere([&] { return std::make_unique<ShakingHands>(server); }, 3);
  }
}

TEST_CASE("a read over TLS that is dropped loses nothing") {
  drop_everywhere([] { return std::make_unique<Talking>(); }, 5);
}

TEST_CASE("a send, a flush and a shutdown over TLS that are dropped leave whole messages") {
  drop_everywhere([] { return std::make_unique<EndedByDrop>(); }, 5);
}
