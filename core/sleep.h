#pragma once

#include <weir/coro/scheduler.h>

#include <chrono>

namespace weir {

/// See `sleep` and `sleep_until`.
class [[nodiscard("co_await it")]] SleepAwaiter {
 public:
  /// Until a point of the loop's clock.
  explicit SleepAwaiter(TimePoint until) noexcept : timer_(*this), until_(until) {}
  /// For a time from when it is awaited.
  explicit SleepAwaiter(Duration delay) noexcept : timer_(*this), delay_(delay), relative_(true) {}
  SleepAwaiter(SleepAwaiter&& other) noexcept
      : timer_(*this), until_(other.until_), delay_(other.delay_), relative_(other.relative_) {}

  [[nodiscard]] bool await_ready() const {
    return relative_ ? delay_ <= Duration::zero() : until_ <= Scheduler::current().now();
  }
  void await_suspend(std::coroutine_handle<> handle) {
    waiter_.suspend(handle);
    Scheduler& scheduler = *waiter_.scheduler();
    timer_.arm(scheduler, relative_ ? scheduler.deadline_in(delay_) : until_);
  }
  void await_resume() const noexcept {}

 private:
  struct Alarm : Timer {
    explicit Alarm(SleepAwaiter& sleep) noexcept
        : Timer([](Timer& timer) noexcept { static_cast<Alarm&>(timer).owner.waiter_.wake(); }),
          owner(sleep) {}
    SleepAwaiter& owner;
  };

  Waiter waiter_;
  Alarm timer_;
  TimePoint until_{};
  Duration delay_{};
  bool relative_ = false;
};

/// `co_await sleep(delay)` resumes in the loop's turn, never before `delay` has passed. Zero or
/// less does not suspend. Dropping it disarms its timer.
template <class Rep, class Period>
SleepAwaiter sleep(std::chrono::duration<Rep, Period> delay) {
  return SleepAwaiter(to_duration(delay));
}

/// `co_await sleep_until(t)`: `t` on the loop's clock, as `EventLoop::now` gives it. What has
/// passed does not suspend.
inline SleepAwaiter sleep_until(TimePoint time) { return SleepAwaiter(time); }

/// See `yield`.
class [[nodiscard("co_await it")]] YieldAwaiter {
 public:
  YieldAwaiter() noexcept = default;
  static constexpr bool await_ready() noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    waiter_.suspend(handle);
    waiter_.wake();
  }
  void await_resume() const noexcept {}

 private:
  Waiter waiter_;
};

/// `co_await yield()` lets everything that is ready run first.
inline YieldAwaiter yield() { return YieldAwaiter(); }

}  // namespace weir
