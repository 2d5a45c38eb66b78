// What is ready at once must not keep the loop from its turn: reading, sending, accepting.
#include <weir/coro/task_group.h>
#include <weir/net/stream/reading.h>
#include <weir/net/stream/sending.h>
#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "../support/turns_beside.h"

using namespace weir;
using namespace weir::detail;
using test::turns_beside;
using test::VirtualLoop;

namespace {

constexpr int kAwaits = 10'000;

/// An inbox of so many single bytes, and of their end.
struct Full final : Inbox::Source {
  explicit Full(std::size_t bytes, std::size_t pieces = 1) : inbox(*this, 1 << 30) {
    for (std::size_t i = 0; i < pieces; ++i) {
      BufferRef buffer = make_buffer(bytes);
      std::byte* data = buffer->data();
      for (std::size_t at = 0; at < bytes; ++at) data[at] = std::byte{'x'};
      inbox.push(std::move(buffer), data, bytes);
    }
    inbox.end();
  }
  void input_wanted() noexcept override {}

  Inbox inbox;
};

/// Nothing of it goes.
struct Still final : Outbox::Sink {
  Still() : outbox(*this, {.high = 1 << 30, .low = 1 << 29}) {}
  void output_alone() noexcept override {}
  void output_ready() noexcept override {}
  void output_finished() noexcept override {}
  void output_failed(Failure failure) noexcept override { outbox.fail(failure); }

  Outbox outbox;
};

}  // namespace

TEST_CASE("reads and sends that are ready at once give others a turn every few hundred") {
  std::function<Task<>()> greedy;
  SUBCASE("read") {
    greedy = []() -> Task<> {
      Full full(600, kAwaits);
      for (int i = 0; i < kAwaits; ++i) {
        const Chunk chunk = co_await ReadAwaiter(&full.inbox);
        CHECK(chunk.size() == 600);
      }
    };
  }
  SUBCASE("read of some") {
    greedy = []() -> Task<> {
      Full full(kAwaits);
      for (int i = 0; i < kAwaits; ++i) {
        const Chunk chunk = co_await ReadMostAwaiter(&full.inbox, 1);
        CHECK(chunk.size() == 1);
      }
    };
  }
  SUBCASE("read_exactly") {
    greedy = []() -> Task<> {
      Full full(std::size_t{2} * kAwaits);
      for (int i = 0; i < kAwaits; ++i) {
        const Chunk chunk = co_await ReadExactlyAwaiter(&full.inbox, 2);
        CHECK(chunk.view() == "xx");
      }
    };
  }
  SUBCASE("read_until") {
    greedy = []() -> Task<> {
      Full full(kAwaits);
      for (int i = 0; i < kAwaits; ++i) {
        const Chunk chunk = co_await ReadUntilAwaiter(&full.inbox, "x", 10);
        CHECK(chunk.view() == "x");
      }
    };
  }
  SUBCASE("peek") {
    greedy = []() -> Task<> {
      Full full(10);
      for (int i = 0; i < kAwaits; ++i) {
        const Chunk chunk = co_await PeekAwaiter(&full.inbox, 5);
        CHECK(chunk.view() == "xxxxx");
      }
    };
  }
  SUBCASE("read at the end") {
    greedy = []() -> Task<> {
      Full full(1);
      (void)co_await ReadAwaiter(&full.inbox);
      for (int i = 0; i < kAwaits; ++i) {
        const Chunk chunk = co_await ReadAwaiter(&full.inbox);
        CHECK(chunk.is_end());
      }
    };
  }
  SUBCASE("send") {
    greedy = []() -> Task<> {
      Still still;
      for (int i = 0; i < kAwaits; ++i) co_await SendAwaiter(&still.outbox, "x", 1);
      CHECK(still.outbox.pending() == kAwaits);
    };
  }
  SUBCASE("flush") {
    greedy = []() -> Task<> {
      Still still;
      for (int i = 0; i < kAwaits; ++i) co_await FlushAwaiter(&still.outbox, false);
    };
  }
  const int turns = turns_beside(greedy);
  CHECK(turns >= kAwaits / 1000);
  CHECK(turns <= kAwaits / 50);
}

TEST_CASE("a read and a send that give others a turn may be dropped meanwhile, and lose nothing") {
  VirtualLoop loop;
  Full full(10'000);
  Still still;
  std::size_t got = 0;
  std::size_t sent = 0;
  const auto receive = [&]() -> Task<> {
    for (;;) {
      const Chunk chunk = co_await ReadMostAwaiter(&full.inbox, 1);
      got += chunk.size();
    }
  };
  const auto send = [&]() -> Task<> {
    for (;; ++sent) co_await SendAwaiter(&still.outbox, "x", 1);
  };
  {
    TaskGroup group;
    group.spawn(receive);  // until its turn is over
    group.spawn(send);
    CHECK(got > 100);
    CHECK(got < 1000);
    CHECK(sent > 100);
    CHECK(sent < 1000);
  }
  CHECK_FALSE(full.inbox.has_reader());
  CHECK(full.inbox.unread() == 10'000 - got);
  CHECK(still.outbox.pending() == sent + 1);  // the last was accepted before it was dropped
}

TEST_CASE(
    "an accept gives others a turn, may be dropped meanwhile, and its client goes to the next") {
  constexpr std::size_t kClients = 600;
  sim::World world({.seed = 1});
  sim::Host& server = world.add_host("10.0.0.1");
  sim::Host& client = world.add_host("10.0.0.2");
  std::size_t at_once = 0;
  std::size_t in_all = 0;
  const auto serve = [&]() -> Task<> {
    Acceptor acceptor(SocketAddress::parse("0.0.0.0:7"), {.max_waiting = 2 * kClients});
    co_await sleep(1min);  // all are there by then
    const auto accept = [&]() -> Task<> {
      for (; in_all < kClients; ++in_all) (void)co_await acceptor.accept();
    };
    {
      TaskGroup group;
      group.spawn(accept);  // until its turn is over
      at_once = in_all;
    }
    co_await accept();
  };
  std::vector<Socket> connections;
  const auto come = [&]() -> Task<> {
    Connector connector(SocketAddress::parse("10.0.0.1:7"));
    co_await sleep(1s);
    while (connections.size() < kClients) connections.push_back(co_await connector.connect());
    co_await Event().wait();
  };
  server.run(serve);
  client.run(come);
  world.run_for(2min);
  CHECK(at_once > 100);
  CHECK(at_once < 300);
  CHECK(in_all == kClients);
}
