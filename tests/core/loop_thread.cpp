#include <weir/core/loop_thread.h>
#include <weir/core/on.h>
#include <weir/core/sleep.h>

#include <doctest/doctest.h>
#include <pthread.h>

#include <atomic>
#include <csignal>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

using namespace weir;

namespace {

Task<std::string> thread_name() {
  char name[32] = {};
  ::pthread_getname_np(::pthread_self(), name, sizeof name);
  co_return name;
}

}  // namespace

TEST_CASE("a loop thread runs a loop until it is stopped, any number of times") {
  EventLoopThread thread({.name = "worker"});
  const auto name = [&]() -> Task<std::string> {
    co_return co_await on(thread.loop(), thread_name());
  };
  CHECK(run(name()) == "worker");
  CHECK(thread.loop().name() == "worker");
  thread.stop();
  thread.stop();
}

TEST_CASE("a loop thread that is stopped at once ends") {
  for (int i = 0; i < 50; ++i) EventLoopThread thread;
}

TEST_CASE("the making of a loop thread throws what the loop threw") {
  CHECK_THROWS_AS(EventLoopThread({.ring_entries = 3}), std::invalid_argument);
  EventLoopThreadPool pool({.buffer_count = 0});
  CHECK_THROWS_WITH_AS(pool.start(2), doctest::Contains("buffer_count"), std::invalid_argument);
  CHECK(pool.loops().empty());
}

TEST_CASE("a loop thread blocks all signals, and its maker's mask stays as it was") {
  sigset_t before;
  sigset_t after_making;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
  EventLoopThread thread;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &after_making);
  CHECK(::sigismember(&before, SIGINT) == ::sigismember(&after_making, SIGINT));
  const auto blocked = []() -> Task<bool> {
    sigset_t mask;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    co_return ::sigismember(&mask, SIGINT) == 1 && ::sigismember(&mask, SIGTERM) == 1;
  };
  const auto body = [&]() -> Task<bool> { co_return co_await on(thread.loop(), blocked()); };
  CHECK(run(body()));
}

TEST_CASE("a pool hands out its loops in turn") {
  EventLoopThreadPool pool({.name = "pool"});
  CHECK_THROWS_AS((void)pool.next(), std::logic_error);
  CHECK_THROWS_AS(pool.start(0), std::invalid_argument);
  pool.start(3);
  CHECK_THROWS_AS(pool.start(1), std::logic_error);
  REQUIRE(pool.loops().size() == 3);
  for (int round = 0; round < 2; ++round) {
    for (EventLoop* loop : pool.loops()) CHECK(&pool.next() == loop);
  }
  const auto names = [&]() -> Task<> {
    for (int i = 0; i < 3; ++i) {
      const auto name = co_await on(*pool.loops()[static_cast<std::size_t>(i)], thread_name());
      CHECK(name == "pool-" + std::to_string(i));
    }
  };
  run(names());
  pool.stop();
  pool.stop();
  CHECK(pool.loops().empty());
  pool.start(1);
}

TEST_CASE("tasks left on a pool's loops are dropped when it stops") {
  EventLoopThreadPool pool;
  pool.start(2);
  const auto stay = []() -> Task<> { co_await sleep(std::chrono::hours(1)); };
  for (int i = 0; i < 20; ++i) pool.next().spawn(stay());
}

TEST_CASE("a loop thread's loop runs by the time that it can be had") {
  for (int i = 0; i < 100; ++i) {
    EventLoopThread thread;
    CHECK(thread.loop().runs_elsewhere());
    std::thread::id where;
    thread.loop().call([&] { where = std::this_thread::get_id(); });
    CHECK(where != std::this_thread::get_id());
  }
}

TEST_CASE("a pool stops although one of its loops was stopped, and is gone, before") {
  EventLoopThreadPool pool;
  pool.start(3);
  pool.next().stop();
  const auto others = [&]() -> Task<> {
    (void)co_await on(*pool.loops()[1], thread_name());
    (void)co_await on(*pool.loops()[2], thread_name());
  };
  run(others());
  pool.stop();
}

TEST_CASE("a loop thread, or a pool, may be stopped by several threads at once") {
  const auto stop_twice = [](auto& what, EventLoop& loop) {
    std::atomic<int> stopping{0};
    loop.post([&] {
      while (stopping < 2) std::this_thread::yield();
    });
    const auto stop = [&] {
      ++stopping;
      what.stop();
    };
    std::thread first(stop);
    std::thread second(stop);
    first.join();
    second.join();
  };
  EventLoopThread thread;
  stop_twice(thread, thread.loop());
  EventLoopThreadPool pool;
  pool.start(2);
  stop_twice(pool, pool.next());
}
