#include <weir/core/turn_watch.h>
#include <weir/io/turn_watcher.h>

#include <doctest/doctest.h>

#include <chrono>
#include <thread>

#include "check.h"

using namespace weir;
using namespace weir::schedules;
using weir::detail::TurnWatch;
using weir::detail::TurnWatcher;

namespace {

/// A loop's run of so many turns.
void run_turns(std::uint64_t turns) {
  TurnWatch loop(std::chrono::hours(1), "");
  TurnWatcher::instance().add(loop);
  for (std::uint64_t turn = 1; turn <= turns; ++turn) {
    loop.begin(turn);
    loop.end();
  }
  TurnWatcher::instance().remove(loop);
}

}  // namespace

TEST_CASE("who looks at the turns of loops goes with the last of them, and comes with the next") {
  check("watch, two runs one by one", [] {
    run_turns(1);
    run_turns(1);
  });
  check("watch, two loops", [] {
    std::thread thread([] { run_turns(1); });
    run_turns(1);
    thread.join();
  });
}

TEST_CASE("a watch that rests is woken by the next turn") {
  check("watch that rests", [] {
    TurnWatch loop(std::chrono::hours(1), "");
    TurnWatcher& watcher = TurnWatcher::instance();
    watcher.add(loop);
    Doorbell nobody;
    for (std::uint64_t turn = 1; turn <= 2; ++turn) {
      loop.begin(turn);
      loop.end();
      // Long enough for it to look several times, and to rest.
      (void)nobody.wait(std::chrono::steady_clock::now() + std::chrono::hours(2));
      require(watcher.rests(), "it rests");
    }
    watcher.remove(loop);
  });
}
