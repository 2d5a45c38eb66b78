#pragma once

#include <weir/core/event_loop.h>
#include <weir/coro/event.h>
#include <weir/coro/result.h>
#include <weir/coro/when_any.h>

#include <memory>
#include <mutex>
#include <system_error>

namespace weir {

namespace detail {

/// What the two loops of an `on` share.
template <class T>
struct Crossing {
  std::mutex mutex;           // guards `waiting`
  Waiter* waiting = nullptr;  // the awaiter, until it is resumed or dropped
  Scheduler* home = nullptr;  // its loop, which exists as long as `waiting` is set
  Result<T> result;           // written by the remote side before it finishes
  Event cancelled;            // the remote side's

  /// Remote side: has the awaiter resumed on its own loop.
  static void finish(const std::shared_ptr<Crossing>& crossing) {
    const std::lock_guard lock(crossing->mutex);
    if (crossing->waiting == nullptr) return;
    crossing->home->post_function([crossing] {
      const std::lock_guard waking(crossing->mutex);
      if (Waiter* waiter = std::exchange(crossing->waiting, nullptr)) waiter->wake();
    });
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
      result.set_exception(std::make_exception_ptr(
          std::system_error(std::make_error_code(std::errc::operation_canceled),
                            "weir: the loop given to on() ended before the task")));
    }
    Crossing<T>::finish(crossing_);
  }
  Crossing<T>& operator*() const noexcept { return *crossing_; }

 private:
  std::shared_ptr<Crossing<T>> crossing_;
};

template <class T>
Task<> take_result(Task<T> task, Result<T>& result) {
  try {
    Task<T> inner = std::move(task);
    if constexpr (std::is_void_v<T>) {
      co_await std::move(inner);
      result.set_value();
    } else {
      result.set_value(co_await std::move(inner));
    }
  } catch (...) {
    result.set_exception(std::current_exception());
  }
}

template <class T>
Task<> run_remotely(Task<T> task, RemoteEnd<T> remote_end) {
  const RemoteEnd<T> end = std::move(remote_end);
  co_await when_any(take_result(std::move(task), (*end).result), (*end).cancelled.wait());
}

}  // namespace detail

/// See `on`.
template <class T>
class [[nodiscard("co_await it")]] OnAwaiter {
  using Crossing = detail::Crossing<T>;

 public:
  OnAwaiter(EventLoop& loop, Task<T> task) : loop_(loop), task_(std::move(task)) {}
  OnAwaiter(OnAwaiter&& other) noexcept : loop_(other.loop_), task_(std::move(other.task_)) {}
  ~OnAwaiter() {
    if (crossing_ == nullptr) return;
    {
      const std::lock_guard lock(crossing_->mutex);
      if (std::exchange(crossing_->waiting, nullptr) == nullptr) return;
    }
    mailbox_->push(std::make_unique<Cancel>(std::move(crossing_)));
  }

  static constexpr bool await_ready() noexcept { return false; }

  void await_suspend(std::coroutine_handle<> handle) {
    crossing_ = std::make_shared<Crossing>();
    waiter_.suspend(handle);
    crossing_->waiting = &waiter_;
    crossing_->home = waiter_.scheduler();
    mailbox_ = loop_.mailbox();
    mailbox_->push(std::make_unique<Start>(
        loop_, detail::run_remotely(std::move(task_), detail::RemoteEnd<T>(crossing_))));
  }

  T await_resume() { return std::exchange(crossing_, nullptr)->result.take(); }

 private:
  struct Start final : Posted {
    Start(EventLoop& where, Task<> what) : loop(where), task(std::move(what)) {}
    void run() override { loop.spawn(std::move(task)); }
    EventLoop& loop;
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
};

/// `co_await on(loop, task)` runs the task on another loop, and resumes here, on this one, with
/// its result or its exception; `std::errc::operation_canceled` if that loop ends first. The task
/// must not refer to anything that it cannot share with this thread. Dropping it drops the task
/// too, in a turn of its loop, which may be after the drop: what the task refers to must live
/// until then.
template <class T>
OnAwaiter<T> on(EventLoop& loop, Task<T> task) {
  return OnAwaiter<T>(loop, std::move(task));
}

}  // namespace weir
