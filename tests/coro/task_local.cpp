// Values that go with a task: who shares one, who has a copy, and when it goes.
#include <weir/core/loop_thread.h>
#include <weir/core/sleep.h>
#include <weir/coro/async_generator.h>
#include <weir/coro/event.h>
#include <weir/coro/task_group.h>
#include <weir/coro/task_local.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_all.h>
#include <weir/coro/when_any.h>
#include <weir/coro/with_stop.h>

#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "../support/allocations.h"
#include "../support/drop_at.h"
#include "../support/tracer.h"
#include "../support/virtual_loop.h"

using namespace weir;
using test::Tracer;
using test::VirtualLoop;

namespace {

TaskLocal<std::string> request;
TaskLocal<int> depth(7);

Task<> set_later(std::string value) {
  co_await yield();
  request.set(std::move(value));
}

Task<std::string> get_later() {
  co_await yield();
  co_return request.get();
}

/// A value of which each copy is counted, and which may refuse to be copied.
struct Costly {
  static inline bool refuses = false;
  explicit Costly(Tracer::Counts& counts) : tracer(counts) {}
  Costly(const Costly& other) : tracer(other.tracer) {
    if (refuses) throw std::runtime_error("not copied");
  }
  Costly& operator=(const Costly&) = delete;
  ~Costly() = default;
  Tracer tracer;
};

/// Calls a function when the last copy goes.
using LastWords = std::shared_ptr<const void>;
LastWords last_words(std::function<void()> function) {
  return {nullptr, [call = std::move(function)](const void*) { call(); }};
}

}  // namespace

TEST_CASE("a task and what it awaits see one value") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    CHECK(request.get().empty());
    CHECK(depth.get() == 7);
    request.set("1");
    CHECK(request.get() == "1");
    CHECK(co_await get_later() == "1");
    co_await set_later("2");
    CHECK(request.get() == "2");
    depth.set(8);
    CHECK(depth.get() == 8);
    CHECK(request.get() == "2");
  };
  loop.run(body());
}

TEST_CASE(
    "nothing is set outside of a task, and setting it there is an error that changes nothing") {
  CHECK(depth.get() == 7);
  CHECK_THROWS_AS(depth.set(1), std::logic_error);
  VirtualLoop loop;
  CHECK(depth.get() == 7);
  CHECK_THROWS_AS(depth.set(1), std::logic_error);
  CHECK(depth.get() == 7);
}

TEST_CASE("a spawned task begins with the value of that moment, and has it for itself") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    TaskGroup group;
    request.set("1");
    std::vector<std::string> seen;
    const auto child = [&]() -> Task<> {
      seen.push_back(request.get());
      co_await yield();
      seen.push_back(request.get());
      request.set("child's");
      co_await yield();
      seen.push_back(request.get());
    };
    group.spawn(child());
    request.set("2");
    co_await group.join();
    CHECK(seen == std::vector<std::string>{"1", "1", "child's"});
    CHECK(request.get() == "2");
  };
  loop.run(body());
}

TEST_CASE("a task that was spawned before anything was set has nothing") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    TaskGroup group;
    std::optional<std::string> seen;
    const auto child = [&]() -> Task<> { seen = co_await get_later(); };
    group.spawn(child());
    request.set("1");
    co_await group.join();
    CHECK(seen == "");
  };
  loop.run(body());
}

TEST_CASE("the operands of when_all and when_any have values of their own, timeout's has not") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    request.set("1");
    const auto use = [](std::string mine) -> Task<bool> {
      const bool had = request.get() == "1";
      request.set(mine);
      co_await yield();
      co_await yield();
      co_return had&& request.get() == mine;
    };
    const auto [a, b] = co_await when_all(use("a"), use("b"));
    CHECK(a);
    CHECK(b);
    CHECK(request.get() == "1");
    CHECK(co_await get_later() == "1");
    std::vector<Task<bool>> many;
    many.push_back(use("c"));
    many.push_back(use("d"));
    const std::vector<bool> both = co_await when_all(std::move(many));
    CHECK(both == std::vector<bool>{true, true});
    CHECK(request.get() == "1");
    const auto first = co_await when_any(use("e"), sleep(1h));
    CHECK(first.index() == 0);
    CHECK(request.get() == "1");
    const auto at_once = []() -> Task<> {
      request.set("f");
      co_return;
    };
    co_await when_all(at_once(), at_once());
    CHECK(request.get() == "1");
    co_await timeout(1s, set_later("2"));
    CHECK(request.get() == "2");
    co_await with_stop(std::stop_token(), set_later("3"));
    CHECK(request.get() == "3");
    request.set("4");
    CHECK(co_await get_later() == "4");
  };
  loop.run(body());
}

TEST_CASE("operands within operands, and groups in them, each have theirs") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    std::vector<std::string> seen;
    const auto leaf = [&](std::string name) -> Task<> {
      request.set(request.get() + name);
      co_await yield();
      seen.push_back(request.get());
    };
    const auto branch = [&](std::string name) -> Task<> {
      request.set(request.get() + name);
      TaskGroup group;
      group.spawn(leaf("x"));
      co_await when_all(leaf("y"), leaf("z"));
      co_await group.join();
      CHECK(request.get() == "." + name);
    };
    request.set(".");
    co_await when_all(branch("a"), branch("b"));
    CHECK(seen == std::vector<std::string>{".ax", ".ay", ".az", ".bx", ".by", ".bz"});
    CHECK(request.get() == ".");
  };
  loop.run(body());
}

TEST_CASE("the body of a generator sees the value of whoever awaits it") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    const auto values = []() -> AsyncGenerator<std::string> {
      for (int i = 0;; ++i) {
        co_await yield();
        std::string seen = request.get();
        request.set("from the generator " + std::to_string(i));
        co_yield seen;
      }
    };
    auto generator = values();
    request.set("1");
    CHECK(*co_await generator.next() == "1");
    CHECK(request.get() == "from the generator 0");
    TaskGroup group;
    const auto other = [&]() -> Task<> {
      request.set("2");
      CHECK(*co_await generator.next() == "2");
      CHECK(request.get() == "from the generator 1");
    };
    group.spawn(other());
    co_await group.join();
    CHECK(request.get() == "from the generator 0");
  };
  loop.run(body());
}

TEST_CASE("destructors of a dropped task see its value, and may spawn with it") {
  VirtualLoop loop;
  std::vector<std::string> seen;
  const auto body = [&]() -> Task<> {
    TaskGroup above;
    const auto heir = [&]() -> Task<> { seen.push_back("heir of " + co_await get_later()); };
    struct AtEnd {
      std::function<void()> call;
      explicit AtEnd(std::function<void()> function) : call(std::move(function)) {}
      AtEnd(const AtEnd&) = delete;
      AtEnd& operator=(const AtEnd&) = delete;
      ~AtEnd() { call(); }
    };
    const auto child = [&](std::string name) -> Task<> {
      request.set(name);
      const AtEnd at_end([&] {
        seen.push_back(request.get());
        above.spawn(heir());
      });
      co_await sleep(1h);
    };
    request.set("parent");
    {
      TaskGroup group;
      group.spawn(child("spawned"));
    }
    const auto first = co_await when_any(child("operand"), yield());
    CHECK(first.index() == 1);
    co_await above.join();
    CHECK(request.get() == "parent");
  };
  loop.run(body());
  CHECK(seen ==
        std::vector<std::string>{"spawned", "heir of spawned", "operand", "heir of operand"});
}

TEST_CASE("a value goes with the last task that has it, or when it is replaced") {
  VirtualLoop loop;
  Tracer::Counts counts;
  std::optional<TaskLocal<std::shared_ptr<Tracer>>> local(std::in_place);
  const auto body = [&]() -> Task<> {
    Event go;
    TaskGroup group;
    local->set(std::make_shared<Tracer>(counts));
    const auto child = [&]() -> Task<> { co_await go.wait(); };
    group.spawn(child());
    group.spawn(child());
    local->set(nullptr);
    CHECK(counts.alive() == 1);
    local->set(std::make_shared<Tracer>(counts));
    local->set(std::make_shared<Tracer>(counts));
    CHECK(counts.alive() == 2);
    local.reset();  // values outlive it
    go.set();
    co_await group.join();
    co_await yield();
    CHECK(counts.alive() == 1);
  };
  loop.run(body());
  CHECK(counts.alive() == 0);
}

TEST_CASE("the last words of a value may set and get values of the task, which do not leak") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskLocal<std::shared_ptr<Tracer>> traced;
  TaskLocal<LastWords> last;
  int spoken = 0;
  const auto body = [&]() -> Task<> {
    const auto speak = [&] {
      ++spoken;
      CHECK(request.get() == "kept");
      traced.set(std::make_shared<Tracer>(counts));
      request.set("kept");
    };
    request.set("kept");
    last.set(last_words(speak));
    last.set(nullptr);
    CHECK(spoken == 1);
    last.set(last_words([&] {
      ++spoken;
      traced.set(std::make_shared<Tracer>(counts));
    }));
    co_return;
  };
  loop.run(body());
  CHECK(spoken == 2);
  CHECK(counts.alive() == 0);
}

TEST_CASE("a value that cannot be copied leaves all as it was") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<> {
    TaskLocal<std::optional<Costly>> costly;
    const std::optional<Costly> value(std::in_place, counts);
    costly.set(value);
    request.set("1");
    Costly::refuses = true;
    CHECK_THROWS_AS((void)costly.get(), std::runtime_error);
    CHECK_THROWS_AS(costly.set(value), std::runtime_error);
    CHECK_THROWS_AS((void)detail::current_locals_for_thread(), std::runtime_error);
    TaskGroup group;  // shares it, and has no need to copy
    const auto child = [&]() -> Task<> { co_await yield(); };
    group.spawn(child());
    co_await group.join();
    Costly::refuses = false;
    CHECK(costly.get().has_value());
    CHECK(request.get() == "1");
  };
  loop.run(body());
  CHECK(counts.alive() == 0);
}

TEST_CASE("tasks of a loop share a value without copying it") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<> {
    TaskLocal<std::optional<Costly>> costly;
    costly.set(std::optional<Costly>(std::in_place, counts));
    const int made = counts.made;
    const auto child = [&]() -> Task<> { co_await yield(); };
    TaskGroup group;
    for (int i = 0; i < 10; ++i) group.spawn(child());
    co_await when_all(child(), child());
    co_await group.join();
    CHECK(counts.made == made);
  };
  loop.run(body());
  CHECK(counts.alive() == 0);
}

TEST_CASE("who sets nothing allocates nothing for it") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    const auto child = []() -> Task<> { co_await yield(); };
    TaskGroup group;
    group.spawn(child());
    co_await group.join();
    const auto frames = detail::live_frames();
    const Event never;
    group.spawn(child());
    CHECK(detail::live_frames() - frames == 2);  // its frame, and the group's member
    co_await group.join();
  };
  loop.run(body());
}

TEST_CASE("without memory at any point a spawn or a set leaves all as it was") {
  for (int nth = 0;; ++nth) {
    VirtualLoop loop;
    bool failed = false;
    const auto body = [&]() -> Task<> {
      request.set("a text that is too long for its place");
      TaskGroup group;
      const auto child = []() -> Task<> { co_return; };
      Task<> task = child();
      std::string other = "another text that is too long for it";
      {
        const test::FailingAllocations fails(static_cast<std::uint64_t>(nth));
        try {
          group.spawn(std::move(task));
          request.set(std::move(other));
        } catch (const std::bad_alloc&) {
          failed = true;
        }
      }
      CHECK(request.get() == (failed ? "a text that is too long for its place"
                                     : "another text that is too long for it"));
      co_await group.join();
    };
    loop.run(body());
    if (!failed) break;
  }
}

TEST_CASE("drops at every suspension leave each task its own value, and none behind") {
  struct Scenario {
    Tracer::Counts& counts;
    TaskLocal<std::shared_ptr<Tracer>> traced = {};
    Task<> one(std::string name) {
      request.set(name);
      traced.set(std::make_shared<Tracer>(counts));
      for (int i = 0; i < 3; ++i) {
        co_await yield();
        CHECK(request.get() == name);
      }
    }
    Task<> task() {
      request.set("dropped");
      TaskGroup group;
      group.spawn(one("a"));
      co_await when_all(one("b"), when_any(one("c"), one("d")));
      const auto numbers = [this]() -> AsyncGenerator<int> {
        for (int i = 0; i < 2; ++i) {
          co_await when_all(one("e"), one("f"));
          CHECK(request.get() == "dropped");
          co_yield i;
        }
      };
      auto generator = numbers();
      while (const auto number = co_await generator.next()) CHECK(request.get() == "dropped");
      co_await group.join();
      CHECK(request.get() == "dropped");
    }
    Task<> afterwards(bool /*finished*/) {
      CHECK(request.get().empty());
      co_await yield();
      CHECK(request.get().empty());
    }
  };
  Tracer::Counts counts;
  CHECK(test::drop_at_every_moment([&] { return std::make_unique<Scenario>(counts); }) > 20);
  CHECK(counts.made > 0);
  CHECK(counts.alive() == 0);
}
