#pragma once

#include <weir/coro/owner.h>

namespace weir {

/// A flag to wait for. Belongs to one loop; not thread-safe.
class Event {
 public:
  class WaitAwaiter {
   public:
    static constexpr char kWaitsFor[] = "Event::wait";

    /// Without an event it waits until it is dropped.
    explicit WaitAwaiter(Event* event) noexcept : event_(event) {}
    [[nodiscard]] bool await_ready() const noexcept {
      return event_ != nullptr && event_->set_ && detail::Scheduler::may_go_on();
    }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
      waiter_.suspend(handle);
      if (event_ == nullptr) return;
      event_->check_owner("Event::wait");
      if (event_->set_) {
        waiter_.wake();
      } else {
        event_->waiting_.push_back(waiter_);
      }
    }
    void await_resume() const noexcept {}

   private:
    Event* event_;
    detail::Waiter waiter_;
  };

  /// Stays set until `reset`. Everybody who waits is resumed in the loop's turn, in the order in
  /// which they came; a woken one may destroy the event.
  void set() noexcept {
    check_owner("Event::set");
    set_ = true;
    while (detail::Waiter* waiter = waiting_.pop_front()) waiter->wake();
  }
  void reset() noexcept { set_ = false; }
  [[nodiscard]] bool is_set() const noexcept { return set_; }

  /// `co_await wait()` resumes once the event is set, even if it was reset since. Dropping it
  /// leaves the others alone. The event must outlive the wait.
  [[nodiscard("co_await it")]] WaitAwaiter wait() noexcept { return WaitAwaiter(this); }

 private:
  /// The loop is that of those who wait; without them there is none.
  void check_owner(const char* what) const noexcept {
    const detail::Waiter* waiter = waiting_.front();
    if (waiter != nullptr)
      detail::check_owner(*waiter->scheduler(), what, "EventLoop::post or a Channel");
  }

  detail::List<detail::Waiter> waiting_;
  bool set_ = false;
};

}  // namespace weir
