// How long a loop's turns last, and on which processor.
#include <weir/core/all_loops.h>
#include <weir/core/survey.h>
#include <weir/io/turn_watcher.h>

#include <doctest/doctest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net_server.h"
#include "../support/process.h"
#include "../support/sim.h"

using namespace weir;
using namespace weir::test;

namespace {

LoopOptions watched(Engine engine, std::string_view name, std::chrono::milliseconds stall = 10ms) {
  LoopOptions options;
  options.engine = engine;
  options.name = name;
  options.stall = stall;
  return options;
}

std::size_t watchers() {
  std::size_t count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    if (name == "weir-watch") ++count;
  }
  return count;
}

Task<> look(std::size_t& count) {
  count = watchers();
  co_return;
}

/// Blocks the loop in one turn until it counts a stall.
Task<> stall() {
  EventLoop& loop = EventLoop::current();
  const std::uint64_t before = loop.metrics().stalls;
  CHECK(eventually([&] { return loop.metrics().stalls > before; }));
  co_return;
}

/// The watcher has looked at all loops again, some times, when this returns.
void stall_another(Engine engine) {
  EventLoop loop(watched(engine, "another"));
  loop.run_until_complete(stall());
}

std::vector<int> processors_of_thread() {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  std::vector<int> all;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(static_cast<std::size_t>(i), &set)) all.push_back(i);
  }
  return all;
}

Task<std::vector<int>> processors() { co_return processors_of_thread(); }

std::vector<int> processors_of(EventLoop& loop) {
  std::vector<int> all;
  loop.call([&] { all = processors_of_thread(); });
  return all;
}

}  // namespace

TEST_CASE("a turn that lasts too long is counted and logged while it lasts, once") {
  for_each_engine([](Engine engine) {
    const CapturedLog log = CapturedLog::with_stalls();
    EventLoop loop(watched(engine, "slow"));
    const auto stall_twice = [&]() -> Task<> {
      for (int i = 0; i < 2; ++i) {
        co_await stall();
        const std::uint64_t stalls = loop.metrics().stalls;
        std::thread(stall_another, engine).join();
        // One of the turn before may have been under way.
        CHECK(loop.metrics().stalls <= stalls + 1);
        co_await yield();
        co_await sleep(1ms);
      }
    };
    loop.run_until_complete(stall_twice());
    CHECK(loop.metrics().stalls >= 2);
    CHECK(log.count("stall: the event loop \"slow\" on thread ") >= 1);
    CHECK(log.count("stall: the event loop \"another\" on thread ") >= 1);
    CHECK(log.errors() == 0);
  });
}

TEST_CASE("who waits does not stall, nor is a loop looked at that does not want it") {
  for_each_engine([](Engine engine) {
    weir::detail::TurnWatch waiting(10ms, "waiting");  // what a loop shows that sleeps
    waiting.begin(1);
    waiting.end();
    weir::detail::TurnWatcher::instance().add(waiting);
    EventLoopThread unwatched(watched(engine, "unwatched", 0ms));
    std::atomic<bool> go_on{false};
    std::atomic<bool> blocked{false};
    unwatched.loop().post([&] {
      blocked = true;
      while (!go_on) std::this_thread::yield();
    });
    CHECK(eventually([&] { return blocked.load(); }));
    for (int i = 0; i < 2; ++i) stall_another(engine);
    go_on = true;
    CHECK(waiting.stalls() == 0);
    std::uint64_t stalls = 1;
    unwatched.loop().call([&] { stalls = unwatched.loop().metrics().stalls; });
    CHECK(stalls == 0);
    weir::detail::TurnWatcher::instance().remove(waiting);
  });
}

TEST_CASE("the thread that looks for stalls is there while a loop runs that wants it") {
  for_each_engine([](Engine engine) {
    EventLoop loop(watched(engine, "watched"));
    EventLoop other(watched(engine, "not watched", 0ms));
    CHECK(eventually([] { return watchers() == 0; }));
    const auto count = []() -> Task<std::size_t> { co_return watchers(); };
    CHECK(other.run_until_complete(count()) == 0);
    const auto appears = []() -> Task<> {
      CHECK(eventually([] { return watchers() == 1; }));  // it names itself
      co_return;
    };
    for (int i = 0; i < 2; ++i) {
      loop.run_until_complete(appears());
      CHECK(
          eventually([] { return watchers() == 0; }));  // of one that was joined a name may be left
    }
  });
  sim::World world({.seed = 1});
  std::size_t count = 1;
  world.add_host("10.0.0.1").spawn(look(count));
  world.run_for(1s);
  CHECK(count == 0);
}

TEST_CASE(
    "the thread that looks for stalls rests while all loops wait, and wakes for the next turn") {
  for_each_engine([](Engine engine) {
    auto& watcher = weir::detail::TurnWatcher::instance();
    EventLoopThread waiting(watched(engine, "waiting"));
    EventLoop unwatched(watched(engine, "unwatched", 0ms));
    const auto wait = []() -> Task<> { co_await sleep(50ms); };
    std::uint64_t looks = 0;
    CHECK(eventually([&] {  // which it does not while it looks every few milliseconds
      looks = watcher.looks();
      unwatched.run_until_complete(wait());
      return watcher.looks() == looks;
    }));
    CHECK(watcher.rests());
    // One that begins a turn then is looked at, whichever it is.
    waiting.loop().spawn(stall());
    CHECK(eventually([&] { return watcher.looks() > looks; }));
    stall_another(engine);
    CHECK(eventually([&] { return watcher.rests(); }));
    std::uint64_t stalls = 0;
    waiting.loop().call([&] { stalls = waiting.loop().metrics().stalls; });
    CHECK(stalls >= 1);
  });
}

TEST_CASE("a process that was forked while loops run elsewhere runs and watches its own") {
  if (kThreadSanitizer) {
    MESSAGE("skipped: the sanitizer starts no thread in a forked child");
    return;
  }
  EventLoopThread beside(watched(Engine::automatic, "beside"));
  beside.loop().call([] {});  // it runs, and so does who looks at it
  CHECK(eventually([] { return watchers() == 1 && other_threads_sleep(); }));
  const pid_t child = ::fork();
  if (child == 0) {
    std::size_t listed = 0;
    weir::detail::AllLoops::instance().for_each(
        [&](EventLoop& /*one*/, std::uint64_t /*number*/) { ++listed; });
    if (listed != 0) ::_exit(2);  // they are of threads that are not here
    logging::set_logger(nullptr);
    EventLoop loop(watched(Engine::epoll, "of the child"));
    bool seen = false;
    const auto block = [&]() -> Task<> {
      seen = eventually([&] { return loop.metrics().stalls >= 1; });
      co_return;
    };
    loop.run_until_complete(block());
    ::_exit(seen ? 0 : 1);
  }
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("a loop runs on the processor that it was given, the next ones of a pool behind it") {
  const std::vector<int> all = processors_of_thread();
  for_each_engine([&](Engine engine) {
    LoopOptions options;
    options.engine = engine;
    options.cpu = all.back();
    EventLoopThread thread(options);
    CHECK(processors_of(thread.loop()) == std::vector<int>{all.back()});
    std::thread([&] {
      EventLoop loop(options);
      CHECK(loop.run_until_complete(processors()) == std::vector<int>{all.back()});
    }).join();
    if (all.size() < 2 || all[1] != all[0] + 1) return;
    options.cpu = all[0];
    EventLoopThreadPool pool(options);
    pool.start(2);
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(processors_of(*pool.loops()[i]) == std::vector<int>{all[i]});
    }
  });
  CHECK(processors_of_thread() == all);
}

TEST_CASE("what a bound loop begins is not bound with it, nor is its thread once it has run") {
  const std::vector<int> all = processors_of_thread();
  if (all.size() < 2) {
    MESSAGE("skipped: there is one processor");
    return;
  }
  for_each_engine([&](Engine engine) {
    LoopOptions options;
    options.engine = engine;
    LoopOptions bound = options;
    bound.cpu = all.back();
    EventLoopThread thread(bound);
    std::promise<void> seen;
    thread.loop().spawn([&]() -> Task<> {
      BlockingPool pool({.threads = 1});
      const std::vector<int> of_work = co_await pool.run(processors_of_thread);
      CHECK(of_work == all);
      EventLoopThread other(options);
      CHECK(processors_of(other.loop()) == all);
      seen.set_value();
    });
    seen.get_future().wait();
    thread.stop();
    std::thread([&] {
      EventLoop loop(bound);
      CHECK(loop.run_until_complete(processors()) == std::vector<int>{all.back()});
      CHECK(processors_of_thread() == all);
    }).join();
  });
}

TEST_CASE("a processor that is not there, or a negative stall, throws and names the option") {
  const auto text = [](LoopOptions options) {
    return text_of<std::invalid_argument>([&] { const EventLoop loop(options); });
  };
  CHECK(text({.cpu = 4000}).find("LoopOptions::cpu is 4000") != std::string::npos);
  CHECK(text({.cpu = -2}).find("LoopOptions::cpu is -2") != std::string::npos);
  CHECK(text({.stall = -1ms}).find("LoopOptions::stall is -1 ms") != std::string::npos);
  CHECK_THROWS_WITH_AS(EventLoopThread({.cpu = 4000}), doctest::Contains("cpu"), std::exception);
}

TEST_CASE("the longest stall that can be asked for is none that anything reaches") {
  for_each_engine([](Engine engine) {
    EventLoop loop(watched(engine, "patient", std::chrono::milliseconds::max()));
    std::uint64_t stalls = 1;
    const auto ask = [&]() -> Task<> {
      std::thread(stall_another, engine).join();
      stalls = EventLoop::current().metrics().stalls;
      co_return;
    };
    loop.run_until_complete(ask);
    CHECK(stalls == 0);
  });
}
