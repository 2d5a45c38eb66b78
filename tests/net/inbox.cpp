#include <weir/coro/as_tuple.h>
#include <weir/net/stream/inbox.h>
#include <weir/net/stream/reading.h>

#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "../support/virtual_loop.h"

using namespace weir;
using namespace weir::test;
using namespace weir::detail;

namespace {

struct Source final : Inbox::Source {
  explicit Source(std::size_t high = 1 << 20) : inbox(*this, high) {}
  void input_wanted() noexcept override { ++asked; }

  void push(std::string_view bytes) {
    BufferRef buffer = make_buffer(bytes.size() + 1);
    std::memcpy(buffer->data(), bytes.data(), bytes.size());
    const std::byte* data = buffer->data();
    inbox.push(std::move(buffer), data, bytes.size());
  }
  /// As a receive does it that nearly always goes the short way.
  void push_plain(std::string_view bytes) {
    BufferRef buffer = make_buffer(bytes.size() + 1);
    std::memcpy(buffer->data(), bytes.data(), bytes.size());
    if (inbox.takes_plain(bytes.size())) {
      inbox.push_plain(*buffer, bytes.size());
    } else {
      push(bytes);
    }
  }

  int asked = 0;
  Inbox inbox;
};

struct Got {
  bool done = false;
  std::error_code error;
  std::string bytes;
  bool end = false;
};

template <class Awaiter>
Task<> read_into(Got& got, Awaiter awaiter) {
  auto [error, chunk] = co_await as_tuple(std::move(awaiter));
  got = {true, error, std::string(chunk.view()), chunk.is_end()};
}

template <class Awaiter>
Got read_now(VirtualLoop& loop, Awaiter awaiter) {
  Got got;
  TaskGroup group;
  group.spawn(read_into(got, std::move(awaiter)));
  loop.settle();
  return got;
}

/// The pieces of a text that is cut before each byte whose bit is set.
std::vector<std::string> pieces_of(std::string_view text, unsigned cuts) {
  std::vector<std::string> pieces(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i > 0 && (cuts >> (i - 1) & 1U) != 0) pieces.emplace_back();
    pieces.back() += text[i];
  }
  return pieces;
}

}  // namespace

TEST_CASE("an inbox gives the same lines and pieces however its bytes were split") {
  const std::string text = "ab\r\r\n\r\nxyz";
  VirtualLoop loop;
  for (unsigned cuts = 0; cuts < 1U << (text.size() - 1); ++cuts) {
    for (const bool waits : {false, true}) {
      Source source;
      Got first;
      Got second;
      Got rest;
      TaskGroup group;
      const auto read_all = [&]() -> Task<> {
        co_await read_into(first, ReadUntilAwaiter(&source.inbox, "\r\n", 100));
        co_await read_into(second, ReadUntilAwaiter(&source.inbox, "\r\n", 100));
        co_await read_into(rest, ReadExactlyAwaiter(&source.inbox, 3));
      };
      if (waits) group.spawn(read_all());
      for (const std::string& piece : pieces_of(text, cuts)) {
        source.push_plain(piece);
        loop.settle();
      }
      if (!waits) group.spawn(read_all());
      loop.settle();
      REQUIRE(first.bytes == "ab\r\r\n");
      REQUIRE(second.bytes == "\r\n");
      REQUIRE(rest.bytes == "xyz");
      REQUIRE(source.inbox.unread() == 0);
    }
  }
}

TEST_CASE("a peek takes nothing, and gives fewer bytes only where there are no more") {
  const std::string text = "abcdef";
  VirtualLoop loop;
  for (unsigned cuts = 0; cuts < 1U << (text.size() - 1); ++cuts) {
    for (std::size_t count = 1; count <= text.size(); ++count) {
      Source source;
      Got peeked;
      TaskGroup group;
      group.spawn(read_into(peeked, PeekAwaiter(&source.inbox, count)));
      std::size_t there = 0;
      for (const std::string& piece : pieces_of(text, cuts)) {
        REQUIRE(peeked.done == (there >= count));
        source.push(piece);
        there += piece.size();
        loop.settle();
      }
      REQUIRE(peeked.bytes == text.substr(0, count));
      REQUIRE(read_now(loop, PeekAwaiter(&source.inbox, 0)).bytes.empty());
      source.inbox.end();
      REQUIRE(read_now(loop, PeekAwaiter(&source.inbox, 100)).bytes == text);
      REQUIRE(read_now(loop, ReadExactlyAwaiter(&source.inbox, text.size())).bytes == text);
      REQUIRE(read_now(loop, PeekAwaiter(&source.inbox, 1)).end);
    }
  }
}

TEST_CASE("a read of some bytes gives no more than it asked for") {
  VirtualLoop loop;
  for (std::size_t most = 1; most < 7; ++most) {
    Source source;
    source.push("abcdef");
    std::string all;
    while (source.inbox.unread() > 0) {
      const Got got = read_now(loop, ReadMostAwaiter(&source.inbox, most));
      REQUIRE(got.bytes.size() <= most);
      REQUIRE_FALSE(got.bytes.empty());
      all += got.bytes;
    }
    CHECK(all == "abcdef");
    const Got nothing = read_now(loop, ReadMostAwaiter(&source.inbox, 0));
    CHECK(nothing.done);
    CHECK_FALSE(nothing.end);
  }
}

TEST_CASE("a read that is dropped at any moment leaves its bytes to the next") {
  VirtualLoop loop;
  for (const bool plain : {false, true}) {
    for (int moment = 0; moment < 3; ++moment) {  // before its bytes, when they are there, after
      Source source;
      Got dropped;
      std::optional<TaskGroup> group(std::in_place);
      group->spawn(read_into(dropped, ReadAwaiter(&source.inbox)));
      loop.settle();
      if (moment == 0) group.reset();
      if (plain) {
        source.push_plain("bytes");
      } else {
        source.push("bytes");
      }
      if (moment == 1) group.reset();
      loop.settle();
      CHECK(dropped.done == (moment == 2));
      if (moment == 2) continue;
      CHECK(read_now(loop, ReadAwaiter(&source.inbox)).bytes == "bytes");
    }
  }
}

TEST_CASE("an end, a failure and a close reach a read before, between and behind its bytes") {
  VirtualLoop loop;
  enum Way { clean, broke, cut, closed };
  for (const Way way : {clean, broke, cut, closed}) {
    for (const bool bytes : {false, true}) {
      for (const bool waits : {false, true}) {
        CAPTURE(int(way));
        CAPTURE(bytes);
        CAPTURE(waits);
        Source source;
        Got got;
        TaskGroup group;
        if (bytes) source.push("abc");
        if (waits) group.spawn(read_into(got, ReadExactlyAwaiter(&source.inbox, 4)));
        loop.settle();
        if (way == clean) source.inbox.end();
        if (way == broke) source.inbox.fail(ECONNRESET, false);
        if (way == cut) source.inbox.fail(kIdle, true);
        if (way == closed) source.inbox.close();
        if (!waits) group.spawn(read_into(got, ReadExactlyAwaiter(&source.inbox, 4)));
        loop.settle();
        REQUIRE(got.done);
        if (way == clean && !bytes) CHECK((got.end && !got.error));
        if (way == clean && bytes) CHECK(got.error == std::errc::connection_aborted);
        if (way == broke) CHECK(got.error == std::errc::connection_reset);
        if (way == cut) CHECK(got.error == errc::idle);
        if (way == closed) CHECK(got.error == errc::closed_here);
        // What came before is still there, but for a close; what broke it was told.
        const Got then = read_now(loop, ReadAwaiter(&source.inbox));
        if (bytes && way != closed) {
          CHECK(then.bytes == "abc");
        } else if (way == cut || way == closed) {
          CHECK(then.error == errc::closed_here);
        } else {
          CHECK(then.end);
        }
        source.inbox.fail(EIO, false);  // too late
        const Got last = read_now(loop, ReadAwaiter(&source.inbox));
        CHECK((last.end || last.error == errc::closed_here));
      }
    }
  }
}

TEST_CASE("an inbox asks for more when it is read, unless bytes come by themselves") {
  VirtualLoop loop;
  Source source(10);
  CHECK(source.inbox.wants_input(false));
  source.push("0123456789");
  CHECK_FALSE(source.inbox.wants_input(false));
  CHECK(source.inbox.full());
  const int before = source.asked;
  CHECK(read_now(loop, ReadMostAwaiter(&source.inbox, 4)).bytes == "0123");
  CHECK(source.asked == before + 1);
  CHECK_FALSE(source.inbox.wants_input(true));  // until half of it has been read
  CHECK(read_now(loop, ReadMostAwaiter(&source.inbox, 2)).bytes == "45");
  CHECK(source.inbox.wants_input(true));
  source.inbox.set_flowing(true);
  const int flowing = source.asked;
  CHECK(read_now(loop, ReadAwaiter(&source.inbox)).bytes == "6789");
  CHECK(source.asked == flowing);
  // Whoever waits for more gets it, whatever the mark says.
  source.inbox.set_flowing(false);
  Got got;
  TaskGroup group;
  group.spawn(read_into(got, ReadExactlyAwaiter(&source.inbox, 15)));
  source.push("0123456789");
  CHECK(source.inbox.wants_input(false));
  source.push("01234");
  loop.settle();
  CHECK(got.bytes == "012345678901234");
}

TEST_CASE("an inbox may go while a read waits, and while one is about to resume") {
  VirtualLoop loop;
  for (const bool woken : {false, true}) {
    Got got;
    TaskGroup group;
    {
      Source source;
      group.spawn(read_into(got, ReadAwaiter(&source.inbox)));
      loop.settle();
      if (woken) source.push("lost");
      source.inbox.close();
    }
    loop.settle();
    CHECK(got.error == errc::closed_here);
  }
}
