// Values that go with a task to other loops and threads: on, blocking, spawn, spawn_future.
#include <weir/core/blocking.h>
#include <weir/core/loop_thread.h>
#include <weir/core/on.h>
#include <weir/core/sleep.h>
#include <weir/core/spawn_future.h>
#include <weir/coro/event.h>
#include <weir/coro/task_local.h>
#include <weir/coro/timeout.h>

#include <doctest/doctest.h>

#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/net_drop.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

TaskLocal<std::string> request;

/// Knows how many there are, and on which thread each was copied and used.
struct Counted {
  explicit Counted(std::atomic<int>& count) : alive(&count) { ++*alive; }
  Counted(const Counted& other) : alive(other.alive), copies(other.copies + 1) { ++*alive; }
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --*alive; }
  std::atomic<int>* alive;
  int copies = 0;
  std::thread::id copied_on = std::this_thread::get_id();
};
using Shared = std::shared_ptr<Counted>;

TaskLocal<Shared> counted;

/// Not to be copied.
struct Stubborn {
  Stubborn() = default;
  Stubborn(const Stubborn& other) : refuses(other.refuses) {
    if (*refuses) throw std::runtime_error("not copied");
  }
  Stubborn& operator=(const Stubborn&) = delete;
  ~Stubborn() = default;
  std::shared_ptr<bool> refuses = std::make_shared<bool>(false);
};

Task<std::string> seen_and_set(std::string value) {
  std::string seen = request.get();
  request.set(std::move(value));
  co_await yield();
  co_return seen + "," + request.get();
}

Task<> use_values(EventLoop& other) {
  request.set("1");
  counted.set(nullptr);
  CHECK(co_await on(other, seen_and_set("there")) == "1,there");
  CHECK(request.get() == "1");
  CHECK(co_await on(other, [] { return seen_and_set("again"); }) == "1,again");
  const auto work = [] {
    std::string seen = request.get();
    request.set("in the thread");
    return seen + "," + request.get();
  };
  CHECK(co_await blocking(work) == "1,in the thread");
  CHECK(request.get() == "1");
}

}  // namespace

TEST_CASE("a task sent to another loop, and a function that blocks, have copies of the values") {
  for_each_engine([](Engine engine) {
    EventLoopThread other({.engine = engine});
    EventLoop loop({.engine = engine});
    loop.run_until_complete(use_values(other.loop()));
  });
  on_simulation([]() -> Task<> { co_await use_values(EventLoop::current()); });
}

TEST_CASE("what another thread spawns on a loop begins with that thread's values of the moment") {
  for_each_engine([](Engine engine) {
    EventLoopThread other({.engine = engine});
    EventLoop loop({.engine = engine});
    const auto body = [&]() -> Task<> {
      request.set("1");
      std::promise<std::string> first;
      std::promise<std::string> second;
      const auto tell = [](std::promise<std::string>& whom, std::string value) -> Task<> {
        std::string seen = co_await seen_and_set(std::move(value));
        whom.set_value(std::move(seen));
      };
      EventLoop& there = other.loop();
      there.spawn(tell(first, "spawned"));
      std::future<std::string> promised = spawn_future(there, seen_and_set("promised"));
      request.set("2");
      auto spawn = [&there, task = tell(second, "by a thread")]() mutable {
        there.spawn(std::move(task));
      };
      co_await blocking(std::move(spawn));
      CHECK(first.get_future().get() == "1,spawned");
      CHECK(promised.get() == "1,promised");
      CHECK(second.get_future().get() == "2,by a thread");
      CHECK(request.get() == "2");
    };
    loop.run_until_complete(body());
  });
}

TEST_CASE("a spawn on the same loop has the value too, what is posted has none") {
  on_each_engine([]() -> Task<> {
    request.set("1");
    Event posted;
    Event spawned;
    EventLoop& loop = EventLoop::current();
    loop.post([&] {
      CHECK(request.get().empty());
      CHECK_THROWS_AS(request.set("2"), std::logic_error);
      posted.set();
    });
    loop.spawn([&]() -> Task<> {
      CHECK(co_await seen_and_set("2") == "1,2");
      spawned.set();
    });
    co_await posted.wait();
    co_await spawned.wait();
    CHECK(request.get() == "1");
  });
}

TEST_CASE("a thread of its own, and a loop that runs there, begin without values") {
  on_each_kernel_engine("one thread", []() -> Task<> {
    request.set("1");
    std::string seen = "not run";
    std::thread([&] { seen = request.get() + weir::run(seen_and_set("2")); }).join();
    CHECK(seen == ",2");
    const auto nested = [] { return weir::run(seen_and_set("3")) + request.get(); };
    CHECK(co_await blocking(nested) == "1,31");
  });
}

TEST_CASE("what the copy of a value throws, on, blocking and spawn throw, with nothing started") {
  for_each_engine([](Engine engine) {
    EventLoopThread other({.engine = engine});
    EventLoop loop({.engine = engine});
    const auto body = [&]() -> Task<> {
      TaskLocal<Stubborn> stubborn;
      const Stubborn value;
      stubborn.set(value);
      *value.refuses = true;
      bool started = false;
      const auto start = [&]() -> Task<> {
        started = true;
        co_return;
      };
      const auto work = [&started] { started = true; };
      int refused = 0;
      try {
        co_await on(other.loop(), start());
      } catch (const std::runtime_error&) {
        ++refused;
      }
      try {
        co_await blocking(work);
      } catch (const std::runtime_error&) {
        ++refused;
      }
      CHECK_THROWS_AS(other.loop().spawn(start), std::runtime_error);
      CHECK(refused == 2);
      *value.refuses = false;
      CHECK(!started);
      co_await on(other.loop(), start());
      CHECK(started);
    };
    loop.run_until_complete(body());
  });
}

TEST_CASE("values are copied on the thread that sends them, and used and destroyed on the other") {
  for_each_engine([](Engine engine) {
    std::atomic<int> alive{0};
    TaskLocal<std::optional<Counted>> local;
    {
      EventLoopThread other({.engine = engine});
      EventLoop loop({.engine = engine});
      const auto body = [&]() -> Task<> {
        const auto here = std::this_thread::get_id();
        local.set(std::optional<Counted>(std::in_place, alive));
        const auto look = [&]() -> Task<int> { co_return local.get()->copies; };
        const int copies = local.get()->copies;
        CHECK(co_await on(other.loop(), look()) == copies + 1);
        const auto use = [&] { return local.get()->copied_on != here; };  // the copy that get makes
        CHECK(co_await blocking(use));
      };
      loop.run_until_complete(body());
    }
    CHECK(eventually([&] { return alive == 0; }));
  });
}

TEST_CASE("a drop at any moment of on and blocking leaves no value behind") {
  struct Scenario {
    std::atomic<int>& alive;
    bool blocks = false;
    TaskLocal<std::optional<Counted>> local = {};
    Task<> nested() {
      const auto two = local.get();
      co_await yield();
      co_await sleep(1us);
    }
    Task<> task() {
      local.set(std::optional<Counted>(std::in_place, alive));
      request.set("dropped");
      co_await on(EventLoop::current(), nested());
      const auto work = [this] { return local.get()->copies; };
      if (blocks) CHECK(co_await blocking(work) > 0);
      co_await timeout(1h, on(EventLoop::current(), nested()));
      CHECK(request.get() == "dropped");
    }
    Task<> afterwards(bool /*finished*/) {
      CHECK(request.get().empty());
      co_await sleep(20ms);  // the simulation's longest delay of a job, whose function is called
    }
  };
  std::atomic<int> alive{0};
  CHECK(drop_at_every_moment([&] { return std::make_unique<Scenario>(alive, true); }, kMostMoments,
                             [](const auto& scene) { on_simulation(scene); }) > 5);
  CHECK(alive == 0);
  drop_everywhere([&] { return std::make_unique<Scenario>(alive); }, 5);
  CHECK(alive == 0);
}

TEST_CASE("tasks that are sent to and fro by many threads each keep their value") {
  for_each_engine([](Engine engine) {
    EventLoopThreadPool pool({.engine = engine});
    pool.start(2);
    EventLoop loop({.engine = engine});
    const auto one = [&](int number) -> Task<> {
      const std::string name = "request number " + std::to_string(number);
      request.set(name);
      for (int i = 0; i < 20; ++i) {
        CHECK(co_await on(pool.next(), seen_and_set("x")) == name + ",x");
        const auto work = [] { return request.get(); };
        CHECK(co_await blocking(work) == name);
        pool.next().spawn([name]() -> Task<> { CHECK(co_await seen_and_set("y") == name + ",y"); });
        CHECK(request.get() == name);
      }
    };
    const auto body = [&]() -> Task<> {
      TaskGroup group;
      for (int i = 0; i < 10; ++i) group.spawn(one(i));
      co_await group.join();
    };
    loop.run_until_complete(body());
    pool.stop();
  });
}
