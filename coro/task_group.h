#pragma once

#include <weir/coro/scheduler.h>
#include <weir/coro/task.h>

#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <utility>

namespace weir {

/// Tasks that run beside their maker, and end with the group at the latest.
///
/// Made on a running loop, used on that loop only. Its destructor drops the tasks that are left;
/// a failure that nobody joined is logged. A task may cancel or destroy the group that it runs in:
/// it then goes on to its next suspension and is dropped there.
class TaskGroup {
 public:
  /// Throws `std::logic_error` where no loop runs.
  TaskGroup() : TaskGroup(Scheduler::current()) {}
  explicit TaskGroup(Scheduler& scheduler)
      : scheduler_(scheduler), scope_(scheduler.current_scope()) {}
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;
  virtual ~TaskGroup();

  /// Runs the task until it first suspends, before this returns; later from the loop's turn. Its
  /// result is discarded; its exception is kept for `join`.
  /// `keep` lives as long as the task's frame does.
  template <class T>
  void spawn(Task<T> task, std::shared_ptr<const void> keep = nullptr) {
    if (task) {
      start(*new OwnedTask<T>(*this, std::move(task), std::move(keep)));
    } else {
      refuse_empty();
    }
  }

  class JoinAwaiter;

  /// `co_await join()` resumes when no task is left, or, as soon as one failed, drops the rest and
  /// throws its exception. Dropping it leaves the tasks alone.
  [[nodiscard("co_await it")]] JoinAwaiter join() noexcept;

  /// Drops all tasks. Those spawned from now on run.
  void cancel() noexcept;

  /// The tasks that have not finished.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 protected:
  /// A task has finished or was dropped; it is not counted any more.
  virtual void task_left() noexcept {}
  /// A task threw. True: that is all; false: `join` throws it.
  virtual bool handle_failure(const std::exception_ptr& failure) noexcept {
    (void)failure;
    return false;
  }

 private:
  /// A task of the group, in the group's list until it ends or is dropped.
  class Member : public FrameAllocated, public Root {
   public:
    Member(TaskGroup& owner, std::shared_ptr<const void> keep) noexcept
        : Root(&owner.scope_), group_(&owner), keep_(std::move(keep)) {}

    virtual std::coroutine_handle<> handle() noexcept = 0;
    /// The group does not know it any more.
    void forget_group() noexcept { group_ = nullptr; }

   protected:
    ~Member() = default;
    /// The task has finished: leaves the group.
    void end(std::exception_ptr failure) noexcept;

   private:
    TaskGroup* group_;  // nullptr once the group has let go of it
    std::shared_ptr<const void> keep_;
  };

  template <class T>
  class OwnedTask final : public Member {
   public:
    OwnedTask(TaskGroup& owner, Task<T> task, std::shared_ptr<const void> keep)
        : Member(owner, std::move(keep)), handle_(std::move(task).release()) {
      handle_.promise().continuation.set(*this);
    }

    std::coroutine_handle<> handle() noexcept override { return handle_; }
    void finished() noexcept override { end(handle_.promise().result.exception()); }
    void destroy() noexcept override {
      handle_.destroy();
      delete this;
    }

   private:
    std::coroutine_handle<detail::TaskPromise<T>> handle_;
  };

  void start(Member& member);
  void refuse_empty();
  void fail(std::exception_ptr failure) noexcept;
  void left() noexcept;

  Scheduler& scheduler_;
  Scope scope_;
  List<Root> tasks_;
  List<Waiter> joining_;
  std::size_t size_ = 0;
  std::exception_ptr failure_;
};

class [[nodiscard("co_await it")]] TaskGroup::JoinAwaiter {
 public:
  explicit JoinAwaiter(TaskGroup& group) noexcept : group_(group) {}

  [[nodiscard]] bool await_ready() const noexcept {
    return group_.size_ == 0 || group_.failure_ != nullptr;
  }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    waiter_.suspend(handle);
    group_.joining_.push_back(waiter_);
  }
  void await_resume();

 private:
  TaskGroup& group_;
  Waiter waiter_;
};

inline TaskGroup::JoinAwaiter TaskGroup::join() noexcept { return JoinAwaiter(*this); }

}  // namespace weir
