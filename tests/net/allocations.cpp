#include "../support/allocations.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <string>

#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr int kWarmUp = 1000;
constexpr int kRequests = 10'000;

Task<> echo_for_ever(TcpConnection& conn) {
  while (Chunk chunk = co_await conn.read()) co_await conn.send(std::move(chunk));
}

}  // namespace

TEST_CASE("an echo request allocates nothing on the steady path") {
  if (kSanitized) {
    MESSAGE("skipped: under sanitizers every frame is a fresh allocation");
    return;
  }
  on_each_kernel_engine("the model allocates", []() -> Task<> {
    for (const std::size_t size : {1UL, 64UL, 1000UL, 4000UL}) {
      CAPTURE(size);
      auto [server, client] = link_pair();
      TaskGroup group;
      group.spawn(echo_for_ever(server));
      // The client gives back what it gets, as the server does.
      co_await client.send(pattern(size));
      std::uint64_t before = 0;
      for (int i = 0; i < kWarmUp + kRequests; ++i) {
        if (i == kWarmUp) before = allocations();
        Chunk ball = co_await client.read();
        REQUIRE(ball);
        co_await client.send(std::move(ball));
      }
      CHECK(allocations() - before == 0);
      client.force_close();
      group.cancel();
    }
  });
}

TEST_CASE("requests that are copied out of the caller's buffer allocate nothing either") {
  if (kSanitized) {
    MESSAGE("skipped: under sanitizers every frame is a fresh allocation");
    return;
  }
  on_each_kernel_engine("the model allocates", []() -> Task<> {
    for (const std::size_t size : {64UL, 1000UL}) {
      CAPTURE(size);
      auto [server, client] = link_pair();
      TaskGroup group;
      group.spawn(echo_for_ever(server));
      const std::string request = pattern(size);
      std::uint64_t before = 0;
      for (int i = 0; i < kWarmUp + kRequests; ++i) {
        if (i == kWarmUp) before = allocations();
        co_await client.send(std::string_view(request));
        const Chunk reply = co_await client.read_exactly(size);
        REQUIRE(reply.size() == size);
      }
      CHECK(allocations() - before == 0);
      co_await client.shutdown();
      co_await group.join();
    }
  });
}

TEST_CASE("lines, timeouts and pipelined requests allocate nothing on the steady path") {
  if (kSanitized) {
    MESSAGE("skipped: under sanitizers every frame is a fresh allocation");
    return;
  }
  on_each_kernel_engine("the model allocates", []() -> Task<> {
    auto [server, client] = link_pair();
    const auto serve = [](TcpConnection& conn) -> Task<> {
      for (;;) {
        auto [error, line] = co_await as_tuple(timeout(1h, conn.read_until("\n", 100)));
        if (error || !line) co_return;
        co_await conn.send("+OK\n");
      }
    };
    TaskGroup group;
    group.spawn(serve(server));
    std::uint64_t before = 0;
    for (int i = 0; i < kWarmUp + kRequests / 10; ++i) {
      if (i == kWarmUp) before = allocations();
      for (int depth = 0; depth < 10; ++depth) co_await client.send("request\n");
      for (int depth = 0; depth < 10; ++depth) {
        const Chunk reply = co_await client.read_exactly(4);
        REQUIRE(reply.view() == "+OK\n");
      }
    }
    CHECK(allocations() - before == 0);
    co_await client.shutdown();
    co_await group.join();
  });
}
