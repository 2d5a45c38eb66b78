#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Small buffers in the kernel, so that a peer that does not read is felt soon.
constexpr int kSmall = 8 << 10;

/// Marks far above what the kernel's small buffers take.
constexpr std::size_t kHigh = 256 << 10;
constexpr std::size_t kLow = 64 << 10;

ConnectionOptions marks(std::size_t high = kHigh, std::size_t low = kLow) {
  ConnectionOptions options;
  options.water_marks = {.high = high, .low = low};
  return options;
}

/// Sends one message: the stream's bytes from `offset` on.
Task<> send_pattern(TcpConnection& conn, std::size_t& offset, std::size_t size, bool& done) {
  std::string message = pattern(size, 1, offset);
  offset += size;
  co_await conn.send(std::move(message));
  done = true;
}

Task<> shut_down(TcpConnection& conn) { co_await conn.shutdown(); }

}  // namespace

TEST_CASE("every form of send sends its bytes, in call order") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    peer.send("chunk|whole");
    Chunk received = co_await conn.read_exactly(11);
    Chunk slice = received.slice(0, 6);

    co_await conn.send("literal|");
    const std::string_view view = "view|";
    co_await conn.send(view);
    const std::string constant = "string|";
    co_await conn.send(constant);
    const std::array<std::byte, 2> bytes = {std::byte{'s'}, std::byte{'|'}};
    co_await conn.send(std::span<const std::byte>(bytes));
    std::string moved(2000, 'm');
    co_await conn.send(std::move(moved));
    std::string short_moved = "short|";
    co_await conn.send(std::move(short_moved));
    std::vector<std::byte> vector(1500, std::byte{'v'});
    co_await conn.send(std::move(vector));
    co_await conn.send(std::move(slice));
    co_await conn.send(std::move(received));
    co_await conn.send("");  // nothing, and no harm
    co_await conn.send(std::string());
    co_await conn.send(Chunk());
    co_await conn.flush();
    CHECK(conn.pending_bytes() == 0);

    const std::string expected = "literal|view|string|s|" + std::string(2000, 'm') + "short|" +
                                 std::string(1500, 'v') + "chunk|chunk|whole";
    CHECK(peer.receive_exactly(expected.size()) == expected);
  });
}

TEST_CASE("an empty slice may be sent before the rest, as a parser does") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    peer.send("rest");
    Chunk received = co_await conn.read_exactly(4);
    for (int i = 0; i < 3; ++i) {
      co_await conn.send(received.slice(4, 0));
      co_await conn.send(received.slice(0, 4));
    }
    co_await conn.flush();
    CHECK(peer.receive_exactly(12) == "restrestrest");
  });
}

TEST_CASE("what a view was made of may change as soon as send returns") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    std::string text = "first";
    co_await conn.send(std::string_view(text));
    text = "XXXXX";
    std::string large = pattern(3000);
    co_await conn.send(std::string_view(large));
    large.assign(3000, 'X');
    co_await conn.flush();
    CHECK(peer.receive_exactly(5) == "first");
    CHECK(peer.receive_exactly(3000) == pattern(3000));
  });
}

TEST_CASE("a turn's sends leave together") {
  on_each_engine([]() -> Task<> {
    EventLoop& loop = EventLoop::current();
    auto [conn, peer] = connect_pair();
    co_await turns(3);
    const auto before = loop.metrics().submitted;
    for (int i = 0; i < 100; ++i) co_await conn.send("message,");
    CHECK(conn.pending_bytes() == 800);
    co_await conn.flush();
    CHECK(loop.metrics().submitted - before <= 2);
    CHECK(peer.receive_exactly(800).size() == 800);
  });
}

TEST_CASE("send waits at the high mark and goes on at the low one") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(), kSmall);
    std::size_t offset = 0;
    bool done = true;
    TaskGroup group;
    // Below the mark it returns at once.
    for (int i = 0; i < 1000 && done; ++i) {
      done = false;
      group.spawn(send_pattern(conn, offset, 1000, done));
      if (done) CHECK(conn.pending_bytes() < kHigh);
      if (i % 10 == 0) co_await turns(1);
    }
    REQUIRE_FALSE(done);
    CHECK(conn.pending_bytes() >= kHigh);
    CHECK(conn.pending_bytes() < kHigh + 1000);  // the message was accepted, and waits

    std::size_t got = 0;
    std::size_t lowest = conn.pending_bytes();
    while (!done) {
      lowest = conn.pending_bytes();
      const std::string bytes = peer.receive_now();
      CHECK(matching(bytes, 1, got) == bytes.size());
      got += bytes.size();
      co_await turns(1);
    }
    CHECK(conn.pending_bytes() <= kLow);
    CHECK(lowest <= kLow + (256U << 10));
    const auto drain = [peer = &peer, left = offset - got] { return peer->receive_exactly(left); };
    const std::string rest = co_await in_thread(drain);
    CHECK(matching(rest, 1, got) == offset - got);
  });
}

TEST_CASE("a message larger than the high mark is accepted whole while the queue is below it") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(1000, 100), kSmall);
    const std::string bytes = pattern(1 << 20);
    const auto send = [&bytes](TcpConnection& to) -> Task<> {
      std::string copy = bytes;
      co_await to.send(std::move(copy));
      co_await to.send("behind");
    };
    TaskGroup group;
    group.spawn(send(conn));
    CHECK(conn.pending_bytes() == bytes.size());
    const auto receive = [peer = &peer, &bytes] { return peer->receive_exactly(bytes.size() + 6); };
    const std::string got = co_await in_thread(receive);
    CHECK(got.size() == bytes.size() + 6);
    CHECK(matching(std::string_view(got).substr(0, bytes.size()), 1, 0) == bytes.size());
    CHECK(got.ends_with("behind"));
    co_await group.join();
  });
}

TEST_CASE("a peer that never reads bounds what a sender holds by the high mark") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(), kSmall);
    std::size_t most = 0;
    std::size_t accepted = 0;
    const auto flood = [](TcpConnection& to, std::size_t& count) -> Task<> {
      for (;;) {
        co_await to.send(std::string_view("0123456789"));
        ++count;
      }
    };
    {
      TaskGroup group;
      for (int i = 0; i < 4; ++i) group.spawn(flood(conn, accepted));
      for (int i = 0; i < 300; ++i) {
        most = std::max(most, conn.pending_bytes());
        co_await turns(1);
      }
    }
    CHECK(most >= kHigh / 2);  // the kernel may have taken some since it was at the mark
    CHECK(most <= kHigh + 4 * 10);
  });
}

TEST_CASE("a waiting send that was not accepted yet sends nothing when it is dropped") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(), kSmall);
    std::size_t offset = 0;
    bool first_done = false;
    bool second_done = false;
    bool third_done = false;
    TaskGroup group;
    group.spawn(send_pattern(conn, offset, 1 << 20, first_done));  // accepted, and waits
    const std::size_t end = offset;
    {
      TaskGroup dropped;
      std::size_t nowhere = 12345;
      dropped.spawn(send_pattern(conn, nowhere, 5000, second_done));
      co_await turns(3);
    }
    group.spawn(send_pattern(conn, offset, 7000, third_done));
    const auto receive = [peer = &peer, total = end + 7000] {
      return peer->receive_exactly(total);
    };
    const std::string got = co_await in_thread(receive);
    CHECK(matching(got, 1, 0) == end + 7000);
    co_await group.join();
    CHECK(first_done);
    CHECK_FALSE(second_done);
    CHECK(third_done);
    CHECK(conn.pending_bytes() == 0);
  });
}

TEST_CASE("whichever of the waiting sends are dropped, the others' messages go out in order") {
  on_each_engine([]() -> Task<> {
    constexpr unsigned kWaiting = 4;
    for (unsigned dropped = 0; dropped < 1U << kWaiting; ++dropped) {
      CAPTURE(dropped);
      auto [conn, peer] = connect_pair(marks(1000, 1000), kSmall);
      const auto send = [](TcpConnection& to, char c, std::size_t size) -> Task<> {
        std::string message(size, c);
        co_await to.send(std::move(message));
      };
      std::optional<TaskGroup> groups[kWaiting];
      std::string expected(200'000, '0');
      // The first is accepted, and goes out whatever becomes of it.
      for (unsigned i = 0; i < kWaiting; ++i) {
        const char name = static_cast<char>('0' + i);
        const std::size_t size = i == 0 ? 200'000 : 400 * i;
        groups[i].emplace().spawn(send(conn, name, size));
        if (i > 0 && (dropped >> i & 1U) == 0) expected += std::string(size, name);
      }
      co_await turns(1);
      for (unsigned i = 0; i < kWaiting; ++i) {
        if ((dropped >> i & 1U) != 0) groups[i].reset();
      }
      const auto receive = [peer = &peer, size = expected.size()] {
        return peer->receive_exactly(size);
      };
      const std::string got = co_await in_thread(receive);
      CHECK((got == expected));
      for (auto& group : groups) {
        if (group) co_await group->join();
      }
      CHECK(conn.pending_bytes() == 0);
    }
  });
}

TEST_CASE("an accepted message goes out whole though its send is dropped") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(), kSmall);
    std::size_t offset = 0;
    bool done = false;
    {
      TaskGroup dropped;
      dropped.spawn(send_pattern(conn, offset, 1 << 20, done));
      co_await turns(3);
    }
    CHECK_FALSE(done);
    const auto receive = [peer = &peer, total = offset] { return peer->receive_exactly(total); };
    const std::string got = co_await in_thread(receive);
    CHECK(matching(got, 1, 0) == offset);
  });
}

TEST_CASE("messages of many senders arrive whole, each sender's in order") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(10000, 1000), kSmall);
    constexpr std::size_t kSenders = 20;
    constexpr std::size_t kMessages = 100;
    // Sender, number, length, and as many letters.
    const auto send = [](TcpConnection& to, std::size_t sender) -> Task<> {
      for (std::size_t i = 0; i < kMessages; ++i) {
        const std::size_t length = (sender * 131 + i * 17) % 1500;
        std::string message = std::to_string(sender) + ' ' + std::to_string(i) + ' ' +
                              std::to_string(length) + ' ' +
                              std::string(length, static_cast<char>('a' + sender));
        if (i % 2 == 0) {
          co_await to.send(std::string_view(message));
        } else {
          co_await to.send(std::move(message));
        }
      }
    };
    TaskGroup group;
    for (std::size_t i = 0; i < kSenders; ++i) group.spawn(send(conn, i));
    const auto receive = [peer = &peer] {
      std::vector<std::size_t> next(kSenders, 0);
      std::string buffer;
      const auto number = [&] {
        std::string digits;
        for (;;) {
          if (buffer.empty()) buffer = peer->receive();
          if (buffer.empty()) throw std::runtime_error("end of stream");
          const char c = buffer.front();
          buffer.erase(0, 1);
          if (c == ' ') return std::stoul(digits);
          digits += c;
        }
      };
      for (std::size_t i = 0; i < kSenders * kMessages; ++i) {
        const std::size_t sender = number();
        const std::size_t index = number();
        const std::size_t length = number();
        while (buffer.size() < length) buffer += peer->receive();
        const std::string body = buffer.substr(0, length);
        buffer.erase(0, length);
        if (next.at(sender)++ != index) throw std::runtime_error("out of order");
        if (body != std::string(length, static_cast<char>('a' + sender))) {
          throw std::runtime_error("interleaved");
        }
      }
      return true;
    };
    const bool right = co_await in_thread(receive);
    CHECK(right);
    co_await group.join();
  });
}

TEST_CASE("senders that wait are let in in the order in which they came") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(1000, 0), kSmall);
    const auto send = [](TcpConnection& to, char c, std::size_t size) -> Task<> {
      std::string message(size, c);
      co_await to.send(std::move(message));
    };
    TaskGroup group;
    group.spawn(send(conn, 'a', 1 << 20));
    for (char c = 'b'; c <= 'f'; ++c) group.spawn(send(conn, c, 2000));
    const auto receive = [peer = &peer] { return peer->receive_exactly((1 << 20) + 5 * 2000); };
    const std::string got = co_await in_thread(receive);
    std::string expected(1 << 20, 'a');
    for (char c = 'b'; c <= 'f'; ++c) expected += std::string(2000, c);
    CHECK((got == expected));
    co_await group.join();
  });
}

TEST_CASE("on_high_water tells in its turn also of a peer that does not read") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(1 << 20, 100), kSmall);
    std::vector<std::size_t> seen;
    conn.on_high_water([&](std::size_t pending) { seen.push_back(pending); });
    // More than the sockets take: from here on a send is under way that does not end.
    co_await conn.send(std::string_view(pattern(900 << 10)));
    co_await turns(5);
    REQUIRE(conn.pending_bytes() > (500U << 10));
    CHECK(seen.empty());
    std::size_t before = conn.pending_bytes();
    while (conn.sender().try_send(std::string(100 << 10, 'x'))) {
      co_await turns(2);
      if (conn.pending_bytes() >= (1U << 20)) break;
      CHECK(seen.empty());
      before = conn.pending_bytes();
    }
    co_await turns(2);
    REQUIRE(seen.size() == 1);
    CHECK(seen[0] >= (1U << 20));
    CHECK(seen[0] == before + (100U << 10));
  });
}

TEST_CASE("on_high_water is not told of a connection that was given up in the same turn") {
  on_each_engine([]() -> Task<> {
    auto pair = std::make_unique<Connected>(connect_pair(marks(1000, 100), kSmall));
    int told = 0;
    pair->connection.on_high_water([&](std::size_t) { ++told; });
    CHECK(pair->connection.sender().try_send(std::string(2000, 'x')));
    std::optional<TcpConnection> conn(std::move(pair->connection));
    const auto send = [](TcpConnection& to) -> Task<> {
      std::string message(2000, 'y');
      co_await to.send(std::move(message));
    };
    TaskGroup group;
    group.spawn(send(*conn));
    group.cancel();
    conn.reset();
    co_await turns(5);
    CHECK(told == 0);
    co_await group.join();
  });
}

TEST_CASE("on_high_water tells when the mark was reached from below, whoever sent") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(1000, 100), kSmall);
    std::vector<std::size_t> seen;
    conn.on_high_water([&](std::size_t pending) { seen.push_back(pending); });
    co_await conn.send(std::string_view(pattern(999)));
    co_await turns(3);
    CHECK(seen.empty());
    const auto send = [](TcpConnection& to) -> Task<> {
      std::string message = pattern(1 << 20, 1, 999);
      co_await to.send(std::move(message));
    };
    TaskGroup group;
    group.spawn(send(conn));
    co_await turns(3);
    co_await turn_until([&] { return !seen.empty(); });
    REQUIRE(seen.size() == 1);
    CHECK(seen[0] >= (1U << 20) - (64U << 10));
    const auto receive = [peer = &peer] { return peer->receive_exactly(999 + (1 << 20)); };
    const std::string got = co_await in_thread(receive);
    CHECK(matching(got, 1, 0) == 999 + (1U << 20));
    co_await group.join();
    CHECK(seen.size() == 1);

    CHECK(conn.sender().try_send(pattern(1 << 20)));
    co_await turns(3);
    CHECK(seen.size() == 2);
    const auto receive_more = [peer = &peer] { return peer->receive_exactly(1 << 20); };
    const std::string more = co_await in_thread(receive_more);
    CHECK(matching(more, 1, 0) == 1U << 20);
  });
}

TEST_CASE("on_high_water may close and destroy its connection") {
  on_each_engine([]() -> Task<> {
    std::optional<Connected> pair(connect_pair(marks(1000, 100), kSmall));
    pair->connection.on_high_water([&](std::size_t) { pair.reset(); });
    std::string message(1 << 20, 'x');
    const auto send = [](TcpConnection& to, std::string& bytes) -> Task<> {
      (void)co_await as_tuple(to.send(std::move(bytes)));
    };
    TaskGroup group;
    group.spawn(send(pair->connection, message));
    co_await group.join();
    CHECK_FALSE(pair);
  });
}

TEST_CASE("flush resumes once everything sent before it is with the kernel") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(8 << 20, 4 << 20), kSmall);
    co_await conn.flush();  // nothing to wait for
    std::string message = pattern(1 << 20);
    co_await conn.send(std::move(message));
    CHECK(conn.pending_bytes() == 1U << 20);
    const auto receive = [peer = &peer] { return peer->receive_exactly(1 << 20); };
    TaskGroup group;
    group.spawn(in_thread(receive));
    co_await conn.flush();
    CHECK(conn.pending_bytes() == 0);
    co_await group.join();
  });
}

TEST_CASE("the marks can be changed while sends wait") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(1000, 0), kSmall);
    std::size_t offset = 0;
    bool first = false;
    bool second = false;
    TaskGroup group;
    group.spawn(send_pattern(conn, offset, 1 << 20, first));
    group.spawn(send_pattern(conn, offset, 1000, second));
    co_await turns(3);
    CHECK_FALSE(second);
    conn.set_water_marks({.high = 4 << 20, .low = 3 << 20});
    co_await turns(3);
    CHECK(first);
    CHECK(second);
    CHECK(conn.pending_bytes() > 0);
    const auto receive = [peer = &peer, offset] { return peer->receive_exactly(offset); };
    const std::string got = co_await in_thread(receive);
    CHECK(matching(got, 1, 0) == offset);
  });
}

TEST_CASE("bad options are refused by name and value") {
  on_each_engine([]() -> Task<> {
    const auto text = [](ConnectionOptions options) {
      return text_of<std::invalid_argument>([&] { connect_pair(options); });
    };
    CHECK(text(marks(0, 0)).find("water_marks.high is 0") != std::string::npos);
    CHECK(text(marks(10, 11)).find("water_marks.low is 11") != std::string::npos);
    ConnectionOptions options;
    options.input_high = 0;
    CHECK(text(options).find("input_high is 0") != std::string::npos);
    options = {};
    options.linger = -1ms;
    CHECK(text(options).find("linger is -1") != std::string::npos);

    auto [conn, peer] = connect_pair();
    CHECK_THROWS_AS(conn.set_water_marks({.high = 1, .low = 2}), std::invalid_argument);
    CHECK_THROWS_AS(conn.set_water_marks({.high = 0, .low = 0}), std::invalid_argument);
    CHECK_THROWS_AS(TcpConnection{Socket()}, std::invalid_argument);
    co_return;
  });
}

TEST_CASE("a send to a peer that is gone is an error, once, and never a SIGPIPE") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    peer.reset();
    co_await turn_until([conn = &conn] { return conn->state() != ConnectionState::connected; });
    std::vector<std::error_code> errors;
    for (int i = 0; i < 3; ++i) {
      const auto result = co_await as_tuple(conn.send("x"));
      errors.push_back(result.error);
    }
    CHECK(errors[0] == std::errc::connection_reset);
    CHECK(errors[1] == std::errc::broken_pipe);
    CHECK(errors[2] == std::errc::broken_pipe);
    auto [read, none] = co_await as_tuple(conn.read());  // each side is told
    CHECK(read == std::errc::connection_reset);
    const Chunk end = co_await conn.read();
    CHECK_FALSE(end);
  });
}

TEST_CASE("a peer that only half-closed can still be written to") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    peer.shutdown_send();
    const Chunk end = co_await conn.read();
    CHECK_FALSE(end);
    std::string reply = pattern(1 << 20);
    co_await conn.send(std::move(reply));
    const auto receive = [peer = &peer] { return peer->receive_all(); };
    TaskGroup group;
    group.spawn(shut_down(conn));
    const std::string got = co_await in_thread(receive);
    CHECK(matching(got, 1, 0) == 1U << 20);
  });
}

TEST_CASE("a reset ends sends and flushes that wait") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(1000, 0), kSmall);
    std::vector<std::error_code> errors;
    const auto send = [&](TcpConnection& to) -> Task<> {
      std::string message(1 << 20, 'x');
      const auto result = co_await as_tuple(to.send(std::move(message)));
      errors.push_back(result.error);
    };
    const auto flush = [&](TcpConnection& to) -> Task<> {
      const auto result = co_await as_tuple(to.flush());
      errors.push_back(result.error);
    };
    TaskGroup group;
    group.spawn(send(conn));
    group.spawn(send(conn));
    group.spawn(flush(conn));
    co_await turns(3);
    peer.reset();
    co_await group.join();
    REQUIRE(errors.size() == 3);
    // Whichever operation the kernel tells of the reset; the others find the pipe broken.
    for (const auto& error : errors) {
      CHECK((error == std::errc::connection_reset || error == std::errc::broken_pipe));
    }
    CHECK(conn.pending_bytes() == 0);
  });
}
