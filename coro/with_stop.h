#pragma once

#include <weir/coro/awaitable.h>
#include <weir/coro/scheduler.h>

#include <atomic>
#include <optional>
#include <stop_token>
#include <system_error>
#include <utility>

namespace weir {

namespace detail {

/// See `with_stop`.
template <class A>
class [[nodiscard("co_await it")]] WithStop {
 public:
  using Held = std::remove_cvref_t<A>;
  static constexpr char kWaitsFor[] = "with_stop of ";

  using Value = typename HeldAwaitable<A>::Result;

  WithStop(std::stop_token token, A&& awaitable)
      : token_(std::move(token)), held_(std::move(awaitable)) {}
  WithStop(WithStop&& other) noexcept
      : token_(std::move(other.token_)), held_(std::move(other.held_)) {}
  ~WithStop() { (void)settle(); }

  bool await_ready() {
    if (!token_.stop_requested()) return held_.awaiter().await_ready();
    held_.drop();
    stopped_at_once_ = true;
    return true;
  }

  bool await_suspend(std::coroutine_handle<> handle) {
    if (!suspend_on(held_.awaiter(), handle)) return false;
    waiter_.suspend(handle);
    callback_.emplace(token_, Stop{*this});
    return true;
  }

  Value await_resume() {
    if (stopped()) throw std::system_error(std::make_error_code(std::errc::operation_canceled));
    return held_.awaiter().await_resume();
  }

  Outcome<Value> outcome() {
    if (stopped()) return {std::make_error_code(std::errc::operation_canceled), {}};
    return outcome_of(held_.awaiter());
  }

  /// What is held, for who shows where the coroutine waits.
  [[nodiscard]] const A* awaited() const noexcept { return held_.awaitable(); }

 private:
  /// Runs where the stop is requested. Its own end waits for it, so that what it wakes is there.
  struct Stop {
    WithStop& owner;
    void operator()() const noexcept {
      owner.requested_.store(true, std::memory_order_relaxed);
      owner.waiter_.wake_from_anywhere();
    }
  };

  /// True if it was the stop that resumed us, and not what was awaited. Whichever of the two is
  /// still under way is called off.
  bool settle() noexcept {
    if (!callback_) return false;
    callback_.reset();
    const bool still_waiting = waiter_.forget_wake();
    return requested_.load(std::memory_order_relaxed) && !still_waiting;
  }

  bool stopped() noexcept {
    if (stopped_at_once_) return true;
    if (!settle()) return false;
    held_.drop();
    return true;
  }

  std::stop_token token_;
  Waiter waiter_;
  std::atomic<bool> requested_ = false;
  bool stopped_at_once_ = false;
  HeldAwaitable<A> held_;
  std::optional<std::stop_callback<Stop>> callback_;
};

}  // namespace detail

/// `co_await with_stop(token, a)` gives the result of `a`, or, once a stop of the token is
/// requested
/// (`std::stop_source::request_stop`, `std::jthread`), from any thread and also before the await,
/// drops `a` and throws `std::errc::operation_canceled`. Dropping it drops `a`. Of one
/// read, accept, receive … nothing is lost either way: what `a` would have consumed is there for
/// the next to ask. A task that is dropped takes with it what it has consumed. Makes no coroutine
/// frame.
template <detail::Awaitable A>
  requires(!std::is_lvalue_reference_v<A>)
detail::WithStop<A> with_stop(std::stop_token token, A&& awaitable) {
  return detail::WithStop<A>(std::move(token), std::forward<A>(awaitable));
}

}  // namespace weir
