#include <weir/core/sleep.h>
#include <weir/coro/event.h>
#include <weir/coro/when_all.h>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <variant>
#include <vector>

#include "../support/tracer.h"
#include "../support/virtual_loop.h"

using namespace weir;
using namespace std::chrono_literals;
using test::Farewell;
using test::Tracer;
using test::VirtualLoop;

namespace {

Task<int> after_a_while(Duration delay, int value) {
  co_await sleep(delay);
  co_return value;
}

Task<int> at_once(int value) { co_return value; }

Task<> fail_after(Duration delay, const char* why) {
  co_await sleep(delay);
  throw std::runtime_error(why);
}

Task<> hold(Tracer) { co_await sleep(1h); }

}  // namespace

TEST_CASE("when_all gives the results in the order of its operands") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    auto [slow, none, quick] =
        co_await when_all(after_a_while(2s, 1), sleep(1s), after_a_while(1ms, 3));
    static_assert(std::is_same_v<decltype(none), std::monostate>);
    CHECK(slow == 1);
    CHECK(quick == 3);
  };
  const TimePoint start = loop.now();
  loop.run(body());
  CHECK(loop.now() - start >= 2s);
  CHECK(loop.now() - start < 3s);
}

TEST_CASE("when_all moves what can only be moved") {
  VirtualLoop loop;
  const auto give = [](int value) -> Task<std::unique_ptr<int>> {
    co_await yield();
    co_return std::make_unique<int>(value);
  };
  const auto body = [&]() -> Task<int> {
    auto [one, two] = co_await when_all(give(1), give(2));
    co_return *one + *two;
  };
  CHECK(loop.run(body()) == 3);
}

TEST_CASE("when_all of nothing, of what finishes at once, and of a mixture") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    const std::tuple<> none = co_await when_all();
    (void)none;
    CHECK(co_await when_all(at_once(1), at_once(2)) == std::tuple(1, 2));
    CHECK(co_await when_all(at_once(1), after_a_while(1ms, 2)) == std::tuple(1, 2));
    CHECK(co_await when_all(after_a_while(1ms, 1), at_once(2)) == std::tuple(1, 2));
  };
  loop.run(body());
}

TEST_CASE("when_all over a vector gives a vector in its order") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 100; ++i) tasks.push_back(after_a_while((100 - i) * 1ms, i));
    const std::vector<int> results = co_await when_all(std::move(tasks));
    REQUIRE(results.size() == 100);
    for (int i = 0; i < 100; ++i) CHECK(results[static_cast<std::size_t>(i)] == i);
    std::vector<Task<>> empty;
    CHECK((co_await when_all(std::move(empty))).empty());
    std::vector<Task<>> void_tasks;
    Tracer::Counts counts;
    void_tasks.push_back(hold(Tracer(counts)));
    CHECK((co_await when_all(std::move(void_tasks))).size() == 1);
  };
  loop.run(body());
}

TEST_CASE("the first exception drops the other operands of when_all, then is thrown") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<std::string> {
    std::string text;
    try {
      co_await when_all(hold(Tracer(counts)), fail_after(2s, "second"), fail_after(1s, "first"));
    } catch (const std::runtime_error& error) {
      text = error.what();
      CHECK(counts.alive() == 0);
    }
    co_return text;
  };
  const TimePoint start = loop.now();
  CHECK(loop.run(body()) == "first");
  CHECK(loop.now() - start < 2s);
}

TEST_CASE("the first exception drops the other tasks of a vector") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<> {
    std::vector<Task<>> tasks;
    tasks.push_back(hold(Tracer(counts)));
    tasks.push_back(fail_after(1s, "one of many"));
    tasks.push_back(hold(Tracer(counts)));
    CHECK_THROWS_WITH(co_await when_all(std::move(tasks)), "one of many");
    CHECK(counts.alive() == 0);
  };
  loop.run(body());
}

TEST_CASE("an exception thrown at once keeps the later operands of when_all from starting") {
  VirtualLoop loop;
  bool started = false;
  const auto start = [&]() -> Task<> {
    started = true;
    co_return;
  };
  const auto fail = []() -> Task<> {
    throw std::runtime_error("at once");
    co_return;
  };
  const auto body = [&]() -> Task<> {
    CHECK_THROWS_WITH(co_await when_all(fail(), start()), "at once");
  };
  loop.run(body());
  CHECK_FALSE(started);
}

TEST_CASE("dropping a when_all drops all its operands") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<> {
    co_await when_all(hold(Tracer(counts)), hold(Tracer(counts)), sleep(1h));
  };
  {
    TaskGroup group;
    group.spawn(body());
    CHECK(counts.alive() > 0);
    group.cancel();
    CHECK(counts.alive() == 0);
  }
}

TEST_CASE("a loop of when_all over what is ready does not deepen the stack") {
  VirtualLoop loop;
  std::uintptr_t lowest = UINTPTR_MAX;
  std::uintptr_t highest = 0;
  const auto touch = [&]() -> Task<int> {
    const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    lowest = std::min(lowest, here);
    highest = std::max(highest, here);
    co_return 1;
  };
  const auto body = [&]() -> Task<int> {
    int sum = 0;
    for (int i = 0; i < 100'000; ++i) {
      const auto [one, two] = co_await when_all(touch(), touch());
      sum += one + two;
    }
    co_return sum;
  };
  CHECK(loop.run(body()) == 200'000);
  CHECK(highest - lowest < 4096);
}
