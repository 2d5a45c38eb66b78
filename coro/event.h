#pragma once

#include <weir/coro/scheduler.h>

namespace weir {

/// A flag to wait for. Belongs to one loop; not thread-safe.
class Event {
 public:
  class WaitAwaiter {
   public:
    /// Without an event it waits until it is dropped.
    explicit WaitAwaiter(Event* event) noexcept : event_(event) {}
    [[nodiscard]] bool await_ready() const noexcept { return event_ != nullptr && event_->set_; }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
      waiter_.suspend(handle);
      if (event_ != nullptr) event_->waiting_.push_back(waiter_);
    }
    void await_resume() const noexcept {}

   private:
    Event* event_;
    Waiter waiter_;
  };

  /// Stays set until `reset`. Everybody who waits is resumed in the loop's turn, in the order in
  /// which they came; a woken one may destroy the event.
  void set() noexcept {
    set_ = true;
    while (Waiter* waiter = waiting_.pop_front()) waiter->wake();
  }
  void reset() noexcept { set_ = false; }
  [[nodiscard]] bool is_set() const noexcept { return set_; }

  /// `co_await wait()` resumes once the event is set, even if it was reset since. Dropping it
  /// leaves the others alone. The event must outlive the wait.
  [[nodiscard("co_await it")]] WaitAwaiter wait() noexcept { return WaitAwaiter(this); }

 private:
  List<Waiter> waiting_;
  bool set_ = false;
};

}  // namespace weir
