#include <weir/core/flight_words.h>
#include <weir/net/connection.h>
#include <weir/net/connection_access.h>
#include <weir/net/transform.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

/// On the wire each message stands in frames, "#" and up to nine bytes turned around after their
/// number; "!" is the last word, without which an end is a failure.
class Frames final : public weir::detail::Transform {
 public:
  weir::detail::Failure receive(BufferRef /*buffer*/, const std::byte* data, std::size_t size,
                                weir::detail::Inbox& inbox) override {
    for (std::size_t i = 0; i < size; ++i) {
      const char c = static_cast<char>(data[i]);
      if (wanted_ > 0) {
        frame_.insert(frame_.begin(), c);
        if (--wanted_ == 0) deliver(inbox);
      } else if (c == '!') {
        inbox.end();
        said_ = true;
      } else if (c >= '1' && c <= '9') {
        wanted_ = c - '0';
      } else if (c != '#') {
        return EPROTO;
      }
    }
    return 0;
  }

  weir::detail::Failure receive_end(weir::detail::Inbox& inbox) override {
    if (!said_) return ECONNABORTED;
    inbox.end();
    return 0;
  }

  std::size_t send(std::span<const Slice> plain, bool ending,
                   weir::detail::SegmentQueue& wire) override {
    if (fails_) throw weir::detail::Broken{ELIBBAD};
    if (plain.empty()) {
      if (ending && !std::exchange(last_word_, true)) push(wire, "!");
      return 0;
    }
    const auto* data = static_cast<const std::byte*>(plain.front().data);
    const std::size_t count = std::min<std::size_t>(plain.front().size, 9);
    std::string frame = "#" + std::to_string(count);
    for (std::size_t i = count; i > 0; --i) frame += static_cast<char>(data[i - 1]);
    push(wire, frame);
    return count;
  }

  [[nodiscard]] std::size_t kept() const noexcept override { return kept_; }

  void fail_to_send() { fails_ = true; }
  void say_kept(std::size_t kept) { kept_ = kept; }

 private:
  static void push(weir::detail::SegmentQueue& wire, const std::string& bytes) {
    BufferRef buffer = make_buffer(bytes.size());
    std::memcpy(buffer->data(), bytes.data(), bytes.size());
    const std::byte* data = buffer->data();
    wire.push_back({std::move(buffer), {data, bytes.size()}});
  }
  void deliver(weir::detail::Inbox& inbox) {
    BufferRef buffer = make_buffer(frame_.size());
    std::memcpy(buffer->data(), frame_.data(), frame_.size());
    const std::byte* data = buffer->data();
    inbox.push(std::move(buffer), data, frame_.size());
    frame_.clear();
  }

  std::string frame_;
  int wanted_ = 0;
  bool said_ = false;
  bool last_word_ = false;
  bool fails_ = false;
  std::size_t kept_ = 0;
};

/// A connection behind frames, and the plain peer that sees them.
Connected framed_pair(int buffer_bytes = 0) {
  const auto [ours, theirs] = tcp_pair(buffer_bytes);
  EventLoop& loop = EventLoop::current();
  auto* connection = weir::detail::Connection::adopt(loop, Socket(loop.sockets(), ours), {});
  connection->transforming().begin(std::make_unique<Frames>());
  return {TcpConnection(*connection), Peer(theirs)};
}

}  // namespace

TEST_CASE("what stands between the wire and the boxes turns both ways") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = framed_pair();
    peer.send("#3cba#1d#");
    Chunk chunk = co_await conn.read_exactly(4);
    CHECK(chunk.view() == "abcd");
    co_await conn.send("one");
    co_await conn.send(std::string("twelve bytes"));
    co_await conn.flush();
    CHECK(conn.pending_bytes() == 0);
    // In whichever frames they left.
    std::string got;
    while (got.size() < 15) {
      const std::string head = peer.receive_exactly(2);
      REQUIRE(head.front() == '#');
      const std::string frame = peer.receive_exactly(static_cast<std::size_t>(head.back() - '0'));
      got.append(frame.rbegin(), frame.rend());
    }
    CHECK(got == "onetwelve bytes");
    peer.send("!");
    peer.shutdown_send();
    chunk = co_await conn.read();
    CHECK(chunk.is_end());
  });
}

TEST_CASE("a last word goes before the FIN, and an end without the peer's is a failure") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = framed_pair();
    co_await conn.send("bye");
    co_await conn.shutdown();
    CHECK(peer.receive_all() == "#3eyb!");
    peer.send("#1x");
    peer.shutdown_send();
    const Chunk chunk = co_await conn.read();
    CHECK(chunk.view() == "x");
    auto [error, none] = co_await as_tuple(conn.read());
    CHECK(error == std::errc::connection_aborted);
  });
}

TEST_CASE("what a transform cannot read breaks the connection, each side told") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = framed_pair();
    peer.send("#1a?");
    const Chunk chunk = co_await conn.read();
    CHECK(chunk.view() == "a");
    auto [error, none] = co_await as_tuple(conn.read());
    CHECK(error == std::errc::protocol_error);
    const auto sent = co_await as_tuple(conn.send("x"));
    CHECK(sent.error == std::errc::protocol_error);
  });
}

TEST_CASE("two connections behind frames exchange what is larger than all buffers") {
  on_each_engine([]() -> Task<> {
    constexpr std::size_t kSize = 20'000;
    const auto [left, right] = tcp_pair(8 << 10);
    EventLoop& loop = EventLoop::current();
    auto* a = weir::detail::Connection::adopt(loop, Socket(loop.sockets(), left), {});
    auto* b = weir::detail::Connection::adopt(loop, Socket(loop.sockets(), right), {});
    a->transforming().begin(std::make_unique<Frames>());
    b->transforming().begin(std::make_unique<Frames>());
    TcpConnection from(*a);
    TcpConnection to(*b);
    const auto send = [](TcpConnection& conn) -> Task<> {
      co_await conn.send(pattern(kSize));
      co_await conn.shutdown();
    };
    TaskGroup group;
    group.spawn(send(from));
    const Chunk chunk = co_await to.read_exactly(kSize);
    CHECK(matching(chunk.view(), 1, 0) == kSize);
    const Chunk end = co_await to.read();
    CHECK(end.is_end());
    co_await group.join();
  });
}

TEST_CASE("a transform that cannot make what the wire is to get says why the connection breaks") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = framed_pair();
    auto* connection = weir::detail::ConnectionAccess::of(conn);
    static_cast<Frames*>(connection->transform())->fail_to_send();
    co_await conn.send("x");
    const auto flushed = co_await as_tuple(conn.flush());
    CHECK(flushed.error == std::error_code(ELIBBAD, std::generic_category()));
    conn.close();
    CHECK(peer.wait_for_end() == ECONNRESET);
  });
}

TEST_CASE(
    "that a transform broke a connection is kept with the loop's events, whatever its number") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    constexpr int kOfTheUsers = 200 << 16;  // as OpenSSL numbers a provider's own reasons
    weir::detail::ConnectionAccess::of(conn)->ending().fail(weir::detail::kTransformFailure -
                                                            kOfTheUsers - 1);
    std::array<weir::detail::FlightRecorder::Event, 8> events;
    const std::size_t count = EventLoop::current().flight.take_last(events);
    const auto* const broke = std::find_if(events.begin(), events.begin() + count, [](auto& event) {
      return event.kind == weir::detail::FlightRecorder::Kind::broke;
    });
    REQUIRE(broke != events.begin() + count);
    CHECK(weir::detail::failure_of(*broke) == "its TLS, or another transform, failed");
    co_return;
  });
}

TEST_CASE(
    "what a transform keeps counts against the mark of the input, unless nothing else is there") {
  on_each_engine([]() -> Task<> {
    const auto [ours, theirs] = tcp_pair();
    EventLoop& loop = EventLoop::current();
    auto* connection =
        weir::detail::Connection::adopt(loop, Socket(loop.sockets(), ours), {.input_high = 100});
    auto frames = std::make_unique<Frames>();
    Frames& keeping = *frames;
    connection->transforming().begin(std::move(frames));
    TcpConnection conn(*connection);
    Peer peer(theirs);
    keeping.say_kept(1000);
    CHECK(connection->wants_input(false));
    peer.send("#1a#1b");
    co_await turn_until([&] { return connection->inbox().unread() == 2; });
    CHECK_FALSE(connection->wants_input(false));
    keeping.say_kept(97);
    CHECK(connection->wants_input(false));
    CHECK_FALSE(connection->wants_input(true));
    keeping.say_kept(1000);
    const Chunk chunk = co_await conn.read_exactly(2);
    CHECK(chunk.view() == "ab");
    CHECK(connection->wants_input(true));
  });
}
