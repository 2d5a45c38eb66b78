#include <weir/core/blocking.h>
#include <weir/core/loop_thread.h>
#include <weir/core/sleep.h>
#include <weir/core/spawn_future.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/task_group.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_all.h>

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <new>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/net_server.h"
#include "../support/process.h"

using namespace weir;
using namespace weir::test;

TEST_CASE("blocking calls the function off the loop and comes back with what it returns") {
  on_each_kernel_engine("one thread", []() -> Task<> {
    const auto here = std::this_thread::get_id();
    const auto where = [] { return std::this_thread::get_id(); };
    const auto there = co_await blocking(where);
    CHECK(there != here);
    CHECK(std::this_thread::get_id() == here);
  });
}

TEST_CASE("blocking gives values, references, nothing and exceptions, also in the simulation") {
  on_each_engine([]() -> Task<> {
    const auto make = [] { return std::make_unique<int>(3); };
    const std::unique_ptr<int> made = co_await blocking(make);
    CHECK(*made == 3);
    int value = 0;
    const auto refer = [&value]() -> int& { return value; };
    int& same = co_await blocking(refer);
    CHECK(&same == &value);
    const auto set = [&value] { value = 4; };
    co_await blocking(set);
    CHECK(value == 4);
    const auto fail = []() -> int { throw std::runtime_error("in there"); };
    std::string text;
    try {
      (void)co_await blocking(fail);
    } catch (const std::runtime_error& error) {
      text = error.what();
    }
    CHECK(text == "in there");
  });
}

TEST_CASE("a loop goes on while a function blocks") {
  on_each_kernel_engine("one thread", []() -> Task<> {
    std::binary_semaphore go(0);
    TaskGroup group;
    group.spawn([&go]() -> Task<> {
      for (int i = 0; i < 10; ++i) co_await yield();
      go.release();
    });
    const auto wait = [&go] { go.acquire(); };
    co_await blocking(wait);
    co_await group.join();
  });
}

TEST_CASE("a pool has as many threads as it was given, and jobs wait for the next that is free") {
  on_each_kernel_engine("one thread", []() -> Task<> {
    BlockingPool pool({.threads = 2});
    std::atomic<int> now = 0;
    std::atomic<int> most = 0;
    std::counting_semaphore<> go(0);
    const auto job = [&] {
      const int running = ++now;
      int seen = most;
      while (seen < running && !most.compare_exchange_weak(seen, running)) {
      }
      go.acquire();
      --now;
      return 1;
    };
    int sum = 0;
    TaskGroup group;
    for (int i = 0; i < 20; ++i) {
      group.spawn([&]() -> Task<> { sum += co_await pool.run(job); });
    }
    while (now < 2) co_await yield();
    go.release(20);
    co_await group.join();
    CHECK(sum == 20);
    CHECK(most == 2);
  });
}

TEST_CASE("a dropped job that stands in the queue is done, one behind the queue is not") {
  on_each_kernel_engine("one thread", []() -> Task<> {
    std::binary_semaphore go(0);
    std::atomic<int> done = 0;
    const auto alive = std::make_shared<int>();
    {
      BlockingPool pool({.threads = 1, .queue = 2});
      std::atomic<bool> running = false;
      const auto first = [&] {
        running = true;
        go.acquire();
        ++done;
      };
      const auto job = [&done, alive] { ++done; };
      TaskGroup group;
      group.spawn([&]() -> Task<> { co_await pool.run(first); });
      while (!running) co_await yield();
      for (int i = 0; i < 5; ++i) {
        group.spawn([&]() -> Task<> { co_await pool.run(job); });
      }
      group.cancel();
      CHECK(alive.use_count() == 2 + 2);  // here, in `job`, and twice in the queue
      go.release();
    }
    CHECK(done == 1 + 2);
    CHECK(alive.use_count() == 1);
  });
}

TEST_CASE("jobs race with drops and timeouts") {
  on_each_engine([]() -> Task<> {
    BlockingPool pool({.threads = 3, .queue = 4});
    std::atomic<int> calls = 0;
    const auto job = [&calls] { return ++calls; };
    for (int round = 0; round < 50; ++round) {
      TaskGroup group;
      for (int i = 0; i < 10; ++i) {
        group.spawn([&, i]() -> Task<> {
          (void)co_await as_tuple(timeout(std::chrono::microseconds(i * 20), pool.run(job)));
        });
      }
      co_await group.join();
    }
    CHECK(calls > 0);
    co_await sleep(20ms);  // what the simulation still has to call refers to here
  });
}

TEST_CASE("a child of a fork has threads of its own for jobs, and does none of its parent's") {
  if (kThreadSanitizer) {
    MESSAGE("skipped: the sanitizer starts no thread in a forked child");
    return;
  }
  void* memory = ::mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  auto& done = *new (memory) std::atomic<int>(0);  // of both processes
  BlockingPool pool({.threads = 1});
  BlockingPool busy({.threads = 1});
  std::binary_semaphore begun(0);
  std::binary_semaphore go(0);
  EventLoopThread beside;
  const auto one = [](BlockingPool& of) -> Task<> {
    const auto nothing = [] {};
    co_await of.run(nothing);
  };
  const auto two = [&]() -> Task<> {
    const auto wait = [&] { begun.release(), go.acquire(); };
    const auto count = [&done] { ++done; };
    co_await when_all(busy.run(wait), busy.run(count));
  };
  spawn_future(beside.loop(), one(pool)).get();  // its thread waits for more
  auto both = spawn_future(beside.loop(), two());
  begun.acquire();
  beside.loop().call([] {});  // the second job has been queued
  CHECK(eventually([] { return other_threads_sleep(); }));
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(static_cast<unsigned>(std::chrono::seconds(kPatience).count()));
    EventLoop loop;
    const auto jobs = [&]() -> Task<> {
      // Each would be seen to after seconds if it were told to a thread that is not there.
      for (int i = 0; i < 100; ++i) {
        co_await one(pool);
        co_await one(busy);
        co_await sleep(100us);  // the threads wait again
      }
    };
    loop.run_until_complete(jobs());
    ::_exit(done == 0 ? 0 : 1);
  }
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  go.release();
  both.get();
  CHECK(done == 1);
  ::munmap(memory, sizeof(std::atomic<int>));
}

TEST_CASE("the end of a pool does not wait for the job that brings it about, as an exit does") {
  on_each_kernel_engine("threads", []() -> Task<> {
    auto pool = std::make_unique<BlockingPool>(BlockingPoolOptions{.threads = 2});
    const auto end = [&pool] { pool.reset(); };
    co_await pool->run(end);
    CHECK(pool == nullptr);
  });
}
