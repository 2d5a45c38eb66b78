#pragma once

#include <weir/core/event_loop.h>

#include <csignal>
#include <type_traits>

namespace weir {

/// A set of signal numbers. Takes them by a constructor because GCC 12.2 cannot compile a braced
/// `std::initializer_list` inside a `co_await` expression.
struct SignalSet {
  template <class... Int>
    requires(std::is_convertible_v<Int, int> && ...)
  constexpr SignalSet(int first, Int... rest) noexcept  // NOLINT: signal(SIGINT) is meant to work
      : numbers{first, static_cast<int>(rest)...}, count(1 + sizeof...(rest)) {
    static_assert(sizeof...(rest) < 8, "weir::signal takes eight signals at the most");
  }

  int numbers[8];
  std::size_t count;
};

/// See `signal`.
class [[nodiscard("co_await it")]] SignalAwaiter {
 public:
  explicit SignalAwaiter(SignalSet signals) noexcept : signals_(signals) {}
  SignalAwaiter(SignalAwaiter&& other) noexcept : signals_(other.signals_) {}
  ~SignalAwaiter();

  static constexpr bool await_ready() noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle);
  int await_resume();

 private:
  struct State;

  SignalSet signals_;
  Waiter waiter_;
  State* state_ = nullptr;  // the loop's
};

/// `co_await signal(SIGINT, SIGTERM)` gives the signal that came. While it waits they are blocked
/// on the loop's thread (signalfd(2)), and a handler passes on to it what the kernel delivers to
/// another thread. Dropping it restores mask and disposition. Throws `std::system_error` for
/// numbers that cannot be waited for.
inline SignalAwaiter signal(SignalSet signals) { return SignalAwaiter(signals); }
template <class... Int>
SignalAwaiter signal(int first, Int... rest) {
  return SignalAwaiter(SignalSet(first, rest...));
}

}  // namespace weir
