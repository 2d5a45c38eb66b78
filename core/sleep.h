#pragma once

#include <weir/coro/scheduler.h>

#include <chrono>

namespace weir {

namespace detail {

/// See `sleep` and `sleep_until`.
class [[nodiscard("co_await it")]] SleepAwaiter {
 public:
  static constexpr char kWaitsFor[] = "sleep";

  /// Until a point of the loop's clock.
  explicit SleepAwaiter(TimePoint until) noexcept : timer_(*this), until_(until) {}
  /// For a time from when it is awaited.
  explicit SleepAwaiter(Duration delay) noexcept : timer_(*this), delay_(delay), relative_(true) {}
  SleepAwaiter(SleepAwaiter&& other) noexcept
      : timer_(*this), until_(other.until_), delay_(other.delay_), relative_(other.relative_) {}

  [[nodiscard]] bool await_ready() const { return is_due() && Scheduler::may_go_on(); }
  void await_suspend(std::coroutine_handle<> handle) {
    waiter_.suspend(handle);
    Scheduler& scheduler = *waiter_.scheduler();
    if (is_due()) {
      waiter_.wake();
    } else {
      timer_.arm(scheduler, relative_ ? scheduler.deadline_in(delay_) : until_);
    }
  }
  void await_resume() const noexcept {}

 private:
  [[nodiscard]] bool is_due() const {
    return relative_ ? delay_ <= Duration::zero() : until_ <= Scheduler::current().now();
  }

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

}  // namespace detail

/// `co_await sleep(delay)` resumes in the loop's turn, never before `delay` has passed. Zero or
/// less does not suspend, unless this coroutine has not for some hundred awaits. Dropping it
/// disarms its timer.
template <class Rep, class Period>
detail::SleepAwaiter sleep(std::chrono::duration<Rep, Period> delay) {
  return detail::SleepAwaiter(detail::to_duration(delay));
}

/// `co_await sleep_until(t)`: `t` on the loop's clock, as `EventLoop::now` gives it. What has
/// passed does not suspend.
inline detail::SleepAwaiter sleep_until(TimePoint time) { return detail::SleepAwaiter(time); }

namespace detail {

/// See `yield`.
class [[nodiscard("co_await it")]] YieldAwaiter {
 public:
  static constexpr char kWaitsFor[] = "yield";

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

}  // namespace detail

/// `co_await yield()` lets everything that is ready run first.
inline detail::YieldAwaiter yield() { return detail::YieldAwaiter(); }

}  // namespace weir
