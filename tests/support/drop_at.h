#pragma once

#include <weir/core/event_loop.h>
#include <weir/coro/event.h>
#include <weir/coro/frame_allocator.h>
#include <weir/coro/task.h>
#include <weir/coro/task_group.h>

#include <doctest/doctest.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

namespace weir::test {

using namespace weir::detail;  // NOLINT: what is tested

/// Drops a task at a chosen moment. Moments are counted from the task's first suspension on: one
/// before the loop resumes a coroutine (whichever: the task's peers count too), when whatever it
/// waited for has come but has not been looked at, and one after.
class Dropper {
 public:
  Dropper(EventLoop& loop, std::size_t moment) : loop_(loop), moments_left_(moment) {}
  Dropper(const Dropper&) = delete;
  Dropper& operator=(const Dropper&) = delete;

  /// Gives true if the task finished before its moment came.
  Task<bool> run(Task<> task) {
    group_.emplace();
    group_->spawn(finish(std::move(task)));
    if (!over_.is_set() && !moment_has_come()) step();
    co_await over_.wait();
    co_return finished_;
  }

 private:
  /// Gives access to the loop's ready queue, to resume coroutines one by one.
  struct Access : Scheduler {
    static bool resume_one(Scheduler& loop) { return (loop.*&Access::run_ready)(1) == 1; }
    static bool any_ready(const Scheduler& loop) { return (loop.*&Access::has_ready)(); }
  };

  /// Coroutines resumed one by one in a turn; should there be more, the loop resumes them itself.
  static constexpr int kMostInTurn = 1000;

  Task<> finish(Task<> task) {
    co_await std::move(task);
    finished_ = true;
    over_.set();
  }

  /// Runs first in every turn, outside of any coroutine, and empties the ready queue itself.
  void step() {
    loop_.post([this, alive = std::weak_ptr<int>(alive_)] {
      if (alive.expired()) return;
      for (int i = 0; i < kMostInTurn && !over_.is_set() && Access::any_ready(loop_); ++i) {
        if (moment_has_come()) break;
        Access::resume_one(loop_);
        if (!over_.is_set() && moment_has_come()) break;
      }
      if (!over_.is_set()) step();
    });
  }

  bool moment_has_come() {
    if (moments_left_-- > 0) return false;
    group_->cancel();
    over_.set();
    return true;
  }

  EventLoop& loop_;
  std::size_t moments_left_;
  std::optional<TaskGroup> group_;
  Event over_;
  bool finished_ = false;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

inline constexpr std::size_t kMostMoments = 5000;

inline void on_fresh_loop(const std::function<Task<>()>& scene) {
  EventLoop loop;
  loop.run_until_complete(scene());
}

/// Runs a scenario again and again, each time on a fresh loop, and drops its task at the first
/// moment, the second, and so on until the task finishes before its moment: at every suspension,
/// with what it waits for not there yet, and there already.
///
/// `make()` is called in a coroutine on the loop and gives a scenario, by value or by pointer:
///
///     struct Scenario {
///       Task<> task();                 // what is dropped
///       Task<> afterwards(bool finished);  // runs then: what must still hold, CHECKed
///     };
///
/// Both run on the loop; the scenario lives until `afterwards` has finished. Frames must all be
/// gone when the loop is. Gives the number of moments; more than `most` fail the test.
template <class Make>
std::size_t drop_at_every_moment(
    Make make, std::size_t most = kMostMoments,
    const std::function<void(const std::function<Task<>()>&)>& run = on_fresh_loop) {
  for (std::size_t moment = 0;; ++moment) {
    INFO("dropped at moment ", moment);
    if (moment > most) {
      FAIL_CHECK("no end after ", most, " moments");
      return moment;
    }
    bool finished = false;
    const auto frames = live_frames();
    const auto scene = [&]() -> Task<> {
      auto scenario = make();
      auto& acts = [&]() -> auto& {
        if constexpr (requires { scenario->task(); }) {
          return *scenario;
        } else {
          return scenario;
        }
      }();
      Dropper dropper(EventLoop::current(), moment);
      finished = co_await dropper.run(acts.task());
      co_await acts.afterwards(finished);
    };
    run(scene);
    CHECK(live_frames() == frames);
    if (finished) return moment;
  }
}

}  // namespace weir::test
