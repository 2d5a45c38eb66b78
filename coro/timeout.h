#pragma once

#include <weir/coro/awaitable.h>
#include <weir/coro/error.h>
#include <weir/coro/scheduler.h>

#include <stdexcept>
#include <system_error>

namespace weir {

namespace detail {

/// See `timeout`.
template <class A>
class [[nodiscard("co_await it")]] Timeout {
 public:
  using Held = std::remove_cvref_t<A>;
  static constexpr char kWaitsFor[] = "timeout of ";

  using Value = typename detail::HeldAwaitable<A>::Result;

  Timeout(Duration delay, A&& awaitable)
      : timer_(*this), held_(std::move(awaitable)), delay_(delay) {}
  Timeout(Timeout&& other) noexcept
      : timer_(*this), held_(std::move(other.held_)), delay_(other.delay_) {}

  bool await_ready() { return held_.awaiter().await_ready(); }

  bool await_suspend(std::coroutine_handle<> handle) {
    if (!detail::suspend_on(held_.awaiter(), handle)) return false;
    timed_out_.suspend(handle);
    Scheduler& scheduler = *timed_out_.scheduler();
    timer_.arm(scheduler, scheduler.deadline_in(delay_));
    return true;
  }

  Value await_resume() {
    if (settle()) throw std::system_error(make_error_code(errc::deadline));
    return held_.awaiter().await_resume();
  }

  Outcome<Value> outcome() {
    if (settle()) return {make_error_code(errc::deadline), {}};
    return detail::outcome_of(held_.awaiter());
  }

  /// What is held, for who shows where the coroutine waits.
  [[nodiscard]] const A* awaited() const noexcept { return held_.awaitable(); }

 private:
  struct Deadline : Timer {
    explicit Deadline(Timeout& timeout)
        : Timer(
              [](Timer& timer) noexcept { static_cast<Deadline&>(timer).owner.timed_out_.wake(); }),
          owner(timeout) {}
    Timeout& owner;
  };

  /// True if the deadline resumed us, and not what was awaited; that is dropped then. Whichever
  /// of the two is still under way is called off.
  bool settle() noexcept {
    const bool due = timed_out_.scheduler() != nullptr && !timer_.armed() && !timed_out_.linked();
    timer_.disarm();
    timed_out_.unlink();
    if (due) held_.drop();
    return due;
  }

  Waiter timed_out_;
  Deadline timer_;
  detail::HeldAwaitable<A> held_;
  Duration delay_;
};

}  // namespace detail

/// `co_await timeout(delay, a)` gives the result of `a`, or, `delay` after it was awaited, drops
/// `a` and throws `std::system_error` with `errc::deadline` (which is `std::errc::timed_out`).
/// Dropping it drops `a`. Of one read, accept, receive … nothing is lost either way: what `a` would
/// have consumed is there for the next to ask. A task that is dropped takes with it what it has
/// consumed by then. A delay of zero or less still gives what is there at once. Makes no coroutine
/// frame.
template <class Rep, class Period, detail::Awaitable A>
  requires(!std::is_lvalue_reference_v<A>)
detail::Timeout<A> timeout(std::chrono::duration<Rep, Period> delay, A&& awaitable) {
  return detail::Timeout<A>(detail::to_duration(delay), std::forward<A>(awaitable));
}

}  // namespace weir
