#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/async_generator.h>
#include <weir/coro/timeout.h>

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "../support/tracer.h"
#include "../support/virtual_loop.h"

using namespace weir;
using namespace std::chrono_literals;
using test::Tracer;
using test::VirtualLoop;

namespace {

AsyncGenerator<int> count_to(int last) {
  for (int i = 1; i <= last; ++i) co_yield i;
}

AsyncGenerator<int> tick(Duration period) {
  for (int i = 1;; ++i) {
    co_await sleep(period);
    co_yield i;
  }
}

Task<std::vector<int>> collect(AsyncGenerator<int> generator, std::size_t most) {
  std::vector<int> items;
  while (auto item = co_await generator.next()) {
    items.push_back(*item);
    if (items.size() == most) break;
  }
  co_return items;
}

}  // namespace

TEST_CASE("a generator gives its values in order, then nothing for ever") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    auto generator = count_to(3);
    for (int i = 1; i <= 3; ++i) CHECK(co_await generator.next() == i);
    CHECK(co_await generator.next() == std::nullopt);
    CHECK(co_await generator.next() == std::nullopt);
    AsyncGenerator<int> empty;
    CHECK(co_await empty.next() == std::nullopt);
  };
  loop.run(body());
}

TEST_CASE("a generator may await between its values") {
  VirtualLoop loop;
  const TimePoint start = loop.now();
  CHECK(loop.run(collect(tick(1s), 3)) == std::vector<int>{1, 2, 3});
  CHECK(loop.now() - start >= 3s);
}

TEST_CASE("a generator of what can only be moved") {
  VirtualLoop loop;
  const auto make = []() -> AsyncGenerator<std::unique_ptr<int>> {
    co_yield std::make_unique<int>(1);
    co_await yield();
    co_yield std::make_unique<int>(2);
  };
  const auto body = [&]() -> Task<int> {
    int sum = 0;
    auto generator = make();
    while (auto item = co_await generator.next()) sum += **item;
    co_return sum;
  };
  CHECK(loop.run(body()) == 3);
}

TEST_CASE("an exception in a generator goes to its next, once") {
  VirtualLoop loop;
  const auto make = [](bool suspend) -> AsyncGenerator<int> {
    co_yield 1;
    if (suspend) co_await yield();
    throw std::runtime_error("mid-way");
  };
  const auto body = [&](bool suspend) -> Task<> {
    auto generator = make(suspend);
    CHECK(co_await generator.next() == 1);
    CHECK_THROWS_WITH(co_await generator.next(), "mid-way");
    CHECK(co_await generator.next() == std::nullopt);
  };
  loop.run(body(false));
  loop.run(body(true));
}

TEST_CASE("a dropped next leaves the generator where it is, and loses no value") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    auto generator = tick(10s);
    for (int i = 1; i <= 5; ++i) {
      int tries = 0;
      for (bool got = false; !got; ++tries) {
        auto [error, item] = co_await as_tuple(timeout(3s, generator.next()));
        got = !error;
        if (got) CHECK(item == i);
      }
      CHECK(tries == 4);
    }
  };
  loop.run(body());
}

TEST_CASE("a value that came after its next was dropped goes to the following one") {
  VirtualLoop loop;
  auto generator = tick(1s);
  const auto take = [&]() -> Task<int> { co_return (co_await generator.next()).value(); };
  {
    TaskGroup group;
    group.spawn(take());
  }
  loop.advance(10s);
  CHECK(loop.run(take()) == 1);
  CHECK(loop.run(take()) == 2);
}

TEST_CASE("a generator outlives the task that awaited it first") {
  VirtualLoop loop;
  Tracer::Counts counts;
  // Its body makes a group after the first task, and that task's scope, are gone.
  const auto make = [&]() -> AsyncGenerator<int> {
    co_await sleep(1s);
    TaskGroup group;
    const auto child = [&](Tracer) -> Task<> {
      co_await yield();
      group.cancel();
      co_await yield();
      counts.made = -1000;
    };
    group.spawn(child(Tracer(counts)));
    co_await group.join();
    co_yield 1;
  };
  auto generator = make();
  const auto take = [&]() -> Task<int> { co_return (co_await generator.next()).value(); };
  {
    TaskGroup group;
    group.spawn(take());
    group.cancel();
  }
  loop.advance(2s);
  CHECK(loop.run(take()) == 1);
  CHECK(counts.alive() == 0);
}

TEST_CASE("a task that awaits a generator goes on in its own scope") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup group;
  int step = 0;
  const auto cancel_own = [&](Tracer) -> Task<> {
    {
      auto generator = tick(1s);
      (void)co_await generator.next();
    }
    group.cancel();
    step = 1;
    co_await yield();
    step = 2;
  };
  group.spawn(cancel_own(Tracer(counts)));
  loop.advance(2s);
  CHECK(step == 1);
  CHECK(counts.alive() == 0);
}

TEST_CASE("a generator's body may cancel the group of whoever awaits it") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup group;
  int step = 0;
  const auto make = [&](bool suspend) -> AsyncGenerator<int> {
    if (suspend) co_await yield();
    group.cancel();
    step = 1;
    co_yield 1;
  };
  const auto take = [&](Tracer, bool suspend) -> Task<> {
    auto generator = make(suspend);
    (void)co_await generator.next();
    co_await yield();
    step = 2;
  };
  group.spawn(take(Tracer(counts), false));
  loop.settle();
  CHECK(step == 1);
  CHECK(counts.alive() == 0);
  step = 0;
  group.spawn(take(Tracer(counts), true));
  loop.settle();
  CHECK(step == 1);
  CHECK(counts.alive() == 0);
}

TEST_CASE("destroying a generator midway drops what it holds and waits for") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto make = [&]() -> AsyncGenerator<int> {
    const Tracer tracer(counts);
    for (;;) {
      co_yield 1;
      co_await sleep(1s);
    }
  };
  const auto body = [&]() -> Task<> {
    auto generator = make();
    (void)co_await generator.next();
    (void)co_await generator.next();
    CHECK(counts.alive() == 1);
    generator.reset();
    CHECK(counts.alive() == 0);
    auto never_started = make();
  };
  loop.run(body());
  CHECK(counts.made == 1);
}

TEST_CASE("destroying a generator ends the next that waits for it") {
  VirtualLoop loop;
  std::optional<AsyncGenerator<int>> generator = tick(1h);
  std::optional<bool> got;
  const auto take = [&]() -> Task<> { got = (co_await generator->next()).has_value(); };
  TaskGroup group;
  group.spawn(take());
  generator.reset();
  loop.settle();
  CHECK(got == false);
}

TEST_CASE("a generator has one next at a time") {
  VirtualLoop loop;
  auto generator = tick(1s);
  const auto take = [&]() -> Task<> { (void)co_await generator.next(); };
  TaskGroup group;
  group.spawn(take());
  CHECK_THROWS_AS(loop.run(take()), std::logic_error);
}

TEST_CASE("a million values at once do not deepen the stack") {
  VirtualLoop loop;
  const auto body = []() -> Task<long> {
    long sum = 0;
    auto generator = count_to(1'000'000);
    while (auto item = co_await generator.next()) sum += *item;
    co_return sum;
  };
  CHECK(loop.run(body()) == 500'000'500'000);
}
