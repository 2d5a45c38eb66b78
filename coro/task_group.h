#pragma once

#include <weir/coro/scheduler.h>
#include <weir/coro/task.h>

#include <cstddef>
#include <exception>
#include <memory>

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
  template <class T>
  void spawn(Task<T> task) {
    start(run(std::move(task), *this, nullptr));
  }

  /// The same, and `keep` lives as long as the task's frame does.
  template <class T>
  void spawn(Task<T> task, std::shared_ptr<const void> keep) {
    start(run(std::move(task), *this, std::move(keep)));
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
  /// The coroutine around a task of the group; its frame goes by itself when the task has finished.
  struct RootTask {
    struct promise_type final : FrameAllocated, Root {
      template <class T>
      promise_type(Task<T>&, TaskGroup& owner, const std::shared_ptr<const void>&) noexcept
          : Root(&owner.scope_), group(&owner) {}

      RootTask get_return_object() noexcept { return {*this}; }
      static std::suspend_always initial_suspend() noexcept { return {}; }
      std::suspend_never final_suspend() noexcept {
        leave();
        return {};
      }
      void return_void() noexcept {}
      void unhandled_exception() noexcept;
      void destroy() noexcept override {
        leave();
        handle().destroy();
      }
      void leave() noexcept;
      std::coroutine_handle<promise_type> handle() noexcept {
        return std::coroutine_handle<promise_type>::from_promise(*this);
      }

      TaskGroup* group;  // nullptr once the group has let go of it
    };

    promise_type& promise;
  };

  template <class T>
  static RootTask run(Task<T> task, TaskGroup& group, std::shared_ptr<const void> keep) {
    (void)group;
    (void)keep;
    Task<T> inner = std::move(task);  // a local: gone before the promise, as parameters are not
    co_await std::move(inner);
  }

  void start(RootTask root);
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
