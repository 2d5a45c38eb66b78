// Event, Mutex and Semaphore.
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/event.h>
#include <weir/coro/mutex.h>
#include <weir/coro/semaphore.h>
#include <weir/coro/timeout.h>

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "../support/virtual_loop.h"

using namespace weir;
using namespace std::chrono_literals;
using test::VirtualLoop;

namespace {

Task<> note(Event& event, std::vector<int>& journal, int number) {
  co_await event.wait();
  journal.push_back(number);
}

Task<> note(Mutex& mutex, std::vector<int>& journal, int number) {
  const auto lock = co_await mutex.lock();
  journal.push_back(number);
  co_await yield();
  journal.push_back(number);
}

Task<> note(Semaphore& semaphore, std::size_t count, std::vector<int>& journal, int number) {
  const auto permit = co_await semaphore.acquire(count);
  journal.push_back(number);
  co_await sleep(1s);
}

}  // namespace

TEST_CASE("an event resumes all who wait, in the order in which they came") {
  VirtualLoop loop;
  Event event;
  std::vector<int> journal;
  TaskGroup group;
  for (int i = 0; i < 5; ++i) group.spawn(note(event, journal, i));
  CHECK_FALSE(event.is_set());
  event.set();
  CHECK(journal.empty());  // in the loop's turn, not here
  loop.settle();
  CHECK(journal == std::vector<int>{0, 1, 2, 3, 4});
  group.spawn(note(event, journal, 5));  // it stays set
  CHECK(journal.back() == 5);
  event.reset();
  group.spawn(note(event, journal, 6));
  loop.settle();
  CHECK(journal.back() == 5);
}

TEST_CASE("an event that was set and reset still resumes those who waited") {
  VirtualLoop loop;
  Event event;
  std::vector<int> journal;
  TaskGroup group;
  group.spawn(note(event, journal, 1));
  event.set();
  event.reset();
  loop.settle();
  CHECK(journal == std::vector<int>{1});
}

TEST_CASE("a dropped wait for an event leaves the others alone, woken or not") {
  VirtualLoop loop;
  Event event;
  std::vector<int> journal;
  TaskGroup kept;
  std::optional<TaskGroup> dropped(std::in_place);
  kept.spawn(note(event, journal, 1));
  dropped->spawn(note(event, journal, 2));
  kept.spawn(note(event, journal, 3));
  SUBCASE("before it is set") {
    dropped.reset();
    event.set();
  }
  SUBCASE("after it was set") {
    event.set();
    dropped.reset();
  }
  loop.settle();
  CHECK(journal == std::vector<int>{1, 3});
}

TEST_CASE("whoever an event wakes may destroy it, with others woken behind") {
  VirtualLoop loop;
  auto event = std::make_unique<Event>();
  std::vector<int> journal;
  TaskGroup group;
  const auto destroy = [&]() -> Task<> {
    co_await event->wait();
    event.reset();
    journal.push_back(0);
  };
  group.spawn(destroy());
  group.spawn(note(*event, journal, 1));
  event->set();
  loop.settle();
  CHECK(journal == std::vector<int>{0, 1});
}

TEST_CASE("a mutex is held by one at a time, in the order in which they asked") {
  VirtualLoop loop;
  Mutex mutex;
  std::vector<int> journal;
  TaskGroup group;
  for (int i = 0; i < 3; ++i) group.spawn(note(mutex, journal, i));
  CHECK(mutex.locked());
  loop.settle();
  CHECK(journal == std::vector<int>{0, 0, 1, 1, 2, 2});
  CHECK_FALSE(mutex.locked());
}

TEST_CASE("a lock that was granted and not yet taken is given back when its wait is dropped") {
  VirtualLoop loop;
  Mutex mutex;
  std::vector<int> journal;
  TaskGroup group;
  std::optional<TaskGroup> dropped(std::in_place);
  std::optional<Mutex::Lock> first;
  const auto take_first = [&]() -> Task<> { first = co_await mutex.lock(); };
  group.spawn(take_first());
  REQUIRE(mutex.locked());
  dropped->spawn(note(mutex, journal, 1));
  group.spawn(note(mutex, journal, 2));
  SUBCASE("granted") {
    first.reset();  // goes to the one that is about to be dropped
    dropped.reset();
  }
  SUBCASE("not granted") {
    dropped.reset();
    first.reset();
  }
  loop.settle();
  CHECK(journal == std::vector<int>{2, 2});
  CHECK_FALSE(mutex.locked());
}

TEST_CASE("a mutex may go while a lock that it granted has not been taken yet") {
  VirtualLoop loop;
  std::optional<Mutex> mutex(std::in_place);
  TaskGroup group;
  std::optional<bool> holds;
  std::optional<Mutex::Lock> first;
  const auto take_first = [&]() -> Task<> { first = co_await mutex->lock(); };
  const auto take = [&]() -> Task<> {
    const auto lock = co_await mutex->lock();
    holds = static_cast<bool>(lock);
  };
  group.spawn(take_first());
  REQUIRE(first);
  group.spawn(take());
  group.spawn(take());  // waits on
  first.reset();
  mutex.reset();
  SUBCASE("dropped") {
    group.cancel();
    CHECK_FALSE(holds);
  }
  SUBCASE("resumed") {
    loop.settle();
    CHECK(holds == false);
  }
}

TEST_CASE("a lock may be released before its end, moved and given up by assignment") {
  VirtualLoop loop;
  Mutex mutex;
  const auto body = [&]() -> Task<> {
    auto lock = co_await mutex.lock();
    CHECK(lock);
    auto moved = std::move(lock);
    CHECK(mutex.locked());
    moved.release();
    CHECK_FALSE(mutex.locked());
    CHECK_FALSE(moved);
    lock = co_await mutex.lock();
    lock = Mutex::Lock();
    CHECK_FALSE(mutex.locked());
  };
  loop.run(body());
}

TEST_CASE("a timeout over a lock does not keep it") {
  VirtualLoop loop;
  Mutex mutex;
  const auto body = [&]() -> Task<> {
    auto lock = co_await mutex.lock();
    auto [error, none] = co_await as_tuple(timeout(1s, mutex.lock()));
    CHECK(error == std::errc::timed_out);
    lock.release();
    CHECK_FALSE(mutex.locked());
    auto [fine, second] = co_await as_tuple(timeout(1s, mutex.lock()));
    CHECK_FALSE(fine);
    CHECK(mutex.locked());
  };
  loop.run(body());
  CHECK_FALSE(mutex.locked());
}

TEST_CASE("a semaphore hands out its permits and no more") {
  VirtualLoop loop;
  Semaphore semaphore(3);
  std::vector<int> journal;
  TaskGroup group;
  for (int i = 0; i < 7; ++i) group.spawn(note(semaphore, 1, journal, i));
  CHECK(journal.size() == 3);
  CHECK(semaphore.available() == 0);
  loop.advance(1001ms);
  CHECK(journal.size() == 6);
  loop.advance(10s);
  CHECK(journal == std::vector<int>{0, 1, 2, 3, 4, 5, 6});
  CHECK(semaphore.available() == 3);
}

TEST_CASE("a large request is not overtaken by small ones") {
  VirtualLoop loop;
  Semaphore semaphore(3);
  std::vector<int> journal;
  TaskGroup group;
  group.spawn(note(semaphore, 1, journal, 0));
  group.spawn(note(semaphore, 3, journal, 1));
  group.spawn(note(semaphore, 1, journal, 2));
  loop.settle();
  CHECK(journal == std::vector<int>{0});
  loop.advance(1001ms);
  CHECK(journal == std::vector<int>{0, 1});
  loop.advance(1001ms);
  CHECK(journal == std::vector<int>{0, 1, 2});
}

TEST_CASE("dropping a large request lets the small ones behind it through") {
  VirtualLoop loop;
  Semaphore semaphore(3);
  std::vector<int> journal;
  TaskGroup group;
  std::optional<TaskGroup> dropped(std::in_place);
  group.spawn(note(semaphore, 1, journal, 0));
  dropped->spawn(note(semaphore, 3, journal, 1));
  group.spawn(note(semaphore, 2, journal, 2));
  dropped.reset();
  loop.settle();
  CHECK(journal == std::vector<int>{0, 2});
}

TEST_CASE("a request that no semaphore could grant is refused by name and number") {
  Semaphore semaphore(3);
  CHECK_THROWS_WITH_AS((void)semaphore.acquire(4), doctest::Contains("4"), std::invalid_argument);
}
