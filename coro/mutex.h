#pragma once

#include <weir/coro/semaphore.h>

namespace weir {

/// Mutual exclusion between coroutines of one loop that hold something across a suspension, in
/// the order in which they asked. Not thread-safe.
class Mutex {
 public:
  using Lock = Semaphore::Permit;

  class LockAwaiter : public Semaphore::AcquireAwaiter {
   public:
    static constexpr char kWaitsFor[] = "Mutex::lock";

    using AcquireAwaiter::AcquireAwaiter;
  };

  /// `auto lock = co_await mutex.lock()` holds the mutex until `lock` is destroyed. Dropping the
  /// wait gives up the place in the queue.
  [[nodiscard("co_await it")]] LockAwaiter lock() { return {semaphore_, 1}; }

  [[nodiscard]] bool locked() const noexcept { return semaphore_.available() == 0; }

 private:
  Semaphore semaphore_{1};
};

}  // namespace weir
