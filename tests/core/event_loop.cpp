#include <weir/core/event_loop.h>
#include <weir/core/loop_thread.h>
#include <weir/core/sleep.h>
#include <weir/coro/event.h>

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <future>
#include <latch>
#include <memory>
#include <optional>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net.h"
#include "../support/process.h"
#include "../support/tracer.h"

using namespace weir;
using namespace weir::detail;
using namespace std::chrono_literals;
using test::CapturedLog;
using test::Environment;
using test::Tracer;

namespace {

Task<int> number() {
  co_await yield();
  co_return 5;
}

Task<> hold(Tracer) { co_await sleep(1h); }

}  // namespace

TEST_CASE("run gives the result of its task, or throws what it threw") {
  CHECK(weir::run(number()) == 5);
  const auto fail = []() -> Task<> {
    co_await yield();
    throw std::runtime_error("thrown");
  };
  CHECK_THROWS_WITH(weir::run(fail()), "thrown");
  int variable = 0;
  const auto refer = [&]() -> Task<int&> { co_return variable; };
  CHECK(&weir::run(refer()) == &variable);
}

TEST_CASE("current is the loop that runs on this thread, and an error where none does") {
  CHECK(EventLoop::current_or_null() == nullptr);
  CHECK_THROWS_WITH_AS(EventLoop::current(), doctest::Contains("no event loop runs"),
                       std::logic_error);
  EventLoop loop({.name = "a loop"});
  CHECK(EventLoop::current_or_null() == nullptr);
  const auto look = [&]() -> Task<bool> { co_return &EventLoop::current() == &loop; };
  CHECK(loop.run_until_complete(look()));
  CHECK(loop.name() == "a loop");
  CHECK_FALSE(loop.engine_name().empty());
}

TEST_CASE("a loop can run again, and cannot run twice at once") {
  EventLoop loop;
  CHECK(loop.run_until_complete(number()) == 5);
  CHECK(loop.run_until_complete(number()) == 5);
  const auto nest = [&]() -> Task<> {
    CHECK_THROWS_AS(loop.run(), std::logic_error);
    co_return;
  };
  loop.run_until_complete(nest());
  loop.post([&] { loop.stop(); });
  loop.run();
  loop.post([&] { loop.stop(); });
  loop.run();
}

TEST_CASE("a loop may run inside of another's task") {
  EventLoop outer;
  const auto body = [&]() -> Task<> {
    CHECK(weir::run(number()) == 5);
    CHECK(&EventLoop::current() == &outer);
    co_await yield();
  };
  outer.run_until_complete(body());
}

TEST_CASE("a stop before the run ends the run at once, and only that one") {
  EventLoop loop;
  bool ran = false;
  loop.post([&] { ran = true; });
  loop.stop();
  loop.stop();
  loop.run();
  CHECK_FALSE(ran);
  loop.post([&] { loop.stop(); });
  loop.run();
  CHECK(ran);
}

TEST_CASE("a stop leaves the tasks as they are, and the next run goes on with them") {
  EventLoop loop;
  int steps = 0;
  const auto body = [&]() -> Task<> {
    ++steps;
    loop.stop();
    co_await sleep(1us);
    ++steps;
    loop.stop();
  };
  loop.spawn(body());
  loop.run();
  CHECK(steps == 1);
  loop.run();
  CHECK(steps == 2);
}

TEST_CASE("a stop during run_until_complete drops the task and throws operation_canceled") {
  Tracer::Counts counts;
  EventLoop loop;
  loop.post([&] { loop.stop(); });
  bool thrown = false;
  try {
    loop.run_until_complete(hold(Tracer(counts)));
  } catch (const std::system_error& error) {
    thrown = error.code() == std::errc::operation_canceled;
    CHECK(counts.alive() == 0);
  }
  CHECK(thrown);
}

TEST_CASE("what is posted before, during and between runs is run once, in order") {
  EventLoop loop;
  std::vector<int> journal;
  loop.post([&] {
    journal.push_back(1);
    loop.post([&] {
      journal.push_back(3);
      loop.stop();
    });
  });
  loop.post([&] { journal.push_back(2); });
  loop.run();
  CHECK(journal == std::vector<int>{1, 2, 3});
  loop.post([&] { journal.push_back(4); });
  loop.run_until_complete(number());
  CHECK(journal.back() == 4);
}

TEST_CASE("a million posts of two threads are all run, in each thread's order, with no timer set") {
  constexpr int kPosts = 500'000;
  EventLoop loop;
  int next[2] = {0, 0};
  bool in_order = true;
  std::thread posters[2];
  for (int who = 0; who < 2; ++who) {
    posters[who] = std::thread([&, who] {
      for (int i = 0; i < kPosts; ++i) {
        loop.post([&, who, i] {
          in_order = in_order && next[who]++ == i;
          if (next[0] == kPosts && next[1] == kPosts) loop.stop();
        });
        // Now and then the loop has time to fall asleep.
        if (i % 1024 == 0) std::this_thread::yield();
      }
    });
  }
  loop.run();
  for (auto& poster : posters) poster.join();
  CHECK(in_order);
  CHECK(next[0] == kPosts);
  CHECK(next[1] == kPosts);
  CHECK(loop.metrics().posted == 2 * kPosts);
}

TEST_CASE("posting and sleeping in turns loses no wake-up") {
  constexpr int kRounds = 20'000;
  EventLoop loop;
  std::counting_semaphore<> taken(0);
  std::thread poster([&] {
    for (int i = 0; i < kRounds; ++i) {
      loop.post([&] { taken.release(); });
      taken.acquire();  // the loop has nothing to do again
    }
    loop.stop();
  });
  loop.run();
  poster.join();
  CHECK(loop.metrics().posted == kRounds);
}

TEST_CASE("posts that race the end of a loop are run or deleted, never leaked") {
  for (int round = 0; round < 100; ++round) {
    const auto alive = std::make_shared<int>(0);
    std::atomic<int> ran{0};
    std::thread poster;
    std::shared_ptr<Mailbox> mailbox;
    {
      EventLoop loop;
      mailbox = loop.mailbox();
      poster = std::thread([mailbox, alive, &ran] {
        for (int i = 0; i < 200; ++i) {
          const auto function = [alive, &ran] { ++ran; };
          mailbox->push(std::make_unique<PostedFunction<decltype(function)>>(function));
          if (i == 100) mailbox->request_stop();
        }
      });
      loop.run();
    }
    poster.join();
    CHECK(ran <= 200);
    CHECK(alive.use_count() == 1);
  }
}

TEST_CASE("a posted function that is never run is deleted with the loop") {
  const auto alive = std::make_shared<int>(0);
  {
    EventLoop loop;
    loop.post([alive] {});
    CHECK(alive.use_count() == 2);
  }
  CHECK(alive.use_count() == 1);
}

TEST_CASE("an exception of a posted function is logged and harms nothing") {
  const CapturedLog log;
  EventLoop loop;
  bool ran = false;
  loop.post([] { throw std::runtime_error("from a post"); });
  loop.post([] { throw 5; });
  loop.post([&] {
    ran = true;
    loop.stop();
  });
  loop.run();
  CHECK(ran);
  CHECK(log.count("from a post") == 1);
  CHECK(log.lines().size() == 2);
}

TEST_CASE("an exception of a spawned task is logged and harms nothing") {
  const CapturedLog log;
  EventLoop loop;
  const auto fail = []() -> Task<> {
    co_await yield();
    throw std::runtime_error("from a task");
  };
  loop.spawn(fail());
  CHECK(loop.run_until_complete(number()) == 5);
  loop.run_until_complete(number());
  CHECK(log.count("from a task") == 1);
}

TEST_CASE("a task can be spawned before the run, in it, and from another thread") {
  EventLoop loop;
  std::vector<int> journal;
  const auto note = [&](int what) -> Task<> {
    CHECK(loop.in_loop_thread());
    journal.push_back(what);
    co_await yield();
    if (what == 3) loop.stop();
  };
  loop.spawn(note(1));
  CHECK(journal.empty());
  loop.post([&] {
    loop.spawn(note(2));
    CHECK(journal.back() == 2);
  });
  std::thread other;
  loop.post([&] {
    other = std::thread([&] {
      CHECK(loop.runs_elsewhere());
      loop.spawn(note(3));
    });
  });
  loop.run();
  other.join();
  CHECK(journal == std::vector<int>{1, 2, 3});
}

TEST_CASE("the end of a loop drops its tasks, started or not") {
  Tracer::Counts counts;
  {
    EventLoop loop;
    loop.spawn(hold(Tracer(counts)));
    loop.run_until_complete(number());
    loop.spawn(hold(Tracer(counts)));
    CHECK(counts.alive() >= 2);
  }
  CHECK(counts.alive() == 0);
}

TEST_CASE("a task that is spawned by a destructor while its loop ends is dropped") {
  Tracer::Counts counts;
  struct SpawnOnDrop {
    Tracer::Counts& counts;
    ~SpawnOnDrop() {
      EventLoop::current().spawn(hold(Tracer(counts)));
      EventLoop::current().post(
          [&loop = EventLoop::current(), &counts = counts] { loop.spawn(hold(Tracer(counts))); });
    }
  };
  const auto body = [&]() -> Task<> {
    const SpawnOnDrop drop{counts};
    co_await sleep(1h);
  };
  {
    EventLoop loop;
    loop.spawn(body());
    loop.run_until_complete(number());
  }
  CHECK(counts.made > 0);
  CHECK(counts.alive() == 0);
}

TEST_CASE("a loop whose task is done does not sleep when the last that it waits for leaves late") {
  // In the last step of the turn, after which the loop would go to sleep.
  class Leaving final : public detail::LoopResource {
   public:
    explicit Leaving(EventLoop& loop) : loop_(loop) { loop.keep(*this); }
    bool finish_with_run() noexcept override {
      loop_.at_turn_end(*this);
      return true;
    }
    void end_with_loop() noexcept override { leave(); }
    void end_turn() noexcept override { leave(); }

   private:
    void leave() noexcept { unlink(); }

    EventLoop& loop_;
  };

  test::for_each_engine([](Engine engine) {
    EventLoop loop({.engine = engine});
    Leaving leaving(loop);
    CHECK(loop.run_until_complete(number()) == 5);
  });
}

TEST_CASE("a spawn that comes while the loop turns for the last time is dropped") {
  Tracer::Counts counts;
  // The loop turns in its destructor until its resources have let go; what was posted runs there.
  struct Lingering final : LoopResource {
    void end_with_loop() noexcept override {
      EventLoop::current().post([this] { unlink(); });
    }
  };
  Lingering resource;
  {
    EventLoop loop;
    loop.keep(resource);
    loop.run_until_complete(number());
    loop.spawn(hold(Tracer(counts)));  // posted, not started
    CHECK(counts.alive() >= 1);
  }
  CHECK(counts.alive() == 0);
}

TEST_CASE("a loop made on one thread runs on another and ends on the first") {
  auto loop = std::make_unique<EventLoop>();
  loop->post([&loop] { loop->stop(); });
  std::thread runner([&] {
    loop->run();
    CHECK(loop->run_until_complete(number()) == 5);
  });
  runner.join();
  CHECK(loop->metrics().turns > 0);
  loop.reset();
}

TEST_CASE("a loop made on one thread may end on another without a run, with tasks in it") {
  Tracer::Counts counts;
  auto loop = std::make_unique<EventLoop>();
  loop->spawn(hold(Tracer(counts)));
  std::thread([&] { loop.reset(); }).join();
  CHECK(counts.alive() == 0);
}

TEST_CASE("now is the same all through a turn") {
  const auto body = []() -> Task<> {
    EventLoop& loop = EventLoop::current();
    const TimePoint before = loop.now();
    while (std::chrono::steady_clock::now() < before + 2us) {
    }
    CHECK(loop.now() == before);
    co_await sleep(1us);  // another turn
    CHECK(loop.now() > before);
  };
  weir::run(body());
}

TEST_CASE("sleep ends never early, and in the order of the deadlines") {
  const auto body = []() -> Task<> {
    for (const Duration delay : {Duration(1), Duration(1000), Duration(100'000), Duration(1ms)}) {
      const auto before = std::chrono::steady_clock::now();
      co_await sleep(delay);
      CHECK(std::chrono::steady_clock::now() - before >= delay);
    }
    std::vector<int> journal;
    TaskGroup group;
    const auto note = [&](Duration delay, int what) -> Task<> {
      co_await sleep(delay);
      journal.push_back(what);
    };
    group.spawn(note(3ms, 3));
    group.spawn(note(1ms, 1));
    group.spawn(note(2ms, 2));
    co_await group.join();
    CHECK(journal == std::vector<int>{1, 2, 3});
  };
  weir::run(body());
}

TEST_CASE("sleep measures from when it is awaited, however long the turn has lasted") {
  const auto body = []() -> Task<> {
    (void)EventLoop::current().now();  // cached
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() < start + 3ms) {
    }
    const auto before = std::chrono::steady_clock::now();
    co_await sleep(2ms);
    CHECK(std::chrono::steady_clock::now() - before >= 2ms);
  };
  weir::run(body());
}

TEST_CASE("sleep of zero or less and sleep_until of the past do not suspend") {
  const auto body = []() -> Task<> {
    const auto turns = EventLoop::current().metrics().resumed;
    co_await sleep(0s);
    co_await sleep(-1h);
    co_await sleep(Duration::min());
    co_await sleep_until(EventLoop::current().now());
    co_await sleep_until(EventLoop::current().now() - 1h);
    co_await sleep_until(TimePoint::min());
    CHECK(EventLoop::current().metrics().resumed == turns);
    const TimePoint soon = EventLoop::current().now() + 1ms;
    co_await sleep_until(soon);
    CHECK(EventLoop::current().now() >= soon);
  };
  weir::run(body());
}

TEST_CASE("yield lets everything that is ready run first") {
  const auto body = []() -> Task<> {
    std::vector<int> journal;
    TaskGroup group;
    const auto note = [&](int what) -> Task<> {
      for (int i = 0; i < 3; ++i) {
        journal.push_back(what);
        co_await yield();
      }
    };
    group.spawn(note(1));
    group.spawn(note(2));
    co_await group.join();
    CHECK(journal == std::vector<int>{1, 2, 1, 2, 1, 2});
  };
  weir::run(body());
}

TEST_CASE("a task that never waits starves neither timers nor posts nor I/O") {
  EventLoop loop;
  std::atomic<bool> posted{false};
  std::thread other;
  const auto spin = [&](bool& go) -> Task<> {
    while (go) co_await yield();
  };
  const auto body = [&]() -> Task<> {
    bool go = true;
    TaskGroup group;
    for (int i = 0; i < 1000; ++i) group.spawn(spin(go));
    co_await sleep(1ms);
    Event event;
    other = std::thread([&] {
      loop.post([&] {
        posted = true;
        event.set();
      });
    });
    co_await event.wait();
    go = false;
    co_await group.join();
  };
  loop.run_until_complete(body());
  other.join();
  CHECK(posted);
}

TEST_CASE("call runs a function on the loop's thread and gives its exception") {
  EventLoop loop;
  std::thread::id where;
  loop.call([&] { where = std::this_thread::get_id(); });  // it does not run: here
  CHECK(where == std::this_thread::get_id());
  std::thread runner([&] { loop.run(); });
  std::promise<void> running;
  loop.post([&] { running.set_value(); });
  running.get_future().get();
  loop.call([&] { where = std::this_thread::get_id(); });
  CHECK(where == runner.get_id());
  CHECK_THROWS_WITH(loop.call([] { throw std::runtime_error("there"); }), "there");
  loop.stop();
  runner.join();
}

TEST_CASE("a call that races the end of a run is answered, by the run or after it") {
  constexpr int kCalls = 20;
  for (int round = 0; round < 200; ++round) {
    EventLoop loop;
    int calls = 0;  // of one thread after the other
    std::thread runner([&] { loop.run(); });
    std::thread caller([&] {
      for (int i = 0; i < kCalls; ++i) loop.call([&] { ++calls; });
    });
    loop.stop();
    runner.join();
    caller.join();
    CHECK(calls == kCalls);
  }
}

TEST_CASE("two loops that call each other at the same time are both answered") {
  EventLoopThread a;
  EventLoopThread b;
  for (int round = 0; round < 20; ++round) {
    std::barrier both(2);
    std::latch done(2);
    std::atomic<int> answers{0};
    const auto call = [&](EventLoop& other) {
      both.arrive_and_wait();
      other.call([&] { ++answers; });
      done.count_down();
    };
    a.loop().post([&] { call(b.loop()); });
    b.loop().post([&] { call(a.loop()); });
    done.wait();
    CHECK(answers == 2);
  }
}

TEST_CASE("metrics count what the loop did") {
  EventLoop loop;
  const auto body = [&]() -> Task<> {
    for (int i = 0; i < 10; ++i) co_await yield();
    co_await sleep(1ms);
  };
  loop.post([] {});
  loop.run_until_complete(body());
  const Metrics metrics = loop.metrics();
  CHECK(metrics.posted == 1);
  CHECK(metrics.resumed == 11);
  CHECK(metrics.timers_fired == 1);
  CHECK(metrics.turns >= 2);
  CHECK(metrics.waits >= 1);
}

TEST_CASE("a bad option is refused by name and value") {
  const auto refusal = [](LoopOptions options) -> std::string {
    try {
      EventLoop loop(options);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "accepted";
  };
  const auto names = [](const std::string& text, const char* option, const char* value) {
    CAPTURE(text);
    CHECK(text.find(option) != std::string::npos);
    CHECK(text.find(value) != std::string::npos);
  };
  names(refusal({.ring_entries = 0}), "ring_entries", "0");
  names(refusal({.ring_entries = 2}), "ring_entries", "2");
  names(refusal({.ring_entries = 100}), "ring_entries", "100");
  names(refusal({.ring_entries = 8192}), "ring_entries", "8192");
  names(refusal({.buffer_size = 63}), "buffer_size", "63");
  names(refusal({.buffer_size = (1 << 20) + 1}), "buffer_size", "1048577");
  names(refusal({.buffer_count = 0}), "buffer_count", "0");
  names(refusal({.buffer_count = 32769}), "buffer_count", "32769");
  CHECK(refusal({.ring_entries = 4, .buffer_size = 64, .buffer_count = 1}) == "accepted");
}

TEST_CASE("WEIR_ENGINE with a bad value is refused by name and value") {
  const Environment variable("WEIR_ENGINE", "kqueue");
  CHECK_THROWS_WITH_AS(EventLoop(), doctest::Contains("kqueue"), std::invalid_argument);
}

TEST_CASE("an empty WEIR_ENGINE is none") {
  const Environment variable("WEIR_ENGINE", "");
  CHECK(weir::run(number()) == 5);
}

TEST_CASE("a stop in the turn in which the task of a run ends does not end the next run") {
  for (const bool at_once : {true, false}) {
    EventLoop loop;
    const auto stop = [&]() -> Task<> {
      if (!at_once) co_await yield();
      loop.stop();
    };
    loop.run_until_complete(stop());
    CHECK(loop.run_until_complete(number()) == 5);
  }
}

TEST_CASE("an engine that its loop cannot end tells why") {
  class Broken final : public weir::detail::IoEngine {
   public:
    [[nodiscard]] std::string_view name() const noexcept override { return "broken"; }
    void attach() override { throw std::runtime_error("it is broken"); }
    void abandon() noexcept override {}
    void submit(weir::detail::Operation&) noexcept override {}
    void cancel(weir::detail::Operation&) noexcept override {}
    void wait(TimePoint) override {}
    void wake() noexcept override {}
    [[nodiscard]] bool idle() const noexcept override { return true; }
    void add_metrics(Metrics&) const noexcept override {}
  };
  const CapturedLog log;
  {
    const EventLoop loop({}, weir::detail::process_machine(), std::make_unique<Broken>());
  }
  CHECK(log.count("it is broken") == 1);
}

TEST_CASE(
    "a loop that was made before a fork is refused in the child, and lives on in the parent") {
  test::for_each_engine([](Engine engine) {
    for (const bool has_run : {false, true}) {
      CAPTURE(has_run);
      LoopOptions options;
      options.engine = engine;
      std::optional<EventLoop> loop(options);
      if (has_run) CHECK(loop->run_until_complete(number()) == 5);
      while (!test::other_threads_sleep()) std::this_thread::yield();
      const pid_t child = ::fork();
      if (child == 0) {
        int code = 1;
        try {
          loop->run_until_complete(number());
        } catch (const std::logic_error& error) {
          code = std::string_view(error.what()).find("before a fork") == std::string_view::npos;
        }
        loop.reset();
        ::_exit(code);
      }
      int status = -1;
      CHECK(::waitpid(child, &status, 0) == child);
      CHECK(status == 0);
      CHECK(loop->run_until_complete(number()) == 5);
    }
  });
}
