#pragma once

#include <weir/coro/awaitable.h>

#include <system_error>

namespace weir {

namespace detail {

/// See `as_tuple`.
template <class A>
class [[nodiscard("co_await it")]] AsTuple {
 public:
  using Held = std::remove_cvref_t<A>;
  static constexpr char kWaitsFor[] = "";

  explicit AsTuple(A&& awaitable) : held_(std::move(awaitable)) {}

  bool await_ready() {
    return attempt([this] { return held_.awaiter().await_ready(); }, true);
  }
  bool await_suspend(std::coroutine_handle<> handle) {
    return attempt([&] { return detail::suspend_on(held_.awaiter(), handle); }, false);
  }
  Outcome<typename HeldAwaitable<A>::Result> await_resume() {
    if (failed_) return {failed_, {}};
    return detail::outcome_of(held_.awaiter());
  }

  /// What is held, for who shows where the coroutine waits.
  [[nodiscard]] const A* awaited() const noexcept { return held_.awaitable(); }

 private:
  /// What it throws is why the await is over: `otherwise`.
  template <class Step>
  bool attempt(Step step, bool otherwise) {
    try {
      return step();
    } catch (const std::system_error& error) {
      failed_ = error.code();
      return otherwise;
    }
  }

  std::error_code failed_;  // to begin to wait
  detail::HeldAwaitable<A> held_;
};

}  // namespace detail

/// `co_await as_tuple(a)` gives `Outcome<T>{error, value}` and never throws `std::system_error`:
///
///     auto [error, chunk] = co_await as_tuple(connection.read());
///
/// weir's own awaitables make no exception on that path. Other exceptions pass through. Dropping
/// it drops `a`.
template <detail::Awaitable A>
  requires(!std::is_lvalue_reference_v<A>)
detail::AsTuple<A> as_tuple(A&& awaitable) {
  return detail::AsTuple<A>(std::forward<A>(awaitable));
}

}  // namespace weir
