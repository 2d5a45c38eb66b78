// Trees of tasks, dropped at every moment of their lives.
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/async_generator.h>
#include <weir/coro/channel.h>
#include <weir/coro/mutex.h>
#include <weir/coro/semaphore.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_all.h>
#include <weir/coro/when_any.h>

#include <doctest/doctest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <system_error>
#include <utility>

#include "../support/drop_at.h"
#include "../support/tracer.h"

using namespace weir;
using namespace std::chrono_literals;
using test::Tracer;

namespace {

/// A scenario of one task; every tracer must be gone once it is dropped.
struct Tree {
  explicit Tree(std::function<Task<>(Tracer)> function) : make(std::move(function)) {}

  Task<> task() { return make(Tracer(*counts)); }
  Task<> afterwards(bool) {
    CHECK(counts->made > 0);
    CHECK(counts->alive() == 0);
    co_return;
  }

  std::function<Task<>(Tracer)> make;
  std::unique_ptr<Tracer::Counts> counts = std::make_unique<Tracer::Counts>();
};

std::size_t moments_of(Task<> (*tree)(Tracer)) {
  return test::drop_at_every_moment([tree] { return Tree(tree); });
}

Task<int> leaf(Tracer, int turns) {
  for (int i = 0; i < turns; ++i) co_await yield();
  co_return turns;
}

Task<> nested_sleep(Tracer tracer) {
  co_await leaf(tracer, 1);
  co_await sleep(1h);
}

Task<> sleeps(Tracer) {
  for (int i = 0; i < 3; ++i) co_await sleep(20us);
  co_await yield();
}

Task<> timeouts(Tracer tracer) {
  (void)co_await as_tuple(timeout(1us, sleep(1h)));
  co_await timeout(1h, leaf(tracer, 2));
  (void)co_await as_tuple(timeout(1us, timeout(1us, nested_sleep(tracer))));
  bool timed_out = false;
  try {
    co_await timeout(1us, nested_sleep(tracer));
  } catch (const std::system_error&) {
    timed_out = true;
  }
  CHECK(timed_out);
}

Task<> when_anys(Tracer tracer) {
  co_await when_any(leaf(tracer, 2), leaf(tracer, 2), sleep(1h));
  co_await when_any(when_any(leaf(tracer, 3), leaf(tracer, 4)), leaf(tracer, 2));
  co_await when_any(leaf(tracer, 0), leaf(tracer, 1));
}

Task<> when_alls(Tracer tracer) {
  co_await when_all(leaf(tracer, 1), leaf(tracer, 2), leaf(tracer, 3));
  const auto fail = [](Tracer) -> Task<> {
    co_await yield();
    throw std::runtime_error("part of the plan");
  };
  bool failed = false;
  try {
    co_await when_all(leaf(tracer, 3), fail(tracer), leaf(tracer, 1));
  } catch (const std::runtime_error&) {
    failed = true;
  }
  CHECK(failed);
}

Task<> groups(Tracer tracer) {
  TaskGroup outer;
  const auto nested = [](Tracer inside) -> Task<> {
    TaskGroup inner;
    inner.spawn(leaf(inside, 2));
    inner.spawn(leaf(inside, 5));
    co_await inner.join();
  };
  outer.spawn(nested(tracer));
  outer.spawn(leaf(tracer, 1));
  co_await yield();
  outer.spawn(nested(tracer));
  co_await when_any(outer.join(), leaf(tracer, 4));
  co_await outer.join();
}

Task<> locks(Tracer tracer) {
  Mutex mutex;
  Semaphore semaphore(2);
  TaskGroup group;
  const auto hold = [&](Tracer) -> Task<> {
    const auto lock = co_await mutex.lock();
    const auto permit = co_await semaphore.acquire(2);
    co_await yield();
  };
  for (int i = 0; i < 3; ++i) group.spawn(hold(tracer));
  co_await group.join();
  CHECK_FALSE(mutex.locked());
}

Task<> generators(Tracer tracer) {
  const auto count = [](Tracer) -> AsyncGenerator<int> {
    for (int i = 0; i < 3; ++i) {
      co_await yield();
      co_yield i;
    }
  };
  auto generator = count(tracer);
  while (auto item = co_await generator.next()) co_await leaf(tracer, 1);
}

/// Items in order, whenever the receiver is dropped: the next one takes over.
struct Relay {
  Task<> task() {
    while (auto item = co_await channel.receive()) seen.push_back(*item);
  }
  Task<> feed() {
    for (int i = 0; i < 6; ++i) co_await channel.send(i);
    channel.close();
  }
  Task<> afterwards(bool) {
    co_await task();
    CHECK(seen == std::vector<int>{0, 1, 2, 3, 4, 5});
  }

  Relay() { group.spawn(feed()); }

  Channel<int> channel{2};
  std::vector<int> seen;
  TaskGroup group;
};

}  // namespace

TEST_CASE("trees of tasks may be dropped at every moment") {
  CHECK(moments_of(sleeps) >= 8);
  CHECK(moments_of(timeouts) >= 8);
  CHECK(moments_of(when_anys) >= 8);
  CHECK(moments_of(when_alls) >= 8);
  CHECK(moments_of(groups) >= 8);
  CHECK(moments_of(locks) >= 8);
  CHECK(moments_of(generators) >= 8);
}

TEST_CASE("a channel's receiver may be dropped at every moment and the next one misses nothing") {
  CHECK(test::drop_at_every_moment([] { return std::make_unique<Relay>(); }) >= 3);
}
