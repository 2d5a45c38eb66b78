#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/event.h>
#include <weir/coro/frame_allocator.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_any.h>

#include <doctest/doctest.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>

#include "../support/tracer.h"
#include "../support/virtual_loop.h"

using namespace weir;
using namespace weir::detail;
using namespace std::chrono_literals;
using test::Tracer;
using test::VirtualLoop;

namespace {

Task<int> number_after(Duration delay, int value) {
  co_await sleep(delay);
  co_return value;
}

Task<> hold(Tracer) { co_await sleep(1h); }

Task<int> fail_with(std::errc error) {
  co_await yield();
  throw std::system_error(std::make_error_code(error));
}

Task<std::error_code> error_of(Task<> task) {
  std::error_code code;
  try {
    co_await std::move(task);
  } catch (const std::system_error& error) {
    code = error.code();
  }
  co_return code;
}

}  // namespace

TEST_CASE("a timeout gives the result of what finishes in time") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    CHECK(co_await timeout(2s, number_after(1s, 5)) == 5);
    co_await timeout(2s, sleep(1s));
    int variable = 0;
    const auto refer = [&]() -> Task<int&> { co_return variable; };
    int& same = co_await timeout(1s, refer());
    CHECK(&same == &variable);
  };
  loop.run(body());
}

TEST_CASE("a timeout throws timed_out, at its time, after dropping what it awaited") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<> {
    std::error_code code;
    try {
      co_await timeout(3s, hold(Tracer(counts)));
    } catch (const std::system_error& error) {
      code = error.code();
      CHECK(counts.alive() == 0);
    }
    CHECK(code == std::errc::timed_out);
  };
  const TimePoint start = loop.now();
  loop.run(body());
  CHECK(loop.now() - start >= 3s);
  CHECK(loop.now() - start < 4s);
}

TEST_CASE("a timeout over a leaf makes no frame") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    const auto before = live_frames();
    const auto observe = [before](std::int64_t now) { CHECK(now == before); };
    auto waiting = timeout(1ms, sleep(1h));
    observe(live_frames());
    CHECK_THROWS_AS(co_await std::move(waiting), std::system_error);
  };
  loop.run(body());
}

TEST_CASE("a timeout passes on what was thrown") {
  VirtualLoop loop;
  const auto fail = []() -> Task<> {
    co_await yield();
    throw std::runtime_error("mine");
  };
  const auto body = [&]() -> Task<> { CHECK_THROWS_WITH(co_await timeout(1s, fail()), "mine"); };
  loop.run(body());
}

TEST_CASE("dropping a timeout drops what it awaits, before its time and at it") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<> { co_await timeout(1s, hold(Tracer(counts))); };
  TaskGroup group;
  group.spawn(body());
  CHECK(counts.alive() > 0);
  group.cancel();
  CHECK(counts.alive() == 0);
  loop.advance(2s);
}

TEST_CASE("a timeout of zero or less gives what is there at once, else times out") {
  VirtualLoop loop;
  const auto at_once = []() -> Task<int> { co_return 5; };
  const auto late = [](Duration delay) -> Task<> { co_await timeout(delay, sleep(1s)); };
  const auto body = [&]() -> Task<> {
    CHECK(co_await timeout(0s, at_once()) == 5);
    CHECK(co_await timeout(-1h, at_once()) == 5);
    CHECK(co_await error_of(late(0s)) == std::errc::timed_out);
    CHECK(co_await error_of(late(-1s)) == std::errc::timed_out);
    CHECK(co_await error_of(late(Duration::min())) == std::errc::timed_out);
  };
  loop.run(body());
}

TEST_CASE("a timeout beyond the clock's range never fires") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    co_await timeout(Duration::max(), sleep(24h));
    co_await timeout(std::chrono::hours::max(), sleep(24h));
    co_await timeout(std::chrono::duration<double>(1e300), sleep(24h));
  };
  loop.run(body());
}

TEST_CASE("the inner of two timeouts wins where it is the shorter, and the outer else") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    const auto short_inside = [](bool& outer) -> Task<> {
      try {
        co_await timeout(2s, timeout(1s, sleep(1h)));
      } catch (const std::system_error&) {
        outer = Scheduler::current().now() >= TimePoint(1h + 2s);
      }
    };
    bool outer = true;
    co_await short_inside(outer);
    CHECK_FALSE(outer);
    const TimePoint start = Scheduler::current().now();
    auto [error, none] = co_await as_tuple(timeout(1s, timeout(2s, sleep(1h))));
    CHECK(error == std::errc::timed_out);
    CHECK(Scheduler::current().now() - start < 2s);
    // Both at the same time.
    auto [tie, nothing] = co_await as_tuple(timeout(1s, timeout(1s, sleep(1h))));
    CHECK(tie == std::errc::timed_out);
  };
  loop.run(body());
}

TEST_CASE("what finishes at the very time of the timeout is resumed once") {
  VirtualLoop loop;
  Event event;
  const auto body = [&]() -> Task<int> {
    int finished = 0;
    for (int i = 0; i < 100; ++i) {
      auto [error, none] = co_await as_tuple(timeout(1s, sleep(1s)));
      if (!error) ++finished;
    }
    co_return finished;
  };
  CHECK(loop.run(body()) == 100);  // and its result counts, with the deadline behind it
}

TEST_CASE("as_tuple gives the value, or the error of a system_error") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    auto [none, value] = co_await as_tuple(number_after(1s, 5));
    CHECK_FALSE(none);
    CHECK(value == 5);
    auto [error, zero] = co_await as_tuple(fail_with(std::errc::broken_pipe));
    CHECK(error == std::errc::broken_pipe);
    CHECK(zero == 0);
    const Outcome<void> outcome = co_await as_tuple(sleep(1s));
    CHECK_FALSE(outcome.error);
  };
  loop.run(body());
}

TEST_CASE("as_tuple and when_any take references, and values without a default") {
  struct NoDefault {
    explicit NoDefault(int n) : number(n) {}
    int number;
  };
  VirtualLoop loop;
  int object = 7;
  const auto body = [&]() -> Task<> {
    const auto refer = [&]() -> Task<int&> { co_return object; };
    const auto make = []() -> Task<NoDefault> { co_return NoDefault(3); };
    const auto fail = []() -> Task<NoDefault> {
      throw std::system_error(std::make_error_code(std::errc::io_error));
      co_return NoDefault(0);
    };
    auto [error, reference] = co_await as_tuple(timeout(1s, refer()));
    CHECK_FALSE(error);
    CHECK(&reference.get() == &object);
    auto [none, made] = co_await as_tuple(make());
    REQUIRE(made.has_value());
    CHECK(made->number == 3);
    auto [failure, missing] = co_await as_tuple(timeout(1s, fail()));
    CHECK(failure == std::errc::io_error);
    CHECK_FALSE(missing.has_value());
    auto first = co_await when_any(refer(), sleep(1s));
    REQUIRE(first.index() == 0);
    int& same = std::get<0>(first);
    CHECK(&same == &object);
    auto winner = co_await when_any(make(), sleep(1s));
    CHECK(std::get<0>(winner).number == 3);
  };
  loop.run(body());
}

TEST_CASE("as_tuple lets every other exception pass") {
  VirtualLoop loop;
  const auto fail = []() -> Task<> {
    co_await yield();
    throw std::logic_error("a bug");
  };
  const auto body = [&]() -> Task<> {
    CHECK_THROWS_AS((void)co_await as_tuple(fail()), std::logic_error);
  };
  loop.run(body());
}

TEST_CASE("as_tuple and timeout nest both ways") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    auto [late, none] = co_await as_tuple(timeout(1s, number_after(1h, 5)));
    CHECK(late == std::errc::timed_out);
    auto [in_time, value] = co_await as_tuple(timeout(2s, number_after(1s, 5)));
    CHECK_FALSE(in_time);
    CHECK(value == 5);
    auto [inner, zero] = co_await timeout(1s, as_tuple(fail_with(std::errc::broken_pipe)));
    CHECK(inner == std::errc::broken_pipe);
    CHECK_THROWS_AS((void)co_await timeout(1s, as_tuple(sleep(1h))), std::system_error);
    auto [code, outcome] = co_await as_tuple(timeout(1s, as_tuple(number_after(1ms, 6))));
    CHECK_FALSE(code);
    CHECK(outcome.value == 6);
  };
  loop.run(body());
}

TEST_CASE("dropping an as_tuple drops what it awaits") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<> { (void)co_await as_tuple(hold(Tracer(counts))); };
  TaskGroup group;
  group.spawn(body());
  group.cancel();
  CHECK(counts.made > 0);
  CHECK(counts.alive() == 0);
}
