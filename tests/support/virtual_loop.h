#pragma once

#include <weir/core/timer_wheel.h>
#include <weir/coro/result.h>
#include <weir/coro/scheduler.h>
#include <weir/coro/take_result.h>
#include <weir/coro/task.h>
#include <weir/coro/task_group.h>

#include <deque>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace weir::test {

using namespace weir::detail;  // NOLINT: what is tested

/// A loop without a kernel: time jumps to the next deadline as soon as nothing is ready, so that
/// an hour's sleep takes no time. The current loop of its thread for its whole life. For what
/// needs a `Scheduler` only: all of coro, and `sleep`.
class VirtualLoop final : public Scheduler {
 public:
  VirtualLoop() : timers_(now_), outer_(current_or_null()) { set_current(this); }
  ~VirtualLoop() override { set_current(outer_); }

  [[nodiscard]] TimePoint now() noexcept override { return now_; }
  [[nodiscard]] TimePoint deadline_in(Duration delay) noexcept override {
    return after(now_, delay);
  }
  void post(std::unique_ptr<Posted> work) override { posted_.push_back(std::move(work)); }
  void report_failure(std::exception_ptr failure, const char* where) noexcept override {
    try {
      std::rethrow_exception(std::move(failure));
    } catch (const std::exception& exception) {
      reported_.push_back(std::string(where) + ": " + exception.what());
    } catch (...) {
      reported_.push_back(where);
    }
  }

  /// What `report_failure` was told.
  [[nodiscard]] const std::vector<std::string>& reported() const noexcept { return reported_; }

  /// Resumes one coroutine or does one posted piece of work, without a step in time. False if
  /// there is nothing to do now.
  bool step() {
    take_woken();
    if (!posted_.empty()) {
      const auto work = std::move(posted_.front());
      posted_.pop_front();
      work->run();
      return true;
    }
    return run_ready(1) == 1;
  }

  /// Does all that can be done without a step in time.
  void settle() {
    while (step()) {
    }
  }

  /// Lets time pass; what becomes due runs at its time.
  void advance(Duration by) {
    const TimePoint until = after(now_, by);
    settle();
    while (timers_.next() <= until) jump();
    now_ = until;
    settle();
  }

  /// Runs the task to its end and gives its result. Throws where it waits for nothing.
  template <class T>
  T run(Task<T> task) {
    weir::detail::Result<T> result;
    TaskGroup group(*this);
    group.spawn(weir::detail::take_result(std::move(task), result));
    settle();
    while (!result.has_value() && !result.has_exception()) {
      if (timers_.empty()) throw std::logic_error("the task waits for ever");
      jump();
    }
    return result.take();
  }

 private:
  void jump() {
    if (timers_.next() > now_) now_ = timers_.next();
    timers_.expire(now_);
    settle();
  }

  void knock() noexcept override {}
  void arm(Timer& timer) override { timers_.arm(timer); }
  void disarm(Timer& timer) noexcept override { timers_.disarm(timer); }

  TimePoint now_{std::chrono::hours(1)};
  TimerWheel timers_;
  Scheduler* outer_;
  std::deque<std::unique_ptr<Posted>> posted_;
  std::vector<std::string> reported_;
};

}  // namespace weir::test
