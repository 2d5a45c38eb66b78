// What is ready at once must not keep the loop from its turn.
#include <weir/core/event_loop.h>
#include <weir/core/sleep.h>
#include <weir/coro/async_generator.h>
#include <weir/coro/channel.h>
#include <weir/coro/event.h>
#include <weir/coro/mutex.h>
#include <weir/coro/semaphore.h>
#include <weir/coro/task_group.h>
#include <weir/coro/timeout.h>

#include <doctest/doctest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <utility>

#include "../support/turns_beside.h"

using namespace weir;
using test::turns_beside;
using test::VirtualLoop;

namespace {

constexpr int kAwaits = 10'000;

AsyncGenerator<int> count() {
  for (int i = 0;; ++i) co_yield i;
}

}  // namespace

TEST_CASE("a coroutine whose awaits are ready at once gives others a turn every few hundred") {
  int turns = 0;
  SUBCASE("Channel") {
    turns = turns_beside([]() -> Task<> {
      Channel<int> channel(4);
      for (int i = 0; i < kAwaits; ++i) {
        if (bool sent = co_await channel.send(i); !sent) co_return;
        const auto item = co_await channel.receive();
        CHECK(item == i);
      }
    });
  }
  SUBCASE("Event") {
    turns = turns_beside([]() -> Task<> {
      Event event;
      event.set();
      for (int i = 0; i < kAwaits; ++i) co_await event.wait();
    });
  }
  SUBCASE("Mutex") {
    turns = turns_beside([]() -> Task<> {
      Mutex mutex;
      for (int i = 0; i < kAwaits; ++i) {
        const auto lock = co_await mutex.lock();
        CHECK(mutex.locked());
      }
      CHECK_FALSE(mutex.locked());
    });
  }
  SUBCASE("Semaphore") {
    turns = turns_beside([]() -> Task<> {
      Semaphore semaphore(3);
      for (int i = 0; i < kAwaits; ++i) {
        const auto permit = co_await semaphore.acquire(2);
        CHECK(semaphore.available() == 1);
      }
      CHECK(semaphore.available() == 3);
    });
  }
  SUBCASE("sleep of nothing") {
    turns = turns_beside([]() -> Task<> {
      for (int i = 0; i < kAwaits; ++i) co_await sleep(0s);
    });
  }
  SUBCASE("AsyncGenerator") {
    turns = turns_beside([]() -> Task<> {
      auto generator = count();
      for (int i = 0; i < kAwaits; ++i) CHECK(co_await generator.next() == i);
    });
  }
  SUBCASE("under a timeout") {
    turns = turns_beside([]() -> Task<> {
      Semaphore semaphore(1);
      for (int i = 0; i < kAwaits; ++i) {
        const auto permit = co_await timeout(1h, semaphore.acquire());
        CHECK(semaphore.available() == 0);
      }
    });
  }
  CHECK(turns >= kAwaits / 1000);
  CHECK(turns <= kAwaits / 50);
}

TEST_CASE("an await that gives others a turn may be dropped meanwhile, and loses nothing") {
  VirtualLoop loop;
  Channel<int> channel(1000);
  Semaphore semaphore(1);
  int received = 0;
  const auto receive = [&]() -> Task<> {
    for (;;) {
      const auto item = co_await channel.receive();
      CHECK(item == received++);
    }
  };
  const auto acquire = [&]() -> Task<> {
    for (;;) const auto permit = co_await semaphore.acquire();
  };
  for (int i = 0; i < 1000; ++i) CHECK(channel.try_send(i));
  {
    TaskGroup group;
    group.spawn(receive);  // until its turn is over
    group.spawn(acquire);
    CHECK(received > 100);
    CHECK(received < 1000);
    CHECK(semaphore.available() == 0);
  }
  CHECK(semaphore.available() == 1);
  CHECK(channel.size() == static_cast<std::size_t>(1000 - received));
  CHECK(channel.try_receive() == received);
}

TEST_CASE("a timer fires beside a coroutine whose channel another thread keeps filled") {
  Channel<int> channel(64);
  std::atomic<bool> over{false};
  std::thread feeder([&] {
    while (!over) {
      while (channel.try_send(1)) continue;
      std::this_thread::yield();
    }
  });
  constexpr long kMost = 200'000'000;  // items; many seconds
  long items = 0;
  const auto body = [&]() -> Task<> {
    bool fired = false;
    TaskGroup group;
    const auto tick = [&]() -> Task<> {
      for (int i = 0; i < 20; ++i) co_await sleep(1ms);
      fired = true;
    };
    group.spawn(tick);
    while (!fired && items < kMost) {
      const auto item = co_await channel.receive();
      items += item.value_or(0);
    }
    CHECK(fired);
  };
  run(body());
  over = true;
  feeder.join();
  CHECK(items < kMost);
}
