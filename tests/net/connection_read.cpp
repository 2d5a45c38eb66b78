#include <doctest/doctest.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <optional>
#include <stdexcept>
#include <system_error>

#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Sends bytes and waits until the loop has taken them in, apart from what comes later.
Task<> deliver(Peer& peer, std::string_view bytes) {
  const auto before = completions();
  peer.send(bytes);
  co_await completed(before);
}

}  // namespace

TEST_CASE("read gives bytes as they come and an empty chunk at the end of the stream") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    peer.send("hello");
    Chunk chunk = co_await conn.read();
    CHECK(chunk.view() == "hello");
    peer.send("more");
    peer.shutdown_send();
    chunk = co_await conn.read();
    CHECK(chunk.view() == "more");
    for (int i = 0; i < 3; ++i) {  // and stays at the end
      chunk = co_await conn.read();
      CHECK_FALSE(chunk);
    }
    CHECK(conn.state() == ConnectionState::connected);
    // The other direction is still open.
    co_await conn.send("bye");
    co_await conn.flush();
    CHECK(peer.receive_exactly(3) == "bye");
  });
}

TEST_CASE("read_exactly puts pieces together and splits them") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    co_await deliver(peer, "abc");
    co_await deliver(peer, "def");
    peer.send("ghijkl");
    Chunk chunk = co_await conn.read_exactly(2);
    CHECK(chunk.view() == "ab");
    chunk = co_await conn.read_exactly(6);
    CHECK(chunk.view() == "cdefgh");
    chunk = co_await conn.read_exactly(0);
    CHECK_FALSE(chunk);
    chunk = co_await conn.read();
    CHECK(chunk.view() == "ijkl");
  });
}

TEST_CASE("read_exactly of nothing gives it at once, and only the end of the stream is an end") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    Chunk nothing = co_await conn.read_exactly(0);  // though nothing has come
    CHECK(nothing.empty());
    CHECK_FALSE(nothing.is_end());
    CHECK_FALSE(Chunk().is_end());
    const auto read = [](TcpConnection& from) -> Task<> { (void)co_await as_tuple(from.read()); };
    TaskGroup group;
    group.spawn(read(conn));
    nothing = co_await conn.read_exactly(0);  // and though another read waits
    CHECK_FALSE(nothing.is_end());
    peer.send("x");
    co_await group.join();
    peer.shutdown_send();
    Chunk end = co_await conn.read();
    CHECK(end.is_end());
    CHECK_FALSE(end);
    end = co_await conn.read_exactly(1);
    CHECK(end.is_end());
    end = co_await conn.read_until("x", 1);
    CHECK(end.is_end());
    nothing = co_await conn.read_exactly(0);
    CHECK_FALSE(nothing.is_end());
    const Chunk moved = std::move(end);
    CHECK(moved.is_end());
  });
}

TEST_CASE("read_exactly puts large pieces together, whatever the sizes") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const std::string bytes = pattern(1 << 20);
    std::size_t offset = 0;
    auto writer = [peer = &peer, &bytes] { peer->send(bytes); };
    TaskGroup group;
    group.spawn(in_thread(writer));
    for (const std::size_t size : {1UL, 4095UL, 4096UL, 4097UL, 65536UL, 300000UL, 511UL, 512UL}) {
      const Chunk chunk = co_await conn.read_exactly(size);
      REQUIRE(chunk.size() == size);
      CHECK(matching(chunk.view(), 1, offset) == size);
      offset += size;
    }
    const Chunk rest = co_await conn.read_exactly(bytes.size() - offset);
    CHECK(matching(rest.view(), 1, offset) == rest.size());
    co_await group.join();
  });
}

TEST_CASE("an end midway is connection_aborted, and the bytes stay readable") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    peer.send("abc");
    peer.shutdown_send();
    auto [error, chunk] = co_await as_tuple(conn.read_exactly(4));
    CHECK(error == std::errc::connection_aborted);
    auto [again, line] = co_await as_tuple(conn.read_until("\n", 10));
    CHECK(again == std::errc::connection_aborted);
    const Chunk rest = co_await conn.read();
    CHECK(rest.view() == "abc");
    const Chunk end = co_await conn.read_exactly(4);  // before the first byte: a clean end
    CHECK_FALSE(end);
    const Chunk no_line = co_await conn.read_until("\n", 10);
    CHECK_FALSE(no_line);
  });
}

TEST_CASE("read_until finds the delimiter wherever it is split") {
  on_each_engine([]() -> Task<> {
    const std::string delimiter = "\r\n.\r\n";
    const std::string message = "one\r\n\r\r\n.\r" + delimiter;  // with false beginnings
    const std::string stream = message + "next";
    for (std::size_t split = 1; split < stream.size(); ++split) {
      CAPTURE(split);
      auto [conn, peer] = connect_pair();
      co_await deliver(peer, std::string_view(stream).substr(0, split));
      peer.send(std::string_view(stream).substr(split));
      const Chunk chunk = co_await conn.read_until(delimiter, 100);
      CHECK(chunk.view() == message);
      const Chunk next = co_await conn.read_exactly(4);
      CHECK(next.view() == "next");
    }
  });
}

TEST_CASE("read_until finds the delimiter byte by byte") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const std::string stream = "aab\r\r\n\r\n\r\r\n";
    for (const char c : stream) {
      co_await deliver(peer, std::string_view(&c, 1));
    }
    Chunk chunk = co_await conn.read_until("\r\n", 100);
    CHECK(chunk.view() == "aab\r\r\n");
    chunk = co_await conn.read_until("\r\n", 100);
    CHECK(chunk.view() == "\r\n");
    chunk = co_await conn.read_until("\r\n", 100);
    CHECK(chunk.view() == "\r\r\n");
  });
}

TEST_CASE("read_until past its limit is message_size, with nothing consumed") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    peer.send("12345678\r\n");
    auto [error, chunk] = co_await as_tuple(conn.read_until("\r\n", 9));
    CHECK(error == std::errc::message_size);
    const Chunk line = co_await conn.read_until("\r\n", 10);  // the delimiter counts
    CHECK(line.view() == "12345678\r\n");
    // Also where the limit is reached only later, in small pieces.
    for (int i = 0; i < 20; ++i) {
      co_await deliver(peer, "x");
    }
    auto [late, none] = co_await as_tuple(conn.read_until("\r\n", 20));
    CHECK(late == std::errc::message_size);
    const Chunk all = co_await conn.read_exactly(20);
    CHECK(all.view() == std::string(20, 'x'));
  });
}

TEST_CASE("a bad delimiter is refused") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    CHECK_THROWS_AS((void)conn.read_until("", 10), std::invalid_argument);
    CHECK_THROWS_AS((void)conn.read_until("abc", 2), std::invalid_argument);
    co_return;
  });
}

TEST_CASE("a peer that writes byte by byte is read all the same") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    TaskGroup group;
    const auto write = [peer = &peer] {
      for (const char c : pattern(2000)) peer->send(std::string_view(&c, 1));
      peer->shutdown_send();
    };
    group.spawn(in_thread(write));
    std::string all;
    while (Chunk chunk = co_await conn.read()) all += chunk.view();
    CHECK(all == pattern(2000));
    co_await group.join();
  });
}

TEST_CASE("a reset reaches the next read once, behind the bytes that came before it") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    co_await deliver(peer, "last words");
    const auto before = completions();
    peer.reset();
    co_await completed(before);
    const Chunk chunk = co_await conn.read();
    CHECK(chunk.view() == "last words");
    auto [error, none] = co_await as_tuple(conn.read());
    CHECK(error == std::errc::connection_reset);
    auto [again, end] = co_await as_tuple(conn.read());
    CHECK_FALSE(again);
    CHECK_FALSE(end);
    auto [told, nothing] = co_await as_tuple(conn.send("x"));  // each side is told
    CHECK(told == std::errc::connection_reset);
    auto [broken, still_nothing] = co_await as_tuple(conn.send("x"));
    CHECK(broken == std::errc::broken_pipe);
  });
}

TEST_CASE("a reset wakes the read that waits") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    std::error_code error;
    const auto read = [&, conn = &conn]() -> Task<> {
      error = (co_await as_tuple(conn->read())).error;
    };
    TaskGroup group;
    group.spawn(read());
    co_await turns(5);
    peer.reset();
    co_await group.join();
    CHECK(error == std::errc::connection_reset);
  });
}

TEST_CASE("a second read while one waits is a logic_error, and harms nothing") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    std::string got;
    const auto read = [&, conn = &conn]() -> Task<> {
      const Chunk chunk = co_await conn->read();
      got = chunk.view();
    };
    TaskGroup group;
    group.spawn(read());
    CHECK_THROWS_AS(co_await conn.read(), std::logic_error);
    CHECK_THROWS_AS(co_await conn.read_exactly(1), std::logic_error);
    peer.send("for the first");
    co_await group.join();
    CHECK(got == "for the first");
  });
}

TEST_CASE("a second read cannot take the bytes of one that is about to resume") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    std::string got;
    bool refused = false;
    const auto read = [&, conn = &conn]() -> Task<> {
      const Chunk chunk = co_await conn->read();
      got = chunk.view();
    };
    const auto read_too = [&, conn = &conn]() -> Task<> {
      try {
        const Chunk chunk = co_await conn->read();
      } catch (const std::logic_error&) {
        refused = true;
      }
    };
    TaskGroup group;
    group.spawn(read());
    co_await turns(1);
    const auto before = completions();
    peer.send("for the first");
    before_resuming(before, 1, [&] { group.spawn(read_too()); });
    co_await turn_until([&] { return !got.empty() || refused; });
    peer.shutdown_send();
    co_await group.join();
    CHECK(got == "for the first");
    CHECK(refused);
  });
}

TEST_CASE("a connection that was closed or moved from gives no bytes") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    TcpConnection other = std::move(conn);
    CHECK_FALSE(conn);
    CHECK(other);
    auto [error, chunk] = co_await as_tuple(conn.read());
    CHECK(error == std::errc::operation_canceled);
    co_await deliver(peer, "x");
    other.close();
    // Not only when the peer has answered the FIN: nobody waits for that.
    auto [after, none] = co_await as_tuple(timeout(1min, other.read()));
    CHECK((after == std::errc::operation_canceled || (!after && !none)));
    CHECK(after != std::errc::timed_out);
  });
}

TEST_CASE("chunks outlive their connection, and slices their chunk") {
  on_each_engine([]() -> Task<> {
    Chunk whole;
    Chunk part;
    {
      auto [conn, peer] = connect_pair();
      peer.send("hello, world");
      whole = co_await conn.read_exactly(12);
      part = whole.slice(7);
      CHECK_THROWS_AS((void)whole.slice(13), std::out_of_range);
      CHECK(whole.slice(12).empty());
      CHECK(whole.slice(3, 2).view() == "lo");
    }
    whole = {};
    co_await turns(5);
    CHECK(part.view() == "world");
  });
}

TEST_CASE("input is paused at its mark, which holds the peer back, and goes on when it is read") {
  on_each_engine([]() -> Task<> {
    EventLoop& loop = EventLoop::current();
    ConnectionOptions options;
    options.input_high = 64 << 10;
    auto [conn, peer] = connect_pair(options, 32 << 10);
    const std::string bytes = pattern(8 << 20);
    std::size_t sent = 0;
    std::size_t stuck = 0;
    while (stuck < 30) {
      const std::size_t now = peer.send_now(std::string_view(bytes).substr(sent));
      stuck = now == 0 ? stuck + 1 : 0;
      sent += now;
      co_await turns(1);
    }
    // The mark, what was under way when it was reached, and the kernel's buffers.
    CHECK(sent < (2U << 20));
    CHECK(sent >= (64U << 10));
    CHECK(loop.metrics().buffers_leased * loop.options().buffer_size < (1U << 20));

    const auto send_rest = [peer = &peer, rest = std::string_view(bytes).substr(sent)] {
      peer->send(rest);
    };
    TaskGroup group;
    group.spawn(in_thread(send_rest));
    std::size_t got = 0;
    while (got < bytes.size()) {
      const Chunk chunk = co_await conn.read();
      REQUIRE(chunk);
      REQUIRE(matching(chunk.view(), 1, got) == chunk.size());
      got += chunk.size();
    }
    CHECK(got == bytes.size());
    co_await group.join();
  });
}

TEST_CASE("read_exactly gets more than the input mark") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.input_high = 1000;
    auto [conn, peer] = connect_pair(options);
    const std::string bytes = pattern(1 << 20);
    TaskGroup group;
    const auto write = [peer = &peer, &bytes] { peer->send(bytes); };
    group.spawn(in_thread(write));
    const Chunk chunk = co_await conn.read_exactly(bytes.size());
    CHECK(chunk.view() == bytes);
    co_await group.join();
  });
}

TEST_CASE("a reset of a peer that is held back is noticed without a read") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.input_high = 1000;
    auto [conn, peer] = connect_pair(options);
    co_await deliver(peer, pattern(50000));
    peer.reset();
    co_await turn_until([conn = &conn] { return conn->state() != ConnectionState::connected; });
    std::size_t got = 0;
    for (;;) {
      auto [error, chunk] = co_await as_tuple(conn.read());
      if (error) {
        CHECK(error == std::errc::connection_reset);
        break;
      }
      REQUIRE(chunk);
      CHECK(matching(chunk.view(), 1, got) == chunk.size());
      got += chunk.size();
    }
    CHECK(got >= 1000);
  });
}

TEST_CASE("a peer that ends while it is held back is read to its end") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.input_high = 1000;
    auto [conn, peer] = connect_pair(options);
    peer.send(pattern(100000));
    peer.close();
    co_await turns(5);
    std::size_t got = 0;
    while (Chunk chunk = co_await conn.read()) {
      CHECK(matching(chunk.view(), 1, got) == chunk.size());
      got += chunk.size();
    }
    CHECK(got == 100000);
  });
}

TEST_CASE("with few buffers all connections are served, one after the other") {
  LoopOptions loop;
  loop.buffer_count = 4;
  loop.buffer_size = 512;
  on_each_engine(
      []() -> Task<> {
        constexpr std::size_t kConnections = 50;
        std::vector<Connected> pairs;
        for (std::size_t i = 0; i < kConnections; ++i) pairs.push_back(connect_pair());
        for (std::size_t i = 0; i < kConnections; ++i) {
          pairs[i].peer.send(pattern(20000, i));
          pairs[i].peer.shutdown_send();
        }
        const auto read_all = [](TcpConnection& conn, std::uint64_t seed) -> Task<> {
          std::size_t got = 0;
          while (Chunk chunk = co_await conn.read()) {
            CHECK(matching(chunk.view(), seed, got) == chunk.size());
            got += chunk.size();
          }
          CHECK(got == 20000);
        };
        TaskGroup group;
        for (std::size_t i = 0; i < kConnections; ++i) {
          group.spawn(read_all(pairs[i].connection, i));
        }
        co_await group.join();
      },
      loop);
}

TEST_CASE("a connection that found no buffer gets one though those before it stay silent") {
  LoopOptions loop;
  loop.ring_entries = 4;
  loop.buffer_count = 4;
  loop.buffer_size = 64;
  on_each_engine(
      []() -> Task<> {
        constexpr int kConnections = 60;
        const auto echo = [](TcpConnection& conn) -> Task<> {
          while (Chunk chunk = co_await conn.read()) co_await conn.send(std::move(chunk));
        };
        const auto ask = [](TcpConnection& conn) -> Task<> {
          for (int round = 0; round < 5; ++round) {
            co_await conn.send(pattern(500));
            const Chunk answer = co_await conn.read_exactly(500);
            CHECK(answer.view() == pattern(500));
          }
          co_await conn.shutdown();
        };
        std::vector<Linked> pairs;
        for (int i = 0; i < kConnections; ++i) pairs.push_back(link_pair());
        TaskGroup group;
        for (Linked& pair : pairs) {
          group.spawn(echo(pair.b));
          group.spawn(ask(pair.a));
        }
        co_await group.join();
      },
      loop);
}

TEST_CASE("messages under way cannot use up the buffers that others need") {
  LoopOptions loop;
  loop.buffer_count = 16;
  on_each_engine(
      []() -> Task<> {
        // Each of these wants far more than it gets, in pieces that fill no buffer.
        constexpr std::size_t kGreedy = 8;
        constexpr std::size_t kPieces = 40;
        std::vector<Connected> greedy;
        for (std::size_t i = 0; i < kGreedy; ++i) greedy.push_back(connect_pair());
        const auto read_message = [](TcpConnection& conn) -> Task<> {
          const Chunk chunk = co_await conn.read_exactly(kPieces * 1000);
          CHECK(matching(chunk.view(), 1, 0) == kPieces * 1000);
        };
        TaskGroup group;
        for (auto& pair : greedy) group.spawn(read_message(pair.connection));
        for (std::size_t piece = 0; piece < kPieces - 1; ++piece) {
          for (auto& pair : greedy) pair.peer.send(pattern(1000, 1, piece * 1000));
          co_await turns(3);  // they come apart, as long as there are buffers
        }
        auto [conn, peer] = connect_pair();
        peer.send("me too");
        auto [error, chunk] = co_await as_tuple(timeout(1min, conn.read()));
        CHECK_FALSE(error);
        CHECK(chunk.view() == "me too");
        for (auto& pair : greedy) pair.peer.send(pattern(1000, 1, (kPieces - 1) * 1000));
        co_await timeout(1min, group.join());
      },
      loop);
}
