#include <weir/core/loop_local.h>
#include <weir/core/loop_thread.h>
#include <weir/core/on.h>
#include <weir/core/sleep.h>
#include <weir/core/spawn_future.h>

#include <doctest/doctest.h>

#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

struct Noted {
  explicit Noted(std::thread::id* where) : ended(where) {}
  Noted(const Noted&) = delete;
  ~Noted() { *ended = std::this_thread::get_id(); }
  std::thread::id* ended;
};

}  // namespace

TEST_CASE("a loop local is one for each loop, made at first use") {
  LoopLocal<int> local;
  EventLoopThread other;
  const auto count = [&local]() -> Task<int> { co_return ++local.get(); };
  run([&]() -> Task<> {
    local.get() = 10;
    CHECK(co_await on(other.loop(), count()) == 1);
    CHECK(co_await on(other.loop(), count()) == 2);
    CHECK(local.get() == 10);
    CHECK(&local.get() == &local.get());
  });
  CHECK_THROWS_AS((void)local.get(), std::logic_error);
}

TEST_CASE("a loop local ends on its loop, with the loop, whichever ends first") {
  on_each_engine([]() -> Task<> {
    LoopLocal<std::shared_ptr<int>> local;
    local.get() = std::make_shared<int>(1);
    co_return;
  });
  std::thread::id ended;
  std::thread::id there;
  auto local = std::make_unique<LoopLocal<std::unique_ptr<Noted>>>(
      [&ended] { return std::make_unique<Noted>(&ended); });
  {
    EventLoopThread other;
    const auto use = [&]() -> Task<> {
      (void)local->get();
      there = std::this_thread::get_id();
      co_return;
    };
    run([&]() -> Task<> { co_await on(other.loop(), use()); });
    local.reset();
    CHECK(ended == std::thread::id());
  }
  CHECK(ended == there);
}

TEST_CASE("what cannot be made for a loop throws, and is tried again") {
  int calls = 0;
  LoopLocal<int> local([&calls]() -> int {
    if (++calls == 1) throw std::runtime_error("not yet");
    return calls;
  });
  run([&]() -> Task<> {
    CHECK_THROWS_WITH((void)local.get(), "not yet");
    CHECK(local.get() == 2);
    co_return;
  });
}

TEST_CASE("a future gives a thread the result of a task, or its exception") {
  std::optional<EventLoopThread> thread(std::in_place);
  EventLoopThread& other = *thread;
  const auto give = [](int value) -> Task<int> {
    co_await yield();
    co_return value;
  };
  CHECK(spawn_future(other.loop(), give(3)).get() == 3);
  spawn_future(other.loop(), []() -> Task<> { co_await yield(); }).get();
  std::future<int> failing = spawn_future(other.loop(), []() -> Task<int> {
    co_await yield();
    throw std::runtime_error("there");
  });
  const std::string text = "kept with the callable";
  CHECK(spawn_future(other.loop(), [text]() -> Task<std::string> {
          co_await yield();
          co_return text;
        }).get() == text);
  failing.wait();
  thread.reset();  // ThreadSanitizer does not see how libstdc++ counts the users of an exception
  CHECK_THROWS_WITH((void)failing.get(), "there");
}

TEST_CASE("a future whose loop ends first throws that it was cancelled") {
  std::future<void> future;
  {
    EventLoopThread other;
    future = spawn_future(other.loop(), []() -> Task<> { co_await sleep(1h); });
  }
  std::error_code code;
  try {
    future.get();
  } catch (const std::system_error& error) {
    code = error.code();
  }
  CHECK(code == std::errc::operation_canceled);
}
