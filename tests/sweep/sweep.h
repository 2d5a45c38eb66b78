#pragma once

#include <weir/coro/frame_allocator.h>
#include <weir/weir.h>

#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "../support/net.h"

/// Runs a scenario again and again, each time with one failure more to the back, until there was
/// none left to come: after each nothing hangs, crashes or stays behind, and no byte was wrong.
namespace weir::test::sweep {

/// What a scenario has to say of itself.
class Report {
 public:
  /// For what must hold whatever failed.
  void require(bool holds, const char* what) {
    if (!holds && wrong_.empty()) wrong_ = what;
  }
  [[nodiscard]] const std::string& wrong() const noexcept { return wrong_; }

 private:
  std::string wrong_;
};

using Scenario = std::function<Task<>(Report&)>;

/// Runs `function` in a thread of its own, whose caches are empty. Ends the process if that takes
/// longer than five minutes, and tells of what takes longer than a few seconds.
inline void in_fresh_thread(const std::string& what, const std::function<void()>& function) {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  const auto begin = std::chrono::steady_clock::now();
  std::thread thread([&] {
    function();
    const std::lock_guard lock(mutex);
    done = true;
    changed.notify_one();
  });
  {
    std::unique_lock lock(mutex);
    if (!changed.wait_for(lock, std::chrono::minutes(5), [&] { return done; })) {
      std::fprintf(stderr, "\nsweep: no end in sight: %s\n", what.c_str());
      ::_exit(3);
    }
  }
  thread.join();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  if (took > 5s) std::printf("sweep: %.1f s: %s\n", took.count(), what.c_str());
}

/// Runs the scenario on a loop of its own. What it throws must be what a failure may cause.
inline void run_scenario(const Scenario& scenario, Engine engine, Report& report,
                         weir::detail::Machine& machine) {
  try {
    LoopOptions options;
    options.engine = engine;
    options.ring_entries = 16;
    options.buffer_count = 64;
    EventLoop loop(options, machine, machine.make_engine(options));
    loop.run_until_complete(scenario(report));
  } catch (const std::bad_alloc&) {
  } catch (const std::system_error&) {
  } catch (const std::exception& other) {
    report.require(false, (std::string("it threw: ") + other.what()).c_str());
  }
}

/// `arm_and_run(nth, run)` calls `run`, with a machine or nothing, with the nth failure armed, and
/// says whether it came.
template <class Arm>
std::uint64_t fail_each(const std::string& name, const Scenario& scenario, Engine engine,
                        Arm arm_and_run) {
  std::uint64_t nth = 0;
  bool came = true;
  while (came) {
    const std::string what = name + ", failure " + std::to_string(nth);
    CAPTURE(what);
    const std::size_t descriptors = count_descriptors();
    const std::int64_t frames = live_frames();
    Report report;
    in_fresh_thread(what, [&] {
      came =
          arm_and_run(nth, [&](weir::detail::Machine& machine = weir::detail::process_machine()) {
            run_scenario(scenario, engine, report, machine);
          });
    });
    REQUIRE(report.wrong() == "");
    REQUIRE(count_descriptors() == descriptors);
    REQUIRE(live_frames() == frames);
    REQUIRE(nth < 20'000);
    ++nth;
  }
  return nth - 1;
}

struct Named {
  const char* name;
  Scenario scenario;
};

/// What the sweeps go through.
const std::vector<Named>& scenarios();

}  // namespace weir::test::sweep
