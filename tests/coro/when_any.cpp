#include <weir/core/sleep.h>
#include <weir/coro/event.h>
#include <weir/coro/frame_allocator.h>
#include <weir/coro/task_group.h>
#include <weir/coro/when_all.h>
#include <weir/coro/when_any.h>

#include <doctest/doctest.h>

#include <chrono>
#include <coroutine>
#include <stdexcept>
#include <string>
#include <variant>

#include "../support/tracer.h"
#include "../support/virtual_loop.h"

using namespace weir;
using namespace std::chrono_literals;
using test::Tracer;
using test::VirtualLoop;

namespace {

Task<int> number_after(Duration delay, int value) {
  co_await sleep(delay);
  co_return value;
}

Task<std::string> text_after(Duration delay, std::string value) {
  co_await sleep(delay);
  co_return value;
}

Task<> hold(Tracer) { co_await sleep(1h); }

/// Resumes whoever waits in the call that sets it, as an awaiter of a program's own may.
struct AtOnce {
  struct Awaiter {
    AtOnce* of;
    static bool await_ready() noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const noexcept { of->waiting = handle; }
    static void await_resume() noexcept {}
  };
  Awaiter wait() noexcept { return Awaiter{this}; }
  void set() const {
    if (waiting) waiting.resume();
  }
  std::coroutine_handle<> waiting;
};

/// A coroutine of a program's own, which lets exceptions out to whoever resumes it.
class LetsOut {
 public:
  struct promise_type {
    LetsOut get_return_object() noexcept {
      return LetsOut(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    static std::suspend_never initial_suspend() noexcept { return {}; }
    static std::suspend_always final_suspend() noexcept { return {}; }
    static void return_void() noexcept {}
    static void unhandled_exception() { throw; }
  };

  explicit LetsOut(std::coroutine_handle<> handle) noexcept : handle_(handle) {}
  LetsOut(const LetsOut&) = delete;
  LetsOut& operator=(const LetsOut&) = delete;
  ~LetsOut() { handle_.destroy(); }  // where it threw it is at its end, but there

 private:
  std::coroutine_handle<> handle_;
};

LetsOut throw_after(AtOnce& one) {
  co_await when_any(one.wait(), std::suspend_always());
  throw std::runtime_error("let out");
}

/// Its awaiter is a part of it, and is awaited there.
struct AwaitedInside {
  struct Awaiter {
    Awaiter() = default;
    Awaiter(const Awaiter&) = delete;
    Awaiter& operator=(const Awaiter&) = delete;
    static bool await_ready() noexcept { return true; }
    static void await_suspend(std::coroutine_handle<>) noexcept {}
    int await_resume() const noexcept { return number; }
    int number = 0;
  };
  explicit AwaitedInside(int number) noexcept { awaiter.number = number; }
  AwaitedInside(AwaitedInside&& other) noexcept { awaiter.number = other.awaiter.number; }
  Awaiter& operator co_await() && noexcept { return awaiter; }
  Awaiter awaiter;
};

struct SetsAtEnd {
  AtOnce* of;
  ~SetsAtEnd() { of->set(); }
};

Task<> hold_and_set(AtOnce& at_end) {
  const SetsAtEnd sets{&at_end};
  co_await sleep(1h);
}

Task<> wait_for(AtOnce& one) { co_await one.wait(); }

}  // namespace

TEST_CASE("when_any gives the result of the first to finish, and its index") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    auto winner = co_await when_any(number_after(3s, 1), text_after(1s, "quick"), sleep(2s));
    CHECK(winner.index() == 1);
    CHECK(std::get<1>(winner) == "quick");
    winner = co_await when_any(number_after(3s, 1), text_after(3s, "tie"), sleep(2s));
    CHECK(winner.index() == 2);
    winner = co_await when_any(number_after(3s, 1), text_after(3s, "tie"), sleep(3s));
    CHECK(winner.index() == 0);  // all at the same time: in order
  };
  loop.run(body());
}

TEST_CASE("when_any of two operands of one type tells them apart") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    const auto winner = co_await when_any(number_after(2s, 1), number_after(1s, 2));
    CHECK(winner.index() == 1);
    CHECK(std::get<1>(winner) == 2);
  };
  loop.run(body());
}

TEST_CASE("the losers of a when_any are gone when its awaiter goes on") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<> {
    const auto winner = co_await when_any(hold(Tracer(counts)), sleep(1ms), hold(Tracer(counts)));
    CHECK(winner.index() == 1);
    CHECK(counts.alive() == 0);
  };
  loop.run(body());
  CHECK(counts.made > 0);
}

TEST_CASE("an operand that finishes at once wins, and those behind it never start") {
  VirtualLoop loop;
  int started = 0;
  Tracer::Counts counts;
  const auto start = [&](Tracer) -> Task<int> {
    ++started;
    co_return 5;
  };
  const auto body = [&]() -> Task<> {
    const auto winner = co_await when_any(sleep(1s), start(Tracer(counts)), start(Tracer(counts)));
    CHECK(winner.index() == 1);
    CHECK(started == 1);
  };
  loop.run(body());
  CHECK(counts.alive() == 0);
}

TEST_CASE("when_any throws what its winner threw, after dropping the losers") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto fail = []() -> Task<> {
    co_await sleep(1s);
    throw std::runtime_error("first");
  };
  const auto body = [&]() -> Task<> {
    bool thrown = false;
    try {
      co_await when_any(hold(Tracer(counts)), fail());
    } catch (const std::runtime_error&) {
      thrown = true;
      CHECK(counts.alive() == 0);
    }
    CHECK(thrown);
  };
  loop.run(body());
}

TEST_CASE("the exception of a loser is not seen") {
  VirtualLoop loop;
  const auto fail = []() -> Task<> {
    co_await sleep(1s);
    throw std::runtime_error("too late");
  };
  const auto body = [&]() -> Task<> {
    const auto winner = co_await when_any(fail(), sleep(1ms));
    CHECK(winner.index() == 1);
    co_await sleep(2s);
  };
  loop.run(body());
  CHECK(loop.reported().empty());
}

TEST_CASE("dropping a when_any drops all its operands, also when one has won already") {
  VirtualLoop loop;
  Tracer::Counts counts;
  Event event;
  bool went_on = false;
  const auto body = [&]() -> Task<> {
    co_await when_any(hold(Tracer(counts)), event.wait());
    went_on = true;
  };
  TaskGroup group;
  group.spawn(body());
  CHECK(counts.alive() > 0);
  group.cancel();
  CHECK(counts.alive() == 0);
  group.spawn(body());
  event.set();  // woken, not resumed
  group.cancel();
  CHECK(counts.alive() == 0);
  loop.settle();
  CHECK_FALSE(went_on);
}

TEST_CASE("two operands that become ready in one turn: the later one loses nothing but the race") {
  VirtualLoop loop;
  Event first;
  Event second;
  const auto body = [&]() -> Task<std::size_t> {
    const auto winner = co_await when_any(first.wait(), second.wait());
    co_return winner.index();
  };
  const auto set_both = [&]() -> Task<> {
    second.set();
    first.set();
    co_return;
  };
  const auto both = [&]() -> Task<std::size_t> {
    TaskGroup group;
    const auto later = [&]() -> Task<> {
      co_await yield();
      co_await set_both();
    };
    group.spawn(later());
    co_return co_await body();
  };
  CHECK(loop.run(both()) == 1);
}

TEST_CASE("a long loop of when_any leaves no frames and no stack behind") {
  VirtualLoop loop;
  const auto forever = []() -> Task<> { co_await sleep(1h); };
  const auto body = [&]() -> Task<> {
    for (int i = 0; i < 100'000; ++i) {
      const auto suspended = co_await when_any(forever(), yield());
      CHECK_MESSAGE(suspended.index() == 1, i);
      const auto at_once = co_await when_any(sleep(0s), forever());
      CHECK_MESSAGE(at_once.index() == 0, i);
    }
  };
  loop.run(body());
}

TEST_CASE("when_any nests, and its operands may be any awaitable") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    const auto winner = co_await when_any(when_any(sleep(3s), sleep(2s)),
                                          when_any(sleep(5s), when_any(sleep(1s), sleep(9s))));
    CHECK(winner.index() == 1);
    CHECK(std::get<1>(winner).index() == 1);
  };
  loop.run(body());
}

TEST_CASE("when_any and when_all over leaves make no frame") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    const auto before = detail::live_frames();
    TaskGroup group;
    std::int64_t during = -1;
    const auto observe = [&]() -> Task<> {
      co_await yield();
      during = detail::live_frames();
    };
    group.spawn(observe());
    const auto own = detail::live_frames() - before;
    auto first = co_await when_any(sleep(1h), sleep(1ms));
    CHECK(first.index() == 1);
    CHECK(during == before + own);
    group.spawn(observe());
    auto both = co_await when_all(sleep(1ms), sleep(2ms));
    (void)both;
    CHECK(during == before + own);
  };
  loop.run(body());
}

TEST_CASE("an operand of when_any that finishes as another is dropped resumes nobody again") {
  VirtualLoop loop;
  AtOnce other;
  int resumed = 0;
  const auto body = [&]() -> Task<> {
    const auto winner = co_await when_any(hold_and_set(other), wait_for(other), sleep(1s));
    ++resumed;
    CHECK(winner.index() == 2);
  };
  loop.run(body());
  CHECK(resumed == 1);
}

TEST_CASE("what an awaiter of when_any lets out reaches whoever resumed the operand") {
  AtOnce one;
  const LetsOut throwing = throw_after(one);
  CHECK_THROWS_WITH(one.set(), "let out");
}

TEST_CASE("an operand whose operator co_await gives a reference is awaited where that is") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    const auto winner = co_await when_any(AwaitedInside(7), sleep(1s));
    CHECK(std::get<0>(winner) == 7);
  };
  loop.run(body());
}
