// Who owns whom: destroying and cancelling from below, from destructors and in the middle of a
// hand-over.
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/async_generator.h>
#include <weir/coro/event.h>
#include <weir/coro/task_group.h>
#include <weir/coro/timeout.h>

#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../support/tracer.h"
#include "../support/virtual_loop.h"

using namespace weir;
using test::Tracer;
using test::VirtualLoop;

namespace {

/// Calls a function when its frame goes.
struct AtEnd {
  explicit AtEnd(std::function<void()> function) : call(std::move(function)) {}
  AtEnd(AtEnd&&) noexcept = default;
  AtEnd& operator=(AtEnd&&) = delete;
  ~AtEnd() {
    if (call) call();
  }
  std::function<void()> call;
};

/// Something on the heap that a frame owns: whoever looks at it later than it may is found out.
using Owned = std::unique_ptr<std::string>;
Owned own() { return std::make_unique<std::string>("still there, and long enough for the heap"); }

Task<> hold(Tracer) { co_await sleep(1h); }

}  // namespace

TEST_CASE("a task may destroy the group that it runs in and then cancel the group above") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup outer;
  int step = 0;
  const auto child = [&](Tracer, std::unique_ptr<TaskGroup>& own_group,
                         const Owned& parents) -> Task<> {
    const Owned mine = own();
    co_await yield();
    own_group.reset();
    outer.cancel();
    step = static_cast<int>(*mine == *parents);
    co_await yield();
    step = 2;
  };
  const auto parent = [&](Tracer) -> Task<> {
    const Owned owned = own();
    auto inner = std::make_unique<TaskGroup>();
    inner->spawn(child(Tracer(counts), inner, owned));
    co_await sleep(1h);
  };
  outer.spawn(parent(Tracer(counts)));
  loop.settle();
  CHECK(step == 1);
  CHECK(counts.alive() == 0);
}

TEST_CASE("a task of a group in a generator's body may cancel whoever awaits the generator") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup outer;
  int step = 0;
  const auto child = [&](Tracer, const Owned& generators) -> Task<> {
    const Owned mine = own();
    co_await sleep(1s);
    outer.cancel();
    step = static_cast<int>(*mine == *generators);
    co_await yield();
    step = 2;
  };
  const auto make = [&]() -> AsyncGenerator<int> {
    const Owned owned = own();
    TaskGroup group;
    group.spawn(child(Tracer(counts), owned));
    for (int i = 0;; ++i) {
      co_yield i;
      co_await yield();
    }
  };
  const auto take = [&](Tracer) -> Task<> {
    auto generator = make();
    for (int i = 0; i < 3; ++i) (void)co_await generator.next();
    co_await sleep(1h);
  };
  outer.spawn(take(Tracer(counts)));
  loop.advance(2s);
  CHECK(step == 1);
  CHECK(counts.alive() == 0);
}

TEST_CASE("a destructor of a cancelled task may cancel the group above") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup outer;
  TaskGroup* inner = nullptr;
  int seen = 0;
  const auto child = [&](const Owned& owned, int number) -> Task<> {
    const AtEnd look([&] { seen += static_cast<int>(owned->size() > 0); });
    const AtEnd cancel([&outer, number] {
      if (number == 1) outer.cancel();
    });
    co_await sleep(1h);
  };
  const auto parent = [&](Tracer) -> Task<> {
    const Owned owned = own();
    TaskGroup group;
    inner = &group;
    for (int i = 0; i < 3; ++i) group.spawn(child(owned, i));
    co_await sleep(1h);
  };
  outer.spawn(parent(Tracer(counts)));
  SUBCASE("cancelled by nobody's coroutine") { inner->cancel(); }
  SUBCASE("cancelled by a task of another group") {
    TaskGroup others;
    const auto cancel = [&]() -> Task<> {
      inner->cancel();
      co_return;
    };
    others.spawn(cancel());
  }
  SUBCASE("cancelled from the ready queue") {
    TaskGroup others;
    const auto cancel = [&]() -> Task<> {
      co_await yield();
      inner->cancel();
    };
    others.spawn(cancel());
    loop.settle();
  }
  CHECK(seen == 3);
  CHECK(counts.alive() == 0);
  CHECK(outer.size() == 0);
}

TEST_CASE(
    "a destructor may cancel the owner of the group, generator or task that is being destroyed") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup outer;
  const auto child = [&](Tracer) -> Task<> {
    const AtEnd cancel([&] { outer.cancel(); });
    co_await sleep(1h);
  };
  const auto make = [&](Tracer) -> AsyncGenerator<int> {
    const AtEnd cancel([&] { outer.cancel(); });
    co_yield 1;
  };
  struct Things {
    std::optional<TaskGroup> group;
    AsyncGenerator<int> generator;
  };
  Things* things = nullptr;  // in the frame of the task that is cancelled
  const auto owner = [&](Tracer) -> Task<> {
    auto own_things = std::make_unique<Things>();
    things = own_things.get();
    TaskGroup& made = things->group.emplace();
    made.spawn(child(Tracer(counts)));  // weir-lint: allow(lambda-coroutine)
    things->generator = make(Tracer(counts));
    (void)co_await things->generator.next();
    co_await sleep(1h);
  };
  outer.spawn(owner(Tracer(counts)));
  const auto outside = [&](std::function<void()> act) -> Task<> {
    co_await yield();
    act();
  };
  TaskGroup others;
  SUBCASE("a group") {
    others.spawn(outside([&] { things->group.reset(); }));
  }
  SUBCASE("a generator") {
    others.spawn(outside([&] { things->generator.reset(); }));
  }
  SUBCASE("a generator that is replaced") {
    others.spawn(outside([&] { things->generator = {}; }));
  }
  SUBCASE("a group, by nobody's coroutine") { things->group.reset(); }
  SUBCASE("a generator, by nobody's coroutine") { things->generator = {}; }
  loop.settle();
  CHECK(outer.size() == 0);
  CHECK(counts.alive() == 0);
}

TEST_CASE("a destructor of a task that is dropped in a spawn may cancel the spawner") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup outer;
  TaskGroup others;  // not below the spawner
  int step = 0;
  const auto child = [&]() -> Task<> {
    const AtEnd cancel([&] { outer.cancel(); });
    others.cancel();
    co_await yield();
    step = -1;
  };
  const auto spawner = [&](Tracer) -> Task<> {
    const Owned mine = own();
    co_await yield();
    others.spawn(child());
    step = static_cast<int>(mine->size() > 0);
    co_await yield();
    step = 2;
  };
  outer.spawn(spawner(Tracer(counts)));
  loop.settle();
  CHECK(step == 1);
  CHECK(counts.alive() == 0);
}

TEST_CASE("cancelling a hundred thousand tasks takes linear time") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup group;
  const auto cancel_all = [&](Tracer) -> Task<> {
    co_await yield();
    group.cancel();
    co_await yield();
  };
  group.spawn(cancel_all(Tracer(counts)));  // in front of all others, and to go last
  for (int i = 0; i < 100'000; ++i) group.spawn(hold(Tracer(counts)));
  loop.settle();
  CHECK(counts.alive() == 0);
}

TEST_CASE("a group may be destroyed while another coroutine joins it") {
  VirtualLoop loop;
  Tracer::Counts counts;
  auto group = std::make_unique<TaskGroup>();
  TaskGroup joiners;
  int joined = 0;
  std::string failure;
  const auto join = [&]() -> Task<> {
    try {
      co_await group->join();
      ++joined;
    } catch (const std::runtime_error& error) {
      failure = error.what();
    }
  };
  SUBCASE("with tasks left") {
    group->spawn(hold(Tracer(counts)));
    joiners.spawn(join());
    joiners.spawn(join());
    group.reset();
    loop.settle();
    CHECK(joined == 2);
  }
  SUBCASE("when the last has finished") {
    const auto finish = []() -> Task<> { co_await yield(); };
    group->spawn(finish());
    joiners.spawn(join());
    REQUIRE(loop.step());
    CHECK(group->size() == 0);
    group.reset();
    loop.settle();
    CHECK(joined == 1);
  }
  SUBCASE("when one has failed: all who wait are told") {
    const auto fail = []() -> Task<> {
      co_await yield();
      throw std::runtime_error("in the middle");
    };
    group->spawn(fail());
    joiners.spawn(join());
    joiners.spawn(join());
    REQUIRE(loop.step());
    group.reset();
    loop.settle();
    CHECK(joined == 0);
    CHECK(failure == "in the middle");
    CHECK(loop.reported().empty());
  }
  CHECK(counts.alive() == 0);
}

TEST_CASE("a generator destroyed between its yield and the end of next gives nothing") {
  VirtualLoop loop;
  const auto make = []() -> AsyncGenerator<Owned> {
    co_await yield();
    co_yield own();
  };
  std::optional<AsyncGenerator<Owned>> generator = make();
  std::optional<bool> got;
  const auto take = [&]() -> Task<> { got = (co_await generator->next()).has_value(); };
  TaskGroup group;
  group.spawn(take());
  REQUIRE(loop.step());  // the body yields
  CHECK_FALSE(got.has_value());
  SUBCASE("destroyed") {
    generator.reset();
    loop.settle();
    CHECK(got == false);
  }
  SUBCASE("replaced") {
    *generator = make();
    loop.settle();
    CHECK(got == false);
  }
  SUBCASE("next is dropped, then the generator") {
    group.cancel();
    generator.reset();
    loop.settle();
  }
  SUBCASE("next is dropped: its value goes to the following") {
    group.cancel();
    got.reset();
    group.spawn(take());
    CHECK(got == true);
  }
  SUBCASE("another next cannot take the value away") {
    CHECK_THROWS_AS(loop.run(take()), std::logic_error);
    loop.settle();
    CHECK(got == true);
  }
}

TEST_CASE("a generator may be destroyed by what its body runs") {
  VirtualLoop loop;
  Tracer::Counts counts;
  std::optional<AsyncGenerator<int>> generator;
  std::optional<bool> got;
  int step = 0;
  const auto take = [&](Tracer) -> Task<> { got = (co_await generator->next()).has_value(); };
  TaskGroup group;
  SUBCASE("by its body") {
    const auto make = [&](Tracer, bool suspend) -> AsyncGenerator<int> {
      const Owned mine = own();
      if (suspend) co_await yield();
      generator.reset();
      step += static_cast<int>(mine->size() > 0);
      co_yield 1;
      step += 10;
    };
    for (const bool suspend : {false, true}) {
      step = 0;
      got.reset();
      generator = make(Tracer(counts), suspend);
      group.spawn(take(Tracer(counts)));
      loop.settle();
      CHECK(step == 1);
      CHECK(got == false);
      CHECK(counts.alive() == 0);
    }
  }
  SUBCASE("by a task that its body spawned") {
    const auto child = [&](Tracer) -> Task<> {
      const Owned mine = own();
      co_await sleep(1s);
      generator.reset();
      step += static_cast<int>(mine->size() > 0);
      co_await yield();
      step += 10;
    };
    const auto make = [&](Tracer) -> AsyncGenerator<int> {
      TaskGroup inside;
      inside.spawn(child(Tracer(counts)));
      co_await inside.join();
      co_yield 1;
    };
    generator = make(Tracer(counts));
    group.spawn(take(Tracer(counts)));
    loop.advance(2s);
    CHECK(step == 1);
    CHECK(got == false);
    CHECK(counts.alive() == 0);
  }
}

TEST_CASE("a generator whose next was dropped may be awaited by a task of its own body") {
  VirtualLoop loop;
  std::optional<AsyncGenerator<int>> generator;
  int timed_out = 0;
  const auto child = [&]() -> Task<> {
    co_await sleep(2s);
    auto [error, item] = co_await as_tuple(timeout(1s, generator->next()));
    if (error) ++timed_out;
  };
  const auto make = [&]() -> AsyncGenerator<int> {
    TaskGroup inside;
    inside.spawn(child());
    co_await inside.join();
    co_yield 1;
  };
  generator = make();
  const auto take = [&]() -> Task<std::optional<int>> {
    auto [error, item] = co_await as_tuple(timeout(1s, generator->next()));
    if (error) ++timed_out;
    co_await sleep(3s);
    co_return co_await generator->next();
  };
  CHECK(loop.run(take()) == 1);
  CHECK(timed_out == 2);
}
