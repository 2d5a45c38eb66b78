#pragma once

#include <coroutine>
#include <utility>

namespace weir::test {

/// An awaitable that suspends until the test resumes it, directly and without a loop: for one
/// waiter at a time.
class Manual {
 public:
  class Awaiter {
   public:
    explicit Awaiter(Manual& manual) noexcept : manual_(manual) {}
    Awaiter(const Awaiter&) = delete;
    Awaiter& operator=(const Awaiter&) = delete;
    ~Awaiter() {
      if (!suspended_) return;
      manual_.waiting_ = nullptr;
      ++manual_.dropped_;
    }
    static constexpr bool await_ready() noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
      manual_.waiting_ = handle;
      suspended_ = true;
    }
    int await_resume() noexcept {
      suspended_ = false;
      return manual_.value_;
    }

   private:
    Manual& manual_;
    bool suspended_ = false;
  };

  Awaiter operator co_await() noexcept { return Awaiter(*this); }

  [[nodiscard]] bool waiting() const noexcept { return static_cast<bool>(waiting_); }
  [[nodiscard]] int dropped() const noexcept { return dropped_; }

  /// The awaiter gets `value`.
  void resume(int value = 0) {
    value_ = value;
    std::exchange(waiting_, nullptr).resume();
  }

 private:
  std::coroutine_handle<> waiting_;
  int value_ = 0;
  int dropped_ = 0;
};

}  // namespace weir::test
