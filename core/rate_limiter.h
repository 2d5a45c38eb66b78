#pragma once

#include <weir/coro/scheduler.h>

namespace weir {

/// A token bucket on the loop's clock: bytes, requests, connections of a peer. It begins full, and
/// those who wait are served in the order in which they asked. Belongs to one loop (`LoopLocal`
/// makes one for each); not thread-safe.
class RateLimiter {
 public:
  class [[nodiscard("co_await it")]] AcquireAwaiter {
   public:
    AcquireAwaiter(RateLimiter& limiter, Duration cost) noexcept
        : limiter_(&limiter), cost_(cost) {}
    AcquireAwaiter(AcquireAwaiter&& other) noexcept
        : limiter_(other.limiter_), cost_(other.cost_) {}
    ~AcquireAwaiter();

    [[nodiscard]] bool await_ready();
    void await_suspend(std::coroutine_handle<> handle);
    void await_resume() noexcept { granted_ = false; }

   private:
    friend class RateLimiter;
    friend struct detail::Hook;

    detail::Link link;
    RateLimiter* limiter_;
    Duration cost_;
    detail::Waiter waiter_;
    bool granted_ = false;
  };

  /// `per_second` tokens come in a second, at most `burst` are there. Throws
  /// `std::invalid_argument` for what is not above zero.
  RateLimiter(double per_second, double burst);
  RateLimiter(const RateLimiter&) = delete;
  RateLimiter& operator=(const RateLimiter&) = delete;
  ~RateLimiter();

  /// `co_await acquire(n)` takes n tokens, waiting until they are there. More than `burst` waits
  /// for a full bucket, and those who come after for the rest: the rate holds for all of them.
  /// Dropping it takes nothing. Throws `std::invalid_argument` for a negative number.
  [[nodiscard("co_await it")]] AcquireAwaiter acquire(double tokens = 1);

  /// Takes them if they are there and nobody waits. On a loop's thread; the same errors.
  [[nodiscard]] bool try_acquire(double tokens = 1);

  /// Tokens that are there now, below zero after a large `acquire`. On a loop's thread.
  [[nodiscard]] double available() const;

 private:
  struct Alarm : detail::Timer {
    explicit Alarm(RateLimiter& of) noexcept
        : Timer([](Timer& timer) noexcept { static_cast<Alarm&>(timer).limiter.grant(); }),
          limiter(of) {}
    RateLimiter& limiter;
  };

  [[nodiscard]] Duration cost_of(double tokens) const;
  /// When it can be paid.
  [[nodiscard]] TimePoint due(Duration cost) const noexcept;
  [[nodiscard]] bool take(Duration cost, TimePoint now) noexcept;
  void give_back(Duration cost) noexcept;
  void grant() noexcept;

  double per_second_;
  Duration bucket_;      // the time in which an empty one fills
  TimePoint full_at_{};  // when this one will be full
  detail::List<AcquireAwaiter> waiting_;
  detail::List<AcquireAwaiter> granted_;  // about to be resumed
  Alarm alarm_;
};

}  // namespace weir
