#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/error.h>
#include <weir/coro/event.h>
#include <weir/coro/task_group.h>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/allocations.h"
#include "../support/tracer.h"
#include "../support/virtual_loop.h"

using namespace weir;
using namespace std::chrono_literals;
using test::Tracer;
using test::VirtualLoop;

namespace {

Task<> hold(Tracer) { co_await sleep(1h); }

Task<> fail_after(Duration delay, const char* why) {
  co_await sleep(delay);
  throw std::runtime_error(why);
}

Task<> append(std::vector<int>& journal, Duration delay, int number) {
  co_await sleep(delay);
  journal.push_back(number);
}

}  // namespace

TEST_CASE("a group is made where a loop runs, and nowhere else") {
  CHECK_THROWS_AS(TaskGroup(), std::logic_error);
}

TEST_CASE("spawn runs the task to its first suspension before it returns") {
  VirtualLoop loop;
  int step = 0;
  const auto steps = [&]() -> Task<> {
    step = 1;
    co_await yield();
    step = 2;
  };
  TaskGroup group;
  group.spawn(steps());
  CHECK(step == 1);
  CHECK(group.size() == 1);
  loop.settle();
  CHECK(step == 2);
  CHECK(group.size() == 0);
}

TEST_CASE("join resumes when the last task has finished") {
  VirtualLoop loop;
  const auto body = []() -> Task<> {
    std::vector<int> journal;
    TaskGroup group;
    co_await group.join();  // of none
    group.spawn(append(journal, 3s, 3));
    group.spawn(append(journal, 1s, 1));
    group.spawn(append(journal, 2s, 2));
    group.spawn(append(journal, 0s, 0));
    CHECK(group.size() == 3);
    co_await group.join();
    CHECK(journal == std::vector<int>{0, 1, 2, 3});
    group.spawn(append(journal, 1s, 4));
    co_await group.join();
    CHECK(journal.back() == 4);
  };
  loop.run(body());
}

TEST_CASE("join throws the first failure after dropping the rest") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<> {
    TaskGroup group;
    group.spawn(hold(Tracer(counts)));
    group.spawn(fail_after(1s, "first"));
    group.spawn(fail_after(2s, "second"));
    bool thrown = false;
    try {
      co_await group.join();
    } catch (const std::runtime_error& error) {
      thrown = true;
      CHECK(std::string(error.what()) == "first");
      CHECK(counts.alive() == 0);
      CHECK(group.size() == 0);
    }
    CHECK(thrown);
    co_await group.join();  // it was told once
  };
  loop.run(body());
  CHECK(loop.reported().empty());
}

TEST_CASE("join throws a failure that came before it") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<> {
    TaskGroup group;
    group.spawn(fail_after(0s, "at once"));
    group.spawn(hold(Tracer(counts)));
    CHECK_THROWS_WITH(co_await group.join(), "at once");
    CHECK(counts.alive() == 0);
  };
  loop.run(body());
}

TEST_CASE("a failure that nobody joined is logged, a second one too") {
  VirtualLoop loop;
  {
    TaskGroup group;
    group.spawn(fail_after(0s, "first"));
    group.spawn(fail_after(0s, "second"));
    CHECK(loop.reported().size() == 1);
  }
  REQUIRE(loop.reported().size() == 2);
  CHECK(loop.reported()[0].find("second") != std::string::npos);
  CHECK(loop.reported()[1].find("first") != std::string::npos);
}

TEST_CASE("dropping a join leaves the tasks alone") {
  VirtualLoop loop;
  std::vector<int> journal;
  TaskGroup group;
  group.spawn(append(journal, 1s, 1));
  {
    TaskGroup joiners;
    const auto join = [&]() -> Task<> { co_await group.join(); };
    joiners.spawn(join());
  }
  loop.advance(2s);
  CHECK(journal == std::vector<int>{1});
}

TEST_CASE("several may join a group") {
  VirtualLoop loop;
  std::vector<int> journal;
  TaskGroup group;
  TaskGroup joiners;
  int joined = 0;
  const auto join = [&]() -> Task<> {
    co_await group.join();
    ++joined;
  };
  group.spawn(append(journal, 1s, 1));
  joiners.spawn(join());
  joiners.spawn(join());
  loop.advance(2s);
  CHECK(joined == 2);
}

TEST_CASE("all who join a group are told of its failure") {
  VirtualLoop loop;
  std::optional<TaskGroup> group(std::in_place);
  TaskGroup joiners;
  TaskGroup dropped;
  int told = 0;
  const auto join = [&]() -> Task<> {
    try {
      co_await group->join();
    } catch (const std::runtime_error&) {
      ++told;
    }
  };
  group->spawn(fail_after(1s, "failed"));
  std::vector<int> journal;
  group->spawn(append(journal, 1h, 1));
  joiners.spawn(join());
  joiners.spawn(join());
  dropped.spawn(join());
  SUBCASE("while it lives") { loop.advance(2s); }
  SUBCASE("that was destroyed before they resumed") {
    const auto end = [&]() -> Task<> {
      co_await sleep(1s);
      group.reset();
      dropped.cancel();
    };
    joiners.spawn(end);
    loop.advance(2s);
  }
  CHECK(told >= 2);
  CHECK(loop.reported().empty());
}

TEST_CASE("cancel drops all tasks, the destructor too") {
  VirtualLoop loop;
  Tracer::Counts counts;
  {
    TaskGroup group;
    for (int i = 0; i < 10; ++i) group.spawn(hold(Tracer(counts)));
    CHECK(group.size() == 10);
    group.cancel();
    CHECK(group.size() == 0);
    CHECK(counts.alive() == 0);
    group.cancel();
    for (int i = 0; i < 10; ++i) group.spawn(hold(Tracer(counts)));
    CHECK(group.size() == 10);
  }
  CHECK(counts.made > 0);
  CHECK(counts.alive() == 0);
}

TEST_CASE("cancel resumes those who join") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup group;
  TaskGroup joiners;
  bool joined = false;
  const auto join = [&]() -> Task<> {
    co_await group.join();
    joined = true;
  };
  group.spawn(hold(Tracer(counts)));
  joiners.spawn(join());
  group.cancel();
  loop.settle();
  CHECK(joined);
}

TEST_CASE("a task that cancels its own group is dropped at its next suspension") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup group;
  int step = 0;
  const auto cancel_own = [&](Tracer) -> Task<> {
    co_await yield();
    group.cancel();
    step = 1;
    co_await sleep(0s);  // does not suspend
    step = 2;
    co_await yield();
    step = 3;
  };
  group.spawn(cancel_own(Tracer(counts)));
  group.spawn(hold(Tracer(counts)));
  loop.advance(1s);
  CHECK(step == 2);
  CHECK(counts.alive() == 0);
  CHECK(group.size() == 0);
}

TEST_CASE("a task that cancels its own group may finish instead, or fail") {
  VirtualLoop loop;
  TaskGroup group;
  const auto finish = [&](bool fail) -> Task<> {
    co_await yield();
    group.cancel();
    if (fail) throw std::runtime_error("after the cancel");
  };
  group.spawn(finish(false));
  loop.settle();
  CHECK(loop.reported().empty());
  group.spawn(finish(true));
  loop.settle();
  REQUIRE(loop.reported().size() == 1);
  CHECK(loop.reported()[0].find("after the cancel") != std::string::npos);
}

TEST_CASE("a cancelled task that ends with operation_canceled is no failure") {
  VirtualLoop loop;
  TaskGroup group;
  const auto give_up = [&]() -> Task<> {
    co_await yield();
    group.cancel();
    throw std::system_error(weir::errc::closed_here);  // as a connection does, which went with it
  };
  group.spawn(give_up());
  loop.settle();
  CHECK(loop.reported().empty());
}

TEST_CASE("a task that cancels its own group before its first suspension is dropped there") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup group;
  bool went_on = false;
  const auto cancel_own = [&](Tracer) -> Task<> {
    group.cancel();
    co_await yield();
    went_on = true;
  };
  group.spawn(cancel_own(Tracer(counts)));
  CHECK(counts.alive() == 0);
  loop.settle();
  CHECK_FALSE(went_on);
}

TEST_CASE("a task may destroy the group that it runs in") {
  VirtualLoop loop;
  Tracer::Counts counts;
  auto group = std::make_unique<TaskGroup>();
  int step = 0;
  const auto destroy_own = [&](Tracer) -> Task<> {
    co_await yield();
    group.reset();
    step = 1;
    co_await yield();
    step = 2;
  };
  group->spawn(destroy_own(Tracer(counts)));
  group->spawn(hold(Tracer(counts)));
  loop.settle();
  CHECK(step == 1);
  CHECK(counts.alive() == 0);
}

TEST_CASE("the last of the tasks may own the group") {
  VirtualLoop loop;
  struct Session {
    Tracer tracer;
    TaskGroup group;
  };
  Tracer::Counts counts;
  const auto serve = [](std::shared_ptr<Session> session, Duration delay) -> Task<> {
    co_await sleep(delay);
    (void)session;
  };
  const auto start = [&] {
    auto session = std::make_shared<Session>(Tracer(counts));
    session->group.spawn(serve(session, 1s));
    session->group.spawn(serve(session, 2s));
    return session.get();
  };
  SUBCASE("and end with it") {
    start();
    loop.advance(3s);
    CHECK(counts.alive() == 0);
  }
  SUBCASE("and be cancelled") {
    start()->group.cancel();
    CHECK(counts.alive() == 0);
  }
}

TEST_CASE("a task of an inner group may cancel the outer one") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup outer;
  int step = 0;
  const auto inner_task = [&](Tracer) -> Task<> {
    co_await yield();
    outer.cancel();  // would destroy the frame that holds the group that this runs in
    step = 1;
    co_await yield();
    step = 2;
  };
  const auto outer_task = [&](Tracer) -> Task<> {
    const Tracer local(counts);
    TaskGroup inner;
    inner.spawn(inner_task(Tracer(counts)));
    co_await inner.join();
    step = 3;
  };
  outer.spawn(outer_task(Tracer(counts)));
  loop.settle();
  CHECK(step == 1);
  CHECK(counts.alive() == 0);
}

TEST_CASE("a finished task goes before the task whose group it ran in, whoever was doomed first") {
  VirtualLoop loop;
  struct Guard {
    explicit Guard(int& of) noexcept : count(&of) {}
    Guard(Guard&& other) noexcept : count(std::exchange(other.count, nullptr)) {}
    ~Guard() {
      if (count != nullptr) ++*count;  // of the frame that owns the group
    }
    int* count;
  };
  for (const bool inner_too : {false, true}) {
    TaskGroup outer;
    int seen = 0;
    const auto child = [&](Guard, TaskGroup& own) -> Task<> {
      co_await yield();
      outer.cancel();
      if (inner_too) own.cancel();
    };
    const auto parent = [&]() -> Task<> {
      int counter = 0;
      struct Look {
        int& from;
        int& to;
        ~Look() { to = from; }
      };
      const Look look{counter, seen};
      TaskGroup own;
      own.spawn(child(Guard(counter), own));
      co_await own.join();
    };
    outer.spawn(parent());
    loop.settle();
    CHECK(outer.size() == 0);
    CHECK(seen == 1);
  }
}

TEST_CASE("a task that is spawned by a running one may cancel its spawner's group at once") {
  VirtualLoop loop;
  Tracer::Counts counts;
  TaskGroup outer;
  std::vector<int> journal;
  const auto nested = [&](Tracer) -> Task<> {
    outer.cancel();
    journal.push_back(1);
    co_await yield();
    journal.push_back(-1);
  };
  const auto spawner = [&](Tracer) -> Task<> {
    co_await yield();
    TaskGroup inner;
    inner.spawn(nested(Tracer(counts)));
    journal.push_back(2);  // it runs on to its own suspension
    co_await yield();
    journal.push_back(-2);
  };
  outer.spawn(spawner(Tracer(counts)));
  loop.settle();
  CHECK(journal == std::vector<int>{1, 2});
  CHECK(counts.alive() == 0);
}

TEST_CASE("what is spawned while a group is cancelled runs") {
  VirtualLoop loop;
  bool ran = false;
  TaskGroup group;
  const auto late = [&]() -> Task<> {
    co_await yield();
    ran = true;
  };
  struct SpawnOnDrop {
    std::function<void()> spawn;
    ~SpawnOnDrop() { spawn(); }
  };
  const auto task = [&]() -> Task<> {
    const SpawnOnDrop drop{[&] { group.spawn(late()); }};
    co_await sleep(1h);
  };
  group.spawn(task());
  group.cancel();
  CHECK(group.size() == 1);
  loop.settle();
  CHECK(ran);
}

TEST_CASE("what is spawned while a group is destroyed is dropped with it") {
  VirtualLoop loop;
  Tracer::Counts counts;
  struct SpawnOnDrop {
    TaskGroup& group;
    Tracer::Counts& counts;
    ~SpawnOnDrop() { group.spawn(hold(Tracer(counts))); }
  };
  {
    TaskGroup group;
    const auto task = [&]() -> Task<> {
      const SpawnOnDrop drop{group, counts};
      co_await sleep(1h);
    };
    group.spawn(task());
  }
  CHECK(counts.made > 0);
  CHECK(counts.alive() == 0);
}

TEST_CASE("a task may spawn into its own group, and be cancelled while it does") {
  VirtualLoop loop;
  TaskGroup group;
  int spawned = 0;
  struct Spawner {
    static Task<> run(TaskGroup& group, int& spawned, int depth) {
      ++spawned;
      if (depth > 0) {
        group.spawn(run(group, spawned, depth - 1));
        group.spawn(run(group, spawned, depth - 1));
      }
      co_await yield();
      if (depth == 5) group.cancel();
    }
  };
  group.spawn(Spawner::run(group, spawned, 5));
  loop.settle();
  CHECK(spawned == 63);
  CHECK(group.size() == 0);
}

TEST_CASE("what spawn is to keep lives as long as the task's frame") {
  VirtualLoop loop;
  TaskGroup group;
  auto kept = std::make_shared<int>(5);
  const std::weak_ptr<int> watch = kept;
  const auto read = [](const int& value, int& result) -> Task<> {
    co_await yield();
    result = value;
  };
  int result = 0;
  auto reading = read(*kept, result);
  group.spawn(std::move(reading), std::move(kept));
  CHECK_FALSE(watch.expired());
  loop.settle();
  CHECK(result == 5);
  CHECK(watch.expired());
}

TEST_CASE("a spawn for which there is no memory starts nothing and counts nothing") {
  int failures = 0;
  bool started = false;
  for (std::uint64_t allowed = 0; !started; ++allowed) {
    REQUIRE(allowed < 10);
    // In a thread of its own, which has no frames to recycle.
    std::thread([&] {
      VirtualLoop loop;
      Tracer::Counts counts;
      TaskGroup group;
      const auto body = [&](Tracer) -> Task<> {
        started = true;
        co_await yield();
      };
      try {
        const test::FailingAllocations failing(allowed);
        group.spawn(body(Tracer(counts)));
      } catch (const std::bad_alloc&) {
        ++failures;
        CHECK_FALSE(started);
        CHECK(group.size() == 0);
        CHECK(counts.alive() == 0);
      }
      loop.settle();
      CHECK(counts.alive() == 0);
    }).join();
  }
  CHECK(failures == 2);  // the frames of the task and of what the group puts around it
}

TEST_CASE("a group keeps the callable whose task it spawns") {
  test::VirtualLoop loop;
  TaskGroup group;
  std::string seen;
  {
    const std::string text(100, 'x');
    group.spawn([&seen, text]() -> Task<> {
      co_await sleep(1s);
      seen = text;
    });
  }
  CHECK(group.size() == 1);
  loop.advance(2s);
  CHECK(seen == std::string(100, 'x'));
  CHECK(group.size() == 0);
}
