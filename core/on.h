#pragma once

#include <weir/core/event_loop.h>
#include <weir/coro/event.h>
#include <weir/coro/take_result.h>
#include <weir/coro/when_any.h>

#include <memory>
#include <mutex>
#include <system_error>

namespace weir {

namespace detail {

/// What the two loops of an `on` share.
template <class T>
struct Crossing {
  std::mutex mutex;           // guards the next two
  Waiter* waiting = nullptr;  // the awaiter, until it resumes or is dropped
  bool finished = false;
  Result<T> result;  // written by the remote side before it finishes
  Event cancelled;   // the remote side's

  /// Remote side: has the awaiter resumed on its own loop.
  void finish() noexcept {
    const std::lock_guard lock(mutex);
    finished = true;
    if (waiting != nullptr) waiting->wake_from_anywhere();
  }
};

/// The remote side's hold on the crossing: its end finishes it, with an error if there is no
/// result because the remote loop ended first.
template <class T>
class RemoteEnd {
 public:
  explicit RemoteEnd(std::shared_ptr<Crossing<T>> crossing) : crossing_(std::move(crossing)) {}
  RemoteEnd(RemoteEnd&&) noexcept = default;
  RemoteEnd& operator=(RemoteEnd&&) = delete;
  ~RemoteEnd() {
    if (crossing_ == nullptr) return;
    Result<T>& result = crossing_->result;
    if (!result.has_value() && !result.has_exception()) {
      try {
        throw std::system_error(std::make_error_code(std::errc::operation_canceled),
                                "weir: the loop given to on() ended before the task");
      } catch (...) {
        result.set_exception(std::current_exception());
      }
    }
    crossing_->finish();
  }
  Crossing<T>& operator*() const noexcept { return *crossing_; }

 private:
  std::shared_ptr<Crossing<T>> crossing_;
};

template <class T>
Task<> run_remotely(Task<T> task, RemoteEnd<T> remote_end) {
  const RemoteEnd<T> end = std::move(remote_end);
  co_await when_any(take_result(std::move(task), (*end).result), (*end).cancelled.wait());
}

/// See `on`.
template <class T>
class [[nodiscard("co_await it")]] OnAwaiter {
  using Crossing = detail::Crossing<T>;

 public:
  static constexpr char kWaitsFor[] = "on: a task on another loop";

  OnAwaiter(EventLoop& loop, Task<T> task) : loop_(loop), task_(std::move(task)) {}
  OnAwaiter(OnAwaiter&& other) noexcept : loop_(other.loop_), task_(std::move(other.task_)) {}
  ~OnAwaiter() {
    if (crossing_ == nullptr) return;
    bool finished = false;
    {
      const std::lock_guard lock(crossing_->mutex);
      crossing_->waiting = nullptr;
      finished = crossing_->finished;
      waiter_.forget_wake();
    }
    if (!finished) mailbox_->push(std::move(cancel_));
  }

  static constexpr bool await_ready() noexcept { return false; }

  void await_suspend(std::coroutine_handle<> handle) {
    // First what may fail; a drop needs no memory.
    auto crossing = std::make_shared<Crossing>();
    mailbox_ = loop_.mailbox();
    cancel_ = std::make_unique<Cancel>(crossing);
    auto start = std::make_unique<Start>(loop_);
    start->task = detail::run_remotely(std::move(task_), detail::RemoteEnd<T>(crossing));
    waiter_.suspend(handle);
    crossing->waiting = &waiter_;
    crossing_ = std::move(crossing);
    mailbox_->push(std::move(start));
  }

  T await_resume() { return crossing_->result.take(); }

 private:
  struct Start final : Posted {
    explicit Start(EventLoop& where) : loop(where) {}
    void run() override {
      const LocalsHere spawning(std::move(locals));
      loop.spawn(std::move(task));
    }
    EventLoop& loop;
    Locals locals = current_locals_for_thread();
    Task<> task;
  };
  struct Cancel final : Posted {
    explicit Cancel(std::shared_ptr<Crossing> what) : crossing(std::move(what)) {}
    void run() override { crossing->cancelled.set(); }
    std::shared_ptr<Crossing> crossing;
  };

  EventLoop& loop_;
  Task<T> task_;
  Waiter waiter_;
  std::shared_ptr<Crossing> crossing_;
  std::shared_ptr<Mailbox> mailbox_;
  std::unique_ptr<Cancel> cancel_;
};

}  // namespace detail

/// `co_await on(loop, task)` runs the task on another loop, and resumes here, on this one, with
/// its result or its exception; `std::errc::operation_canceled` if that loop ends first. The task
/// must not refer to anything that it cannot share with this thread. It begins with copies of this
/// task's values of each `TaskLocal`. Dropping it drops the task
/// too, in a turn of its loop, which may be after the drop: what the task refers to must live
/// until then.
template <class T>
detail::OnAwaiter<T> on(EventLoop& loop, Task<T> task) {
  return detail::OnAwaiter<T>(loop, std::move(task));
}
/// The same with the task that a callable returns; it is called on the other loop, and kept as long
/// as its task.
template <detail::TaskFunction Function>
auto on(EventLoop& loop, Function function) {
  return on(loop, detail::call_and_keep(std::move(function)));
}

}  // namespace weir
