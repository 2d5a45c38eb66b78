#include <doctest/doctest.h>

#include <string>

#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

Task<> send_stream(TcpConnection& conn, std::uint64_t seed, std::size_t total, std::size_t piece) {
  for (std::size_t offset = 0; offset < total; offset += piece) {
    co_await conn.send(pattern(std::min(piece, total - offset), seed, offset));
  }
  co_await conn.shutdown();
}

Task<> receive_stream(TcpConnection& conn, std::uint64_t seed, std::size_t total) {
  std::size_t got = 0;
  while (Chunk chunk = co_await conn.read()) {
    REQUIRE(matching(chunk.view(), seed, got) == chunk.size());
    got += chunk.size();
  }
  CHECK(got == total);
}

}  // namespace

TEST_CASE("64 MiB of checked bytes go both ways at once") {
  constexpr std::size_t kTotal = kSanitized ? 16 << 20 : 64 << 20;
  on_each_engine([]() -> Task<> {
    auto [a, b] = link_pair();
    TaskGroup group;
    group.spawn(send_stream(a, 1, kTotal, 100000));
    group.spawn(send_stream(b, 2, kTotal, 1 << 20));
    group.spawn(receive_stream(a, 2, kTotal));
    group.spawn(receive_stream(b, 1, kTotal));
    co_await group.join();
  });
}

TEST_CASE("small and large transfers may follow one another on a connection") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const auto echo = [](TcpConnection& with) -> Task<> {
      while (Chunk chunk = co_await with.read()) co_await with.send(std::move(chunk));
    };
    TaskGroup group;
    group.spawn(echo(conn));
    const auto exchange = [peer = &peer] {
      std::uint64_t offset = 0;
      const auto once = [&](std::size_t size) {
        const Thread writer([&] { peer->send(pattern(size, 1, offset)); });
        const std::string got = peer->receive_exactly(size);
        if (matching(got, 1, offset) != size) throw std::runtime_error("wrong bytes");
        offset += size;
      };
      for (int round = 0; round < 10; ++round) {
        for (int i = 0; i < 20; ++i) once(64);
        once(2 << 20);
        once(5000);
        once(300000);
      }
      peer->shutdown_send();
      return offset;
    };
    const std::uint64_t moved = co_await in_thread(exchange);
    CHECK(moved == 10 * (20 * 64 + (2 << 20) + 5000 + 300000));
    co_await group.join();
  });
}

TEST_CASE("a connection that has gone quiet after a large transfer gives its large buffer back") {
  if (plain_only("the size of what is read says nothing of the buffer that it came into")) return;
  on_each_engine([]() -> Task<> {
    EventLoop& loop = EventLoop::current();
    auto [conn, peer] = connect_pair();
    // What is there at once comes in one piece, if it comes into a large buffer: when the last was
    // such a piece, the next receive is one into a large buffer as well.
    std::size_t got = 0;
    std::size_t last = 0;
    for (int round = 0; last <= loop.options().buffer_size; ++round) {
      REQUIRE(round < 1000);
      const std::size_t sent = got + peer.send_now(pattern(256 << 10, 1, got));
      while (got < sent) {
        const Chunk chunk = co_await conn.read();
        REQUIRE(matching(chunk.view(), 1, got) == chunk.size());
        last = chunk.size();
        got += last;
      }
    }
    // It is called off after a second, and not by whoever waits for input meanwhile.
    const auto cancelled = loop.metrics().cancelled;
    const TimePoint end = time_now() + kPatience / 3;
    while (loop.metrics().cancelled == cancelled && time_now() < end) {
      auto [error, none] = co_await as_tuple(timeout(50ms, conn.read()));
      CHECK(error == std::errc::timed_out);
    }
    REQUIRE(loop.metrics().cancelled > cancelled);
    // What comes next comes into a buffer of the loop's, and nothing is lost on the way.
    const auto leased = loop.metrics().buffers_leased;
    co_await turns(2);
    peer.send("quiet");
    const Chunk chunk = co_await conn.read();
    CHECK(chunk.view() == "quiet");
    CHECK(loop.metrics().buffers_leased == leased + 1);
  });
}

TEST_CASE("messages that are a little larger than full buffers come in large ones as well") {
  if (plain_only("the size of what is read says nothing of the buffer that it came into")) return;
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const std::size_t buffer = EventLoop::current().options().buffer_size;
    const std::size_t size = 4 * buffer + 22;
    std::size_t got = 0;
    std::size_t largest = 0;
    for (int round = 0; largest <= buffer; ++round) {
      REQUIRE(round < 1000);
      const std::size_t sent = got + size;
      peer.send(pattern(size, 1, got));
      while (got < sent) {
        const Chunk chunk = co_await conn.read();
        REQUIRE(matching(chunk.view(), 1, got) == chunk.size());
        largest = std::max(largest, chunk.size());
        got += chunk.size();
      }
    }
  });
}

TEST_CASE("a large receive takes no more than the input mark") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.input_high = 64 << 10;
    auto [conn, peer] = connect_pair(options);
    TaskGroup group;
    const auto write = [peer = &peer] { peer->send(pattern(8 << 20)); };
    group.spawn(in_thread(write));
    std::size_t got = 0;
    std::size_t largest = 0;
    while (got < 8U << 20) {
      const Chunk chunk = co_await conn.read();
      REQUIRE(matching(chunk.view(), 1, got) == chunk.size());
      got += chunk.size();
      largest = std::max(largest, chunk.size());
      if (got < 2U << 20) co_await turns(3);  // so that more is there than the mark
    }
    co_await group.join();
    CHECK(largest > EventLoop::current().options().buffer_size);
    CHECK(largest <= 64U << 10);
  });
}

TEST_CASE("a connection in bulk transfer is paused at its mark like any other") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.input_high = 1 << 20;
    auto [conn, peer] = connect_pair(options);
    TaskGroup group;
    const auto write = [peer = &peer] { peer->send(pattern(8 << 20)); };
    group.spawn(in_thread(write));
    std::size_t got = 0;
    for (int round = 0; got < 8U << 20; ++round) {
      const Chunk chunk = co_await conn.read();
      REQUIRE(matching(chunk.view(), 1, got) == chunk.size());
      got += chunk.size();
      if (round % 16 == 0) co_await turns(20);  // more comes than is read
    }
    co_await group.join();
  });
}
