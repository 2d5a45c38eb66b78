#include <weir/coro/as_tuple.h>
#include <weir/net/stream/outbox.h>
#include <weir/net/stream/sending.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <new>
#include <numeric>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "../support/allocations.h"
#include "../support/virtual_loop.h"

using namespace weir;
using namespace weir::test;
using namespace weir::detail;

namespace {

/// Takes what there is in pieces, as many bytes as it is told.
struct Sink final : Outbox::Sink {
  explicit Sink(WaterMarks marks = {}) : outbox(*this, marks) {}
  void output_alone() noexcept override { ++alone; }
  bool looks_again() const noexcept override { return looks; }
  void output_ready() noexcept override { ++ready; }
  void output_finished() noexcept override { finished = true; }
  void output_failed(Failure failure) noexcept override { outbox.fail(failure); }

  /// `most` bytes of it go; gives how many there were.
  std::size_t go(std::size_t most) {
    if (outbox.queue().empty()) return 0;
    std::array<Slice, 3> slices{};
    const std::uint32_t count = outbox.queue().take(slices.data(), slices.size());
    std::size_t left = most;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::size_t part = std::min(slices[i].size, left);
      wire.append(static_cast<const char*>(slices[i].data), part);
      left -= part;
    }
    const std::size_t gone = most - left;
    if (!outbox.sent_plain(static_cast<int>(gone))) outbox.sent(gone);
    outbox.queue().untake();
    if (finished && !ended) {
      ended = true;
      outbox.ended();
    }
    return gone;
  }
  void go_all() {
    while (go(1 << 30) > 0) {
    }
  }

  bool looks = false;  // at a message that is alone
  int alone = 0;
  int ready = 0;
  bool finished = false;
  bool ended = false;
  std::string wire;
  Outbox outbox;
};

struct Sent {
  bool done = false;
  std::error_code error;
};

template <class Awaiter>
Task<> wait_for(Sent& sent, Awaiter awaiter) {
  const auto outcome = co_await as_tuple(std::move(awaiter));
  sent = {true, outcome.error};
}

std::string message(char name, std::size_t size) { return std::string(size, name); }

SendAwaiter send(Sink& to, std::string bytes) {
  return SendAwaiter(&to.outbox, adopt(std::move(bytes)));
}
SendAwaiter send_view(Sink& to, const std::string& bytes) {
  return SendAwaiter(&to.outbox, bytes.data(), bytes.size());
}

}  // namespace

TEST_CASE("messages of any kind leave whole and in order, however little goes at a time") {
  VirtualLoop loop;
  const std::size_t sizes[] = {0, 1, 511, 513, 3000};
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{600}}) {
    for (unsigned kinds = 0; kinds < 1U << std::size(sizes); ++kinds) {
      for (const unsigned how : {0U, 1U, 2U, 3U}) {
        const bool between = how % 2 != 0;
        loop.settle();  // a turn, in which all these sends may be ready at once
        Sink sink;
        sink.looks = how / 2 != 0;
        std::string expected;
        std::vector<Sent> sent(std::size(sizes));
        TaskGroup group;
        for (std::size_t i = 0; i < std::size(sizes); ++i) {
          const std::string bytes = message(static_cast<char>('a' + i), sizes[i]);
          expected += bytes;
          if ((kinds >> i & 1U) != 0) {
            group.spawn(wait_for(sent[i], send(sink, bytes)));
          } else {
            group.spawn(wait_for(sent[i], send_view(sink, bytes)));
          }
          REQUIRE(sent[i].done);
          if (between) sink.go(piece);
        }
        REQUIRE(sink.outbox.pending() == expected.size() - sink.wire.size());
        while (sink.go(piece) > 0) {
        }
        REQUIRE(sink.wire == expected);
        REQUIRE(sink.outbox.pending() == 0);
      }
    }
  }
}

TEST_CASE("small sends behind one that the sink looks at again make it longer") {
  VirtualLoop loop;
  Sink sink;
  sink.looks = true;
  Sent sent;
  TaskGroup group;
  const auto expect_one = [&](const std::string& bytes) {
    CHECK(sink.outbox.queue().has_one());
    CHECK(sink.outbox.pending() == bytes.size());
    CHECK(sink.ready == 0);
    sink.go_all();
    CHECK(sink.wire == bytes);
    sink.wire.clear();
  };
  group.spawn(wait_for(sent, send_view(sink, "head ")));
  group.spawn(wait_for(sent, send_view(sink, "and body")));
  expect_one("head and body");

  BufferRef received = make_buffer(100);  // what a read gave, and nobody else has
  std::memcpy(received->data(), "read, ", 6);
  const std::byte* data = received->data();
  group.spawn(wait_for(sent, SendAwaiter(&sink.outbox, Chunk(std::move(received), data, 6))));
  group.spawn(wait_for(sent, send_view(sink, "said")));
  expect_one("read, said");
  CHECK(sink.alone == 2);
}

TEST_CASE("a message that somebody else has too, or the sink, stays as it is") {
  VirtualLoop loop;
  for (const bool looks : {false, true}) {
    Sink sink;
    sink.looks = looks;
    Sent sent;
    TaskGroup group;
    BufferRef received = make_buffer(100);
    std::memset(received->data(), '.', 100);
    const std::byte* data = received->data();
    const Chunk kept(looks ? received : BufferRef(), data, 100);
    group.spawn(wait_for(sent, SendAwaiter(&sink.outbox, Chunk(std::move(received), data, 6))));
    group.spawn(wait_for(sent, send_view(sink, "said")));
    CHECK_FALSE(sink.outbox.queue().has_one());
    CHECK(data[6] == std::byte{'.'});
    sink.go_all();
    CHECK(sink.wire == "......said");
  }
}

TEST_CASE("a message that lacks memory leaves the outbox as it was, and the next one goes") {
  VirtualLoop loop;
  Sink sink;
  for (const std::size_t size : {std::size_t{3}, std::size_t{3000}, std::size_t{70'000}}) {
    const std::string bytes = message('x', size);
    bool failed = false;
    SendAwaiter awaiter(&sink.outbox, bytes.data(), bytes.size());
    {
      const FailingAllocations failing(0);
      try {
        (void)awaiter.await_ready();
      } catch (const std::bad_alloc&) {
        failed = true;
      }
      CHECK(failed == (failing.failed() > 0));  // a small one may be of recycled memory
    }
    if (!failed) sink.go_all();
    sink.wire.clear();
    CHECK(sink.outbox.pending() == 0);
    TaskGroup group;
    Sent sent;
    group.spawn(wait_for(sent, send_view(sink, bytes)));
    CHECK_FALSE(sent.error);
    sink.go_all();
    CHECK(sink.wire == bytes);
    sink.wire.clear();
  }
}

TEST_CASE("a message that reaches the mark is not accepted where there is no memory to wait") {
  VirtualLoop loop;
  Sink sink({.high = 100, .low = 10});
  SendAwaiter awaiter = send(sink, message('x', 200));
  bool failed = false;
  {
    const FailingAllocations failing(0);
    try {
      (void)awaiter.await_ready();  // there may be recycled memory
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  }
  CHECK(sink.outbox.pending() == (failed ? 0U : 200U));
  if (sink.outbox.pending() > 0) sink.go_all();
  sink.wire.clear();
  TaskGroup group;
  Sent sent;
  group.spawn(wait_for(sent, send(sink, message('y', 200))));
  sink.go_all();
  loop.settle();
  CHECK(sent.done);
  CHECK_FALSE(sent.error);
  CHECK(sink.wire == message('y', 200));
}

TEST_CASE("a message alone goes the short way, again and again, whatever was used before") {
  VirtualLoop loop;
  Sink sink({.high = 100, .low = 10});
  std::size_t told = 0;
  sink.outbox.on_high_water([&](std::size_t pending) { told = pending; });
  Sent sent;
  TaskGroup group;
  group.spawn(wait_for(sent, send(sink, "two")));
  group.spawn(wait_for(sent, send(sink, "segments")));
  CHECK(sink.alone == 1);
  sink.go_all();
  group.spawn(wait_for(sent, send(sink, message('x', 200))));
  const auto function = sink.outbox.high_water()->take();
  REQUIRE(function);
  function(sink.outbox.pending());
  CHECK(told == 200);
  CHECK_FALSE(sink.outbox.high_water()->take());
  sink.go_all();
  loop.settle();
  for (int i = 0; i < 3; ++i) {
    group.spawn(wait_for(sent, send(sink, "alone")));
    CHECK(sink.alone == 2 + i);
    sink.go_all();
  }
}

TEST_CASE("whichever waiting sends are dropped, in whichever order and whenever, the rest goes") {
  VirtualLoop loop;
  constexpr std::size_t kWaiting = 4;
  std::array<std::size_t, kWaiting> order{};
  std::iota(order.begin(), order.end(), std::size_t{0});
  do {
    for (std::size_t dropped = 0; dropped <= kWaiting; ++dropped) {
      for (const std::size_t piece : {std::size_t{0}, std::size_t{60}}) {
        for (const std::size_t low : {std::size_t{0}, std::size_t{100}}) {
          Sink sink({.high = 100, .low = low});
          std::array<Sent, kWaiting + 1> sent;
          std::array<std::optional<TaskGroup>, kWaiting + 1> groups;
          groups[0].emplace().spawn(wait_for(sent[0], send(sink, message('0', 150))));
          for (std::size_t i = 1; i <= kWaiting; ++i) {
            const auto name = static_cast<char>('0' + i);
            groups[i].emplace().spawn(wait_for(sent[i], send(sink, message(name, 40 * i))));
            REQUIRE_FALSE(sent[i].done);
          }
          for (std::size_t i = 0; i < dropped; ++i) {
            sink.go(piece);
            groups[order[i] + 1].reset();
            if (piece > 0) loop.settle();
          }
          for (int i = 0; i < 20; ++i) {
            sink.go(50);
            loop.settle();
          }
          sink.go_all();
          loop.settle();
          // Each message went whole or not at all, in order; those that were not dropped did.
          std::string rest = sink.wire;
          for (std::size_t i = 0; i <= kWaiting; ++i) {
            const std::string bytes = message(static_cast<char>('0' + i), i == 0 ? 150 : 40 * i);
            const bool went = rest.starts_with(bytes);
            if (went) rest.erase(0, bytes.size());
            if (groups[i]) {
              REQUIRE(went);
              REQUIRE(sent[i].done);
              REQUIRE_FALSE(sent[i].error);
            }
          }
          REQUIRE(rest.empty());
          REQUIRE(sink.outbox.pending() == 0);
          Sent after;
          TaskGroup group;
          group.spawn(wait_for(after, send(sink, "after")));
          REQUIRE(after.done);
        }
      }
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("once those who waited are dropped, a send below the high mark goes at once again") {
  VirtualLoop loop;
  Sink sink({.high = 100, .low = 10});
  std::vector<Sent> waited(2);
  {
    TaskGroup group;
    group.spawn(wait_for(waited[0], send(sink, message('a', 150))));
    group.spawn(wait_for(waited[1], send(sink, message('b', 20))));
  }
  CHECK_FALSE(waited[0].done);
  sink.go(80);
  CHECK(sink.outbox.pending() == 70);  // between the marks
  Sent sent;
  TaskGroup group;
  group.spawn(wait_for(sent, send(sink, "c")));
  CHECK(sent.done);
  sink.go_all();
  CHECK(sink.wire == message('a', 150) + "c");
}

TEST_CASE("a send below the high mark goes behind those who wait already") {
  VirtualLoop loop;
  Sink sink({.high = 100, .low = 10});
  std::vector<Sent> sent(3);
  TaskGroup group;
  group.spawn(wait_for(sent[0], send(sink, message('a', 150))));
  group.spawn(wait_for(sent[1], send(sink, message('b', 20))));
  sink.go(80);
  CHECK(sink.outbox.pending() == 70);  // between the marks: nobody is let in
  group.spawn(wait_for(sent[2], send(sink, "c")));
  CHECK_FALSE(sent[2].done);
  CHECK(sink.outbox.pending() == 70);
  sink.go_all();
  loop.settle();
  CHECK(sent[2].done);
  CHECK(sink.wire == message('a', 150) + message('b', 20) + "c");
}

TEST_CASE("a failure is told once to the sending side, whoever is dropped before it resumes") {
  VirtualLoop loop;
  constexpr unsigned kWaiting = 3;  // a send that was accepted, one that was not, a flush
  for (unsigned dropped = 0; dropped < 1U << kWaiting; ++dropped) {
    for (const bool reversed : {false, true}) {
      CAPTURE(dropped);
      Sink sink({.high = 100, .low = 0});
      std::array<Sent, kWaiting> sent;
      std::array<std::optional<TaskGroup>, kWaiting> groups;
      groups[0].emplace().spawn(wait_for(sent[0], send(sink, message('a', 200))));
      groups[1].emplace().spawn(wait_for(sent[1], send(sink, message('b', 1))));
      groups[2].emplace().spawn(wait_for(sent[2], FlushAwaiter(&sink.outbox, false)));
      sink.outbox.fail(ECONNRESET);
      for (unsigned i = 0; i < kWaiting; ++i) {
        const unsigned index = reversed ? kWaiting - 1 - i : i;
        if ((dropped >> index & 1U) != 0) groups[index].reset();
      }
      loop.settle();
      bool told = false;
      for (unsigned i = 0; i < kWaiting; ++i) {
        if ((dropped >> i & 1U) != 0) continue;
        REQUIRE(sent[i].error == std::errc::connection_reset);
        told = true;
      }
      for (const bool flush : {false, true}) {
        Sent next;
        TaskGroup group;
        if (flush) {
          group.spawn(wait_for(next, FlushAwaiter(&sink.outbox, false)));
        } else {
          group.spawn(wait_for(next, send(sink, "next")));
        }
        REQUIRE(next.done);
        REQUIRE(next.error == (told ? std::errc::broken_pipe : std::errc::connection_reset));
        told = true;
      }
    }
  }
}

TEST_CASE("an outbox may go while those who hear of its failure are about to resume") {
  VirtualLoop loop;
  Sent send_end;
  Sent flush_end;
  TaskGroup group;
  {
    Sink sink({.high = 100, .low = 0});
    group.spawn(wait_for(send_end, send(sink, message('a', 200))));
    group.spawn(wait_for(flush_end, FlushAwaiter(&sink.outbox, false)));
    sink.outbox.fail(EIO);
  }
  loop.settle();
  CHECK(send_end.error == std::errc::io_error);
  CHECK(flush_end.error == std::errc::io_error);
}

TEST_CASE("the end follows what was queued and who waited, and nothing is accepted after it") {
  VirtualLoop loop;
  for (const bool dropped : {false, true}) {
    Sink sink({.high = 100, .low = 0});
    Sent first;
    Sent waiting;
    Sent end;
    Sent late;
    TaskGroup group;
    std::optional<TaskGroup> waiter(std::in_place);
    group.spawn(wait_for(first, send(sink, message('a', 150))));
    waiter->spawn(wait_for(waiting, send(sink, message('b', 150))));
    group.spawn(wait_for(end, FlushAwaiter(&sink.outbox, true)));
    group.spawn(wait_for(late, send(sink, "late")));
    CHECK(late.error == std::errc::broken_pipe);
    if (dropped) waiter.reset();
    for (int i = 0; i < 20; ++i) {
      CHECK_FALSE(end.done);
      sink.go(30);
      loop.settle();
      if (end.done) break;
    }
    CHECK(sink.ended);
    CHECK(end.done);
    CHECK_FALSE(end.error);
    CHECK(sink.wire == message('a', 150) + (dropped ? "" : message('b', 150)));
  }
}

TEST_CASE("an end with nothing queued is told at once, and a close ends who waits") {
  VirtualLoop loop;
  Sink empty;
  Sent end;
  TaskGroup group;
  group.spawn(wait_for(end, FlushAwaiter(&empty.outbox, true)));
  CHECK(empty.finished);
  empty.outbox.ended();
  loop.settle();
  CHECK(end.done);

  Sink sink({.high = 100, .low = 0});
  Sent accepted;
  Sent waiting;
  Sent flush;
  group.spawn(wait_for(accepted, send(sink, message('a', 200))));
  group.spawn(wait_for(waiting, send(sink, message('b', 10))));
  group.spawn(wait_for(flush, FlushAwaiter(&sink.outbox, false)));
  sink.outbox.close();
  loop.settle();
  CHECK(accepted.error == errc::closed_here);
  CHECK(waiting.error == errc::closed_here);
  CHECK(flush.error == errc::closed_here);
  sink.go_all();
  CHECK(sink.wire == message('a', 200));  // what was accepted goes, the other does not
  CHECK(sink.finished);
}

TEST_CASE("stalled rounds count while something is to go and nothing goes") {
  VirtualLoop loop;
  Sink sink;
  Sent sent;
  TaskGroup group;
  for (int i = 0; i < 5; ++i) CHECK(sink.outbox.rounds().stalled(sink.outbox.pending() > 0) == 0);
  group.spawn(wait_for(sent, send(sink, "stalls")));
  for (unsigned i = 0; i < 5; ++i)
    CHECK(sink.outbox.rounds().stalled(sink.outbox.pending() > 0) == i);
  sink.go(1);
  for (unsigned i = 0; i < 5; ++i)
    CHECK(sink.outbox.rounds().stalled(sink.outbox.pending() > 0) == i);
  sink.go_all();
  CHECK(sink.outbox.rounds().stalled(sink.outbox.pending() > 0) == 0);
}
