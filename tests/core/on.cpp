#include <weir/core/loop_thread.h>
#include <weir/core/on.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_all.h>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "../support/allocations.h"
#include "../support/tracer.h"

using namespace weir;
using namespace std::chrono_literals;

namespace {

Task<std::thread::id> where() {
  co_await yield();
  co_return std::this_thread::get_id();
}

}  // namespace

TEST_CASE("on runs the task on the other loop and comes back with its result") {
  EventLoopThread other;
  const auto body = [&]() -> Task<> {
    const auto here = std::this_thread::get_id();
    EventLoop& home = EventLoop::current();
    const auto there = co_await on(other.loop(), where());
    CHECK(there != here);
    CHECK(std::this_thread::get_id() == here);
    CHECK(&EventLoop::current() == &home);
    const auto give = []() -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(3); };
    CHECK(*co_await on(other.loop(), give()) == 3);
  };
  run(body());
}

TEST_CASE("on brings an exception home") {
  EventLoopThread other;
  const auto fail = []() -> Task<> {
    co_await yield();
    throw std::runtime_error("over there");
  };
  const auto body = [&]() -> Task<> {
    bool thrown = false;
    try {
      co_await on(other.loop(), fail());
    } catch (const std::runtime_error& error) {
      thrown = std::string(error.what()) == "over there";
    }
    CHECK(thrown);
  };
  run(body());
}

TEST_CASE("on nests: there, back, and there again") {
  EventLoopThread other;
  const auto body = [&]() -> Task<> {
    EventLoop& home = EventLoop::current();
    const auto here = std::this_thread::get_id();
    const auto ask_home = [&]() -> Task<bool> {
      const auto id = co_await on(home, where());
      co_return id == here;
    };
    CHECK(co_await on(other.loop(), ask_home()));
    CHECK(co_await on(home, where()) == here);  // on the very loop that it stands on
  };
  run(body());
}

TEST_CASE("many cross in both directions at once") {
  EventLoopThread other;
  std::atomic<int> count{0};
  const auto body = [&]() -> Task<> {
    EventLoop& home = EventLoop::current();
    const auto hop = [](EventLoop& to, std::atomic<int>& counter, int times) -> Task<> {
      const auto add = [](std::atomic<int>& what) -> Task<> {
        ++what;
        co_return;
      };
      for (int i = 0; i < times; ++i) co_await on(to, add(counter));
    };
    co_await when_all(hop(other.loop(), count, 5000), on(other.loop(), hop(home, count, 5000)));
  };
  run(body());
  CHECK(count == 10'000);
}

TEST_CASE("dropping an on drops its task over there") {
  EventLoopThread other;
  std::binary_semaphore started(0);
  std::binary_semaphore gone(0);
  struct Release {
    std::binary_semaphore& semaphore;
    ~Release() { semaphore.release(); }
  };
  const auto stay = [&]() -> Task<> {
    const Release release{gone};
    started.release();
    co_await sleep(1h);
  };
  const auto body = [&]() -> Task<> {
    TaskGroup group;
    const auto cross = [&]() -> Task<> { co_await on(other.loop(), stay()); };
    group.spawn(cross());
    started.acquire();
    group.cancel();
    co_return;
  };
  run(body());
  gone.acquire();  // or the watchdog ends it
}

TEST_CASE("an on that is dropped at once, soon or when its result is under way leaves nothing") {
  EventLoopThread other;
  const auto body = [&]() -> Task<> {
    for (int i = 0; i < 2000; ++i) {
      const auto winner = co_await when_any(on(other.loop(), where()), sleep(Duration(i * 50)));
      (void)winner;
    }
  };
  run(body());
}

TEST_CASE("on throws operation_canceled if the other loop ends first") {
  const auto stay = []() -> Task<int> {
    co_await sleep(1h);
    co_return 1;
  };
  const auto body = [&](bool started) -> Task<> {
    std::optional<EventLoopThread> other(std::in_place);
    std::thread ender;
    const auto end = [&]() -> Task<> {
      if (started) co_await on(other->loop(), where());
      ender = std::thread([&] { other.reset(); });
    };
    TaskGroup group;
    const auto cross = [&]() -> Task<std::error_code> {
      auto [error, value] = co_await as_tuple(on(other->loop(), stay()));
      co_return error;
    };
    auto [error, none] = co_await when_all(cross(), end());
    CHECK(error == std::errc::operation_canceled);
    ender.join();
  };
  for (int i = 0; i < 20; ++i) {
    run(body(true));
    run(body(false));
  }
}

TEST_CASE("on throws operation_canceled if the other loop never runs and ends") {
  std::optional<EventLoop> idle(std::in_place);
  const auto body = [&]() -> Task<> {
    TaskGroup group;
    const auto end = [&]() -> Task<> {
      co_await yield();
      idle.reset();
    };
    group.spawn(end());
    auto [error, id] = co_await as_tuple(on(*idle, where()));
    CHECK(error == std::errc::operation_canceled);
    co_await group.join();
  };
  run(body());
}

TEST_CASE("on composes with timeout") {
  EventLoopThread other;
  const auto stay = []() -> Task<> { co_await sleep(1h); };
  const auto body = [&]() -> Task<> {
    auto [error, none] = co_await as_tuple(timeout(1ms, on(other.loop(), stay())));
    CHECK(error == std::errc::timed_out);
  };
  run(body());
}

TEST_CASE("run, spawn and on keep the callables whose tasks they start") {
  EventLoopThread other;
  const std::string text(100, 'x');
  std::string spawned;
  const std::string result = run([&, text]() -> Task<std::string> {
    Event done;
    EventLoop::current().spawn([&, text]() -> Task<> {
      co_await yield();
      spawned = text;
      done.set();
    });
    co_await done.wait();
    auto remote = [text]() -> Task<std::string> {
      co_await yield();
      co_return text;
    };
    co_return co_await on(other.loop(), std::move(remote));
  });
  CHECK(result == text);
  CHECK(spawned == text);
  std::atomic<bool> ran{false};
  other.loop().spawn([&ran, text]() -> Task<> {
    co_await yield();
    ran = text.size() == 100;
  });
  while (!ran) std::this_thread::yield();
}

TEST_CASE("a drop of on needs no memory") {
  EventLoopThread other;
  std::binary_semaphore dropped{0};
  run([&]() -> Task<> {
    TaskGroup group;
    std::atomic<bool> started{false};
    group.spawn([&]() -> Task<> {
      co_await on(other.loop(), [&]() -> Task<> {
        struct Says {
          std::binary_semaphore& gone;
          ~Says() { gone.release(); }
        };
        const Says says{dropped};
        started = true;
        co_await sleep(1h);
      });
    });
    while (!started) co_await yield();
    const test::FailingAllocations failing(0);
    group.cancel();
  });
  dropped.acquire();
}
