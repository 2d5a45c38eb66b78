#include <weir/core/rate_limiter.h>
#include <weir/core/sleep.h>
#include <weir/coro/task_group.h>

#include <doctest/doctest.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "../support/virtual_loop.h"

using namespace weir;
using namespace weir::test;
using namespace std::chrono_literals;

namespace {

Task<> take(RateLimiter& limiter, double tokens, std::string& order, char name) {
  co_await limiter.acquire(tokens);
  order += name;
}

}  // namespace

TEST_CASE("a rate limiter begins full, and then lets through so many in a second") {
  VirtualLoop loop;
  RateLimiter limiter(10, 5);
  const auto all = [&]() -> Task<> {
    const TimePoint begun = loop.now();
    for (int i = 0; i < 5; ++i) co_await limiter.acquire();
    CHECK(loop.now() == begun);
    for (int i = 1; i <= 20; ++i) {
      co_await limiter.acquire();
      const auto passed = loop.now() - begun;
      CHECK(passed >= i * 100ms);
      CHECK(passed < i * 100ms + 1ms);
    }
  };
  loop.run(all());
  CHECK(limiter.available() < 0.1);
  loop.advance(1h);
  CHECK(limiter.available() == 5);
}

TEST_CASE("who waits at a rate limiter is served in turn, a large one before small ones") {
  VirtualLoop loop;
  RateLimiter limiter(100, 10);
  std::string order;
  TaskGroup group(loop);
  CHECK(limiter.try_acquire(10));
  CHECK_FALSE(limiter.try_acquire());
  group.spawn(take(limiter, 10, order, 'a'));
  group.spawn(take(limiter, 1, order, 'b'));
  group.spawn(take(limiter, 1, order, 'c'));
  loop.advance(50ms);
  CHECK(order.empty());
  CHECK_FALSE(limiter.try_acquire());  // five are there, for the one that waits
  loop.advance(51ms);
  CHECK(order == "a");
  loop.advance(10ms);
  CHECK(order == "ab");
  loop.advance(10ms);
  CHECK(order == "abc");
}

TEST_CASE("more than the bucket holds waits until it is full, and the next for what is missing") {
  VirtualLoop loop;
  RateLimiter limiter(100, 10);
  std::string order;
  TaskGroup group(loop);
  group.spawn(take(limiter, 110, order, 'a'));
  group.spawn(take(limiter, 1, order, 'b'));
  loop.advance(1ms);
  CHECK(order == "a");
  CHECK(limiter.available() < -99);
  loop.advance(1000ms);
  CHECK(order == "a");
  loop.advance(10ms);
  CHECK(order == "ab");
}

TEST_CASE("who is dropped at a rate limiter takes nothing, and does not hold up the next") {
  VirtualLoop loop;
  RateLimiter limiter(100, 10);
  std::string order;
  std::optional<TaskGroup> dropped(std::in_place, loop);
  TaskGroup group(loop);
  CHECK(limiter.try_acquire(10));
  dropped->spawn(take(limiter, 10, order, 'a'));
  group.spawn(take(limiter, 1, order, 'b'));
  loop.advance(20ms);
  CHECK(order.empty());
  dropped.reset();  // while it waits
  loop.settle();
  CHECK(order == "b");
  CHECK(limiter.available() == doctest::Approx(1).epsilon(0.01));
  // When it has been granted and has not resumed yet.
  loop.advance(1s);
  CHECK(limiter.try_acquire(10));
  dropped.emplace(loop);
  dropped->spawn(take(limiter, 5, order, 'c'));
  const auto drop_in_time = [&]() -> Task<> {
    co_await sleep(50ms);  // its timer fires in the same turn, before or after
    dropped.reset();
  };
  group.spawn(drop_in_time());
  loop.advance(60ms);
  CHECK(limiter.available() + (order == "bc" ? 5 : 0) == doctest::Approx(6).epsilon(0.01));
}

TEST_CASE("a rate limiter may go while somebody has been granted what he asked for") {
  VirtualLoop loop;
  std::optional<RateLimiter> limiter(std::in_place, 100, 1);
  std::string order;
  TaskGroup group(loop);
  CHECK(limiter->try_acquire());
  group.spawn(take(*limiter, 1, order, 'a'));
  const auto end = [&]() -> Task<> {
    co_await sleep(10ms);
    limiter.reset();
  };
  group.spawn(end());
  loop.advance(1s);
  CHECK(order.size() <= 1);
}

TEST_CASE("a rate limiter without a rate or a bucket throws") {
  CHECK_THROWS_WITH_AS(RateLimiter(0, 1), doctest::Contains("rate is 0"), std::invalid_argument);
  CHECK_THROWS_WITH_AS(RateLimiter(1, -1), doctest::Contains("burst"), std::invalid_argument);
  VirtualLoop loop;
  RateLimiter limiter(1, 1);
  CHECK_THROWS_AS((void)limiter.acquire(-1), std::invalid_argument);
  CHECK_THROWS_AS((void)limiter.try_acquire(-1), std::invalid_argument);
}
