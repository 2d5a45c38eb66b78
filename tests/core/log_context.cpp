// What the lines of a task begin with.
#include <weir/core/blocking.h>
#include <weir/core/logging.h>
#include <weir/core/loop_thread.h>
#include <weir/core/on.h>
#include <weir/core/sleep.h>
#include <weir/coro/event.h>
#include <weir/coro/task_group.h>
#include <weir/coro/when_all.h>

#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "../support/allocations.h"
#include "../support/captured_log.h"
#include "../support/net_drop.h"

using namespace weir;
using namespace weir::test;

namespace {

void say(std::string_view text) { logging::write(logging::Level::info, text); }

/// Takes the lines of its thread: on the simulation those of the world go to its trace.
struct Tap final : LogTap {
  Tap() : outer(set_log_tap(this)) {}
  Tap(const Tap&) = delete;
  Tap& operator=(const Tap&) = delete;
  ~Tap() { set_log_tap(outer); }
  void take(logging::Level /*level*/, std::string_view text) noexcept override {
    lines.emplace_back(text);
  }
  std::vector<std::string> lines;
  LogTap* outer;
};

}  // namespace

TEST_CASE("lines of a task begin with its context, those of others with theirs") {
  on_each_engine([]() -> Task<> {
    std::vector<std::string> lines;
    const auto note = [&lines](std::string_view text) {
      const Tap tap;
      say(text);
      lines.push_back(tap.lines.at(0));
    };
    note("before");
    logging::set_context("request=42");
    note("in it");
    const auto deeper = [&]() -> Task<> {
      co_await yield();
      note("deeper");
      logging::set_context(logging::context() + " user=7");
    };
    co_await deeper();
    note("after");
    const auto other = [&](std::string_view name) -> Task<> {
      logging::set_context(name);
      co_await yield();
      note("other");
    };
    TaskGroup group;
    group.spawn(other("a"));
    co_await when_all(other("b"), other(""));
    co_await group.join();
    Event posted;
    EventLoop::current().post([&] {
      note("posted");
      posted.set();
    });
    co_await posted.wait();
    logging::set_context("");
    note("without");
    CHECK(lines == std::vector<std::string>{"before", "[request=42] in it", "[request=42] deeper",
                                            "[request=42 user=7] after", "[a] other", "[b] other",
                                            "other", "posted", "without"});
  });
}

TEST_CASE("the log's lines have the context of when they were written, on every thread") {
  const CapturedLog log;
  EventLoopThread other;
  const auto body = [&]() -> Task<> {
    logging::set_context("request=42");
    say("here");
    const auto there = []() -> Task<> {
      say("there");
      logging::set_context("changed there");
      co_return;
    };
    co_await on(other.loop(), there());
    const auto work = [] { say("in a thread"); };
    co_await blocking(work);
    logging::set_context("request=43");
    say("the next");
  };
  run(body());
  CHECK(log.lines() == std::vector<std::string>{"[request=42] here", "[request=42] there",
                                                "[request=42] in a thread",
                                                "[request=43] the next"});
}

TEST_CASE("what the library says of a task's failure has the task's context") {
  on_each_engine([]() -> Task<> {
    const Tap tap;
    EventLoop::current().spawn([]() -> Task<> {
      logging::set_context("request=42");
      co_await yield();
      throw std::runtime_error("a bug");
    });
    co_await yield();
    co_await yield();
    CHECK(tap.lines ==
          std::vector<std::string>{"[request=42] exception left a spawned task: a bug"});
  });
}

TEST_CASE("a context cannot forge lines, and is cut where it is too long, as the line is") {
  const auto body = []() -> Task<> {
    const Tap tap;
    logging::set_context("a\nb");
    say("text");
    logging::set_context(std::string(5000, 'c'));
    CHECK(logging::context() == std::string(1024, 'c'));
    say(std::string(10000, 't'));
    CHECK(tap.lines[0] == "[a\\x0ab] text");
    CHECK(tap.lines[1] == '[' + std::string(1024, 'c') + "] " + std::string(8192 - 1027, 't'));
    co_return;
  };
  run(body());
}

TEST_CASE("a line with a context needs no memory, and a level that is not wanted none either") {
  const CapturedLog log;
  const auto body = []() -> Task<> {
    logging::set_context("request=42");
    const auto before = allocations();
    say("a line");
    logging::write(logging::Level::debug, "another");
    CHECK(allocations() == before);
    co_return;
  };
  run(body());
  CHECK(log.count("[request=42] a") == 2);
}

TEST_CASE("a context that cannot be set leaves the one before") {
  CHECK_THROWS_AS(logging::set_context("nobody's"), std::logic_error);
  CHECK(logging::context().empty());
  const auto body = []() -> Task<> {
    logging::set_context("before");
    for (std::uint64_t allowed = 0;; ++allowed) {
      bool failed = false;
      {
        const FailingAllocations fails(allowed);
        try {
          logging::set_context("a text that is too long to stand in place");
        } catch (const std::bad_alloc&) {
          failed = true;
        }
      }
      if (!failed) break;
      CHECK(logging::context() == "before");
    }
    CHECK(logging::context() == "a text that is too long to stand in place");
    co_return;
  };
  run(body());
}

TEST_CASE("drops at every suspension leave each task's lines its own") {
  struct Scenario {
    Task<> one(std::string name) {
      logging::set_context(name);
      for (int i = 0; i < 3; ++i) {
        co_await sleep(1us);
        const Tap tap;
        say("a line");
        CHECK(tap.lines.front() == '[' + name + "] a line");
      }
    }
    Task<> task() {
      TaskGroup group;
      group.spawn(one("a"));
      co_await when_all(one("b"), one("c"));
      co_await group.join();
      CHECK(logging::context().empty());
    }
    Task<> afterwards(bool /*finished*/) {
      CHECK(logging::context().empty());
      co_return;
    }
  };
  drop_everywhere([] { return std::make_unique<Scenario>(); }, 5);
}
