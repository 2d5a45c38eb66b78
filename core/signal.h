#pragma once

#include <weir/core/event_loop.h>

#include <concepts>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace weir {

class Signals;

namespace detail {

class SignalHolder;

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

/// See `signal` and `Signals::next`.
class [[nodiscard("co_await it")]] SignalAwaiter {
 public:
  static constexpr char kWaitsFor[] = "signal";

  explicit SignalAwaiter(SignalSet signals) noexcept : signals_(signals) {}
  SignalAwaiter(SignalAwaiter&& other) noexcept
      : signals_(other.signals_), holder_(other.holder_) {}
  ~SignalAwaiter();

  bool await_ready();
  void await_suspend(std::coroutine_handle<> handle);
  int await_resume();

 private:
  friend class detail::SignalHolder;
  friend struct Hook;
  friend class weir::Signals;

  SignalAwaiter(SignalSet signals, detail::SignalHolder* holder) noexcept
      : signals_(signals), holder_(holder) {}

  Link link;
  SignalSet signals_;
  Waiter waiter_;
  std::uint64_t wanted_ = 0;                // bit n - 1: signal n
  detail::SignalHolder* holder_ = nullptr;  // of `signal`: the loop's, once it waits
  int result_ = 0;                          // a signal or -errno, told and not looked at yet
};

}  // namespace detail

/// `co_await signal(SIGINT, SIGTERM)` gives the signal that came, in the order in which they asked
/// to those who wait on this loop: each gets one. Every loop whose coroutines wait for it, and
/// every `Signals`, is told of a signal. From the first that it gave on, a loop holds that signal
/// to its end, so that one that comes between two waits is given to the next. Dropping a wait for a
/// signal that never came restores its disposition at the end of the turn. Throws
/// `std::system_error` for numbers that cannot be waited for, and for want of a descriptor, of
/// which a loop needs one for all its waits.
inline detail::SignalAwaiter signal(detail::SignalSet signals) {
  return detail::SignalAwaiter(signals);
}
template <std::same_as<int>... Int>  // `signal(SIGPIPE, SIG_IGN)` is the one of the C library
detail::SignalAwaiter signal(int first, Int... rest) {
  return detail::SignalAwaiter(detail::SignalSet(first, rest...));
}

/// Holds its signals from its construction to its destruction: what comes meanwhile does not do
/// what it does by default, and is told to `next`, one of each number that nobody has taken yet
/// (signal(7)). Every holder in the process is told. What nobody asked for is forgotten at the end.
///
/// Handlers are installed while there is a holder (SA_RESTART), and the dispositions before them
/// restored after the last one; a signal that the constructing thread blocks is not blocked there
/// meanwhile. Made and destroyed on any thread, with a running loop or before; awaited on one loop
/// at a time, of the same machine: on a simulated host the signals are the host's.
class Signals {
 public:
  /// Throws `std::system_error` for numbers that cannot be held (SIGKILL), and for want of the
  /// descriptor that it needs.
  explicit Signals(detail::SignalSet signals);
  template <std::same_as<int>... Int>
  explicit Signals(int first, Int... rest) : Signals(detail::SignalSet(first, rest...)) {}
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  /// Whoever waits resumes with `std::errc::operation_canceled`.
  ~Signals();

  /// `co_await next()` gives a signal that came: at once if one has, else the next one, in the
  /// order in which they asked if several do. Dropping it loses none.
  detail::SignalAwaiter next() noexcept { return detail::SignalAwaiter(signals_, holder_); }

 private:
  detail::SignalSet signals_;
  detail::SignalHolder* holder_;
};

}  // namespace weir
