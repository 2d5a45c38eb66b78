#include <weir/coro/frame_allocator.h>
#include <weir/coro/task.h>

#include <doctest/doctest.h>
#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../support/manual.h"
#include "../support/tracer.h"

using namespace weir;
using namespace weir::detail;
using test::Farewell;
using test::Manual;
using test::Tracer;

namespace {

/// A coroutine that starts at once and needs no loop: the test's own outermost frame.
struct Start {
  struct promise_type {
    Start get_return_object() {
      return Start(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    static std::suspend_never initial_suspend() noexcept { return {}; }
    static std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    static void unhandled_exception() noexcept { std::terminate(); }
  };

  explicit Start(std::coroutine_handle<promise_type> coroutine) : handle(coroutine) {}
  Start(Start&& other) noexcept : handle(std::exchange(other.handle, nullptr)) {}
  Start& operator=(Start&&) = delete;
  ~Start() { drop(); }

  [[nodiscard]] bool done() const { return handle.done(); }
  void drop() {
    if (auto coroutine = std::exchange(handle, nullptr)) coroutine.destroy();
  }

  std::coroutine_handle<promise_type> handle;
};

template <class T>
Start start(Task<T> task, std::optional<T>& result) {
  result.emplace(co_await std::move(task));
}

Start start(Task<> task, std::exception_ptr* failure = nullptr) {
  try {
    co_await std::move(task);
  } catch (...) {
    if (failure == nullptr) throw;
    *failure = std::current_exception();
  }
}

template <class T>
T result_of(Task<T> task) {
  std::optional<T> result;
  const Start started = start(std::move(task), result);
  REQUIRE(started.done());
  return std::move(*result);
}

Task<int> number(int value) { co_return value; }

Task<int> sum_of_numbers() {
  const int one = co_await number(1);
  co_return one + co_await number(2);
}

Task<std::unique_ptr<int>> owned(int value) { co_return std::make_unique<int>(value); }

Task<int&> reference_to(int& variable) { co_return variable; }

Task<> fail(const char* why) {
  throw std::runtime_error(why);
  co_return;
}

Task<int> wait_for(Manual& manual) { co_return co_await manual; }

}  // namespace

TEST_CASE("a task gives its value to whoever awaits it") {
  CHECK(result_of(number(7)) == 7);
  CHECK(result_of(sum_of_numbers()) == 3);
}

TEST_CASE("a task may give what can only be moved") { CHECK(*result_of(owned(5)) == 5); }

TEST_CASE("a task may give a reference") {
  int variable = 1;
  const auto set = [&]() -> Task<int> {
    int& same = co_await reference_to(variable);
    same = 9;
    co_return 0;
  };
  result_of(set());
  CHECK(variable == 9);
}

TEST_CASE("a task may give a type without a default constructor, by braces") {
  struct Point {
    Point(int first, int second) : x(first), y(second) {}
    int x, y;
  };
  const auto make = []() -> Task<Point> { co_return {3, 4}; };
  std::optional<Point> point;
  const Start started = start(make(), point);
  CHECK(point->y == 4);
}

TEST_CASE("an exception goes to the awaiter, through every task on its way") {
  const auto middle = []() -> Task<> { co_await fail("deep"); };
  const auto outer = [&]() -> Task<std::string> {
    std::string text;
    try {
      co_await middle();
    } catch (const std::runtime_error& error) {
      text = error.what();
    }
    co_return text;
  };
  CHECK(result_of(outer()) == "deep");
}

TEST_CASE("a result whose move throws becomes the awaiter's exception") {
  struct Fragile {
    Fragile() = default;
    Fragile(const Fragile&) { throw std::runtime_error("copy"); }
  };
  const auto make = []() -> Task<Fragile> {
    const Fragile fragile;
    co_return fragile;
  };
  const auto outer = [&]() -> Task<> { co_await make(); };
  std::exception_ptr failure;
  const Start started = start(outer(), &failure);
  CHECK_THROWS_WITH(std::rethrow_exception(failure), "copy");
}

TEST_CASE("a task runs nothing before it is awaited") {
  bool ran = false;
  const auto run = [&]() -> Task<> {
    ran = true;
    co_return;
  };
  {
    const Task<> never = run();
    CHECK(never);
  }
  CHECK_FALSE(ran);
  const Start started = start(run());
  CHECK(ran);
}

TEST_CASE("a task that was never started still destroys its parameters") {
  Tracer::Counts counts;
  const auto take = [](Tracer) -> Task<> { co_return; };
  {
    const Task<> never = take(Tracer(counts));
  }
  CHECK(counts.made > 0);
  CHECK(counts.alive() == 0);
}

TEST_CASE("awaiting an empty task throws") {
  const auto await_moved = []() -> Task<> {
    Task<> task = fail("never");
    const Task<> other = std::move(task);
    co_await std::move(task);
  };
  std::exception_ptr failure;
  const Start started = start(await_moved(), &failure);
  CHECK_THROWS_AS(std::rethrow_exception(failure), std::logic_error);
}

TEST_CASE("moving, assigning and resetting a task keeps one owner of its frame") {
  Tracer::Counts counts;
  const auto take = [](Tracer) -> Task<> { co_return; };
  Task<> first = take(Tracer(counts));
  Task<> second = take(Tracer(counts));
  CHECK(counts.alive() == 2);
  first = std::move(second);
  CHECK(counts.alive() == 1);
  CHECK_FALSE(second);
  auto& same = first;
  first = std::move(same);
  CHECK(first);
  first.reset();
  CHECK(counts.alive() == 0);
  CHECK_FALSE(first);
}

TEST_CASE("a suspended task goes on where it was, with what it awaited") {
  Manual manual;
  std::optional<int> result;
  const Start started = start(wait_for(manual), result);
  CHECK(manual.waiting());
  CHECK_FALSE(started.done());
  manual.resume(42);
  CHECK(started.done());
  CHECK(result == 42);
}

TEST_CASE("dropping a suspended task unwinds its frames innermost first") {
  Manual manual;
  std::vector<std::string> journal;
  const auto inner = [&]() -> Task<> {
    const Farewell farewell(journal, "inner");
    co_await manual;
  };
  const auto middle = [&]() -> Task<> {
    const Farewell local(journal, "middle");
    co_await inner();
  };
  const auto outer = [&]() -> Task<> {
    const Farewell first(journal, "outer's first");
    const Farewell second(journal, "outer's second");
    co_await middle();
  };
  Start started = start(outer());
  REQUIRE(manual.waiting());
  started.drop();
  CHECK(manual.dropped() == 1);
  CHECK(journal == std::vector<std::string>{"inner", "middle", "outer's second", "outer's first"});
}

TEST_CASE("dropping whoever awaits a task drops the task, wherever it is kept") {
  Manual manual;
  Task<int> kept = wait_for(manual);
  const auto outer = [&]() -> Task<> { co_await std::move(kept); };
  Start started = start(outer());
  REQUIRE(manual.waiting());
  started.drop();
  CHECK_FALSE(manual.waiting());
  CHECK(manual.dropped() == 1);
}

TEST_CASE("a task's frame is gone when its awaiter goes on") {
  Tracer::Counts counts;
  const auto inner = [&]() -> Task<> {
    const Tracer tracer(counts);
    co_return;
  };
  int alive = -1;
  std::int64_t frames = 0;
  const auto outer = [&]() -> Task<> {
    Task<> kept = inner();
    const auto before = live_frames();
    co_await std::move(kept);
    alive = counts.alive();
    frames = live_frames() - before;
  };
  const Start started = start(outer());
  CHECK(alive == 0);
  CHECK(frames == -1);
}

TEST_CASE("a million awaits of a task that finishes at once do not deepen the stack") {
  std::uintptr_t lowest = UINTPTR_MAX;
  std::uintptr_t highest = 0;
  const auto touch = [&]() -> Task<int> {
    const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    lowest = std::min(lowest, here);
    highest = std::max(highest, here);
    co_return 1;
  };
  const auto loop = [&]() -> Task<int> {
    int sum = 0;
    for (int i = 0; i < 1'000'000; ++i) sum += co_await touch();
    co_return sum;
  };
  CHECK(result_of(loop()) == 1'000'000);
  CHECK(highest - lowest < 4096);
}

TEST_CASE("a chain of ten thousand tasks can be awaited, dropped and finished") {
  constexpr int kDepth = 10'000;
  struct Chain {
    static Task<int> link(Manual& manual, int depth) {
      if (depth == 0) co_return co_await manual;
      co_return 1 + co_await link(manual, depth - 1);
    }
  };
  // Awaiting, finishing and dropping nest as calls do; the sanitizers' frames are larger.
#ifdef WEIR_SANITIZED
  constexpr std::size_t kStack = 64 << 20;
#else
  constexpr std::size_t kStack = 8 << 20;
#endif
  const auto await_and_drop = [](void*) -> void* {
    Manual manual;
    {
      std::optional<int> result;
      Start started = start(Chain::link(manual, kDepth), result);
      CHECK(manual.waiting());
      started.drop();
      CHECK(manual.dropped() == 1);
    }
    std::optional<int> result;
    const Start started = start(Chain::link(manual, kDepth), result);
    manual.resume(5);
    CHECK(result == kDepth + 5);
    return nullptr;
  };
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, kStack);
  pthread_t thread{};
  REQUIRE(::pthread_create(&thread, &attributes, await_and_drop, nullptr) == 0);
  ::pthread_join(thread, nullptr);
  ::pthread_attr_destroy(&attributes);
}
