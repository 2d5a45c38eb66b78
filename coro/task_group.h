#pragma once

#include <weir/coro/owner.h>
#include <weir/coro/place.h>
#include <weir/coro/task.h>

#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <source_location>
#include <utility>

namespace weir {

/// Tasks that run beside their maker, and end with the group at the latest.
///
/// Made on a running loop, used on that loop only. Its destructor drops the tasks that are left,
/// which must be before the loop goes; a failure that nobody joined is logged. A task may cancel or
/// destroy the group that it runs in: it then goes on to its next suspension and is dropped there.
class TaskGroup {
 public:
  /// Hears of the tasks of a group, which it outlives.
  class Watcher {
   public:
    /// A task has finished or was dropped; it is not counted any more.
    virtual void task_left() noexcept = 0;
    /// A task threw, whose frame is still there. True: that is all; false: `join` throws it. `kept`
    /// is what its spawn was given to keep.
    virtual bool handle_failure(const std::exception_ptr& failure, const void* kept) noexcept = 0;

   protected:
    ~Watcher() = default;
  };

  /// Throws `std::logic_error` where no loop runs.
  TaskGroup() : TaskGroup(detail::Scheduler::current()) {}
  explicit TaskGroup(detail::Scheduler& scheduler, Watcher* watcher = nullptr)
      : home_{scheduler},
        scope_(scheduler.running().scope() != nullptr ? scheduler.running().scope()
                                                      : &scheduler.top_scope(),
               detail::Scope::Kind::group),
        watcher_(watcher) {}
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;
  ~TaskGroup();

  /// Runs the task until it first suspends, before this returns; later from the loop's turn. Its
  /// result is discarded; its exception is kept for `join`. It begins with the spawning task's
  /// values of each `TaskLocal`.
  /// `keep` lives as long as the task's frame does. `where` is what an `Inspector` shows of who
  /// spawned it.
  template <class T>
  void spawn(Task<T> task, std::shared_ptr<const void> keep = nullptr,
             std::source_location where = detail::kTracesTasks ? std::source_location::current()
                                                               : std::source_location()) {
    if (task) {
      start(*new OwnedTask<T>(*this, std::move(task), std::move(keep), where));
    } else {
      refuse_empty();
    }
  }

  /// The same with the task that a callable returns; it is called at once, and kept as long as the
  /// task: `group.spawn([&, text]() -> Task<> { … })`.
  template <detail::TaskFunction Function>
  void spawn(Function function, std::source_location where = detail::kTracesTasks
                                                                 ? std::source_location::current()
                                                                 : std::source_location()) {
    spawn(detail::call_and_keep(std::move(function)), nullptr, where);
  }

  class JoinAwaiter;

  /// `co_await join()` resumes when no task is left, or, as soon as one failed, drops the rest and
  /// throws its exception, to all who join by then. Dropping it leaves the tasks alone. It may
  /// outlive the group.
  [[nodiscard("co_await it")]] JoinAwaiter join() noexcept;

  /// Drops all tasks. Those spawned from now on run.
  void cancel() noexcept;

  /// The tasks that have not finished.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 protected:
  /// What the oldest task was given to keep, or nullptr.
  [[nodiscard]] const void* first_kept() const noexcept;
  /// Drops that one.
  void cancel_first() noexcept;
  /// Calls the function for each task, the oldest first, with what it was given to keep.
  void visit_kept(void* context,
                  void (*visit)(void* context, const detail::Scope& task, const void* kept)) const;
  /// What the task was given to keep that this scope is of, or is below; nullptr: none of these.
  [[nodiscard]] const void* kept_above(const detail::Scope& scope) const noexcept;

 private:
  /// A task of the group, in the group's list until it ends or is dropped.
  class Member : public detail::FrameAllocated, public detail::Root {
   public:
    Member(TaskGroup& owner, std::shared_ptr<const void> keep, std::source_location where)
        : detail::Root(&owner.scope_, detail::Scope::Kind::task, where), keep_(std::move(keep)) {
      scope().inherit_locals(owner.home_.scheduler.running().scope());
    }

    virtual std::coroutine_handle<> handle() noexcept = 0;
    /// The group does not know it any more.
    void forget_group() noexcept { forgotten_ = true; }
    [[nodiscard]] const void* kept() const noexcept { return keep_.get(); }

   protected:
    ~Member() = default;
    /// The task has finished: leaves the group.
    void end(std::exception_ptr failure) noexcept;

   private:
    /// Its scope stands below the group's as long as that knows it.
    [[nodiscard]] TaskGroup& group() noexcept {
      return *detail::whole_of(*scope().parent(), &TaskGroup::scope_);
    }

    bool forgotten_ = false;
    std::shared_ptr<const void> keep_;
  };

  template <class T>
  class OwnedTask final : public Member {
   public:
    OwnedTask(TaskGroup& owner, Task<T> task, std::shared_ptr<const void> keep,
              std::source_location where)
        : Member(owner, std::move(keep), where), handle_(std::move(task).release()) {
      handle_.promise().continuation.set(*this);
    }

    std::coroutine_handle<> handle() noexcept override { return handle_; }
    [[nodiscard]] const detail::Place* place() const noexcept override {
      return handle_.done() ? nullptr : &handle_.promise().place;
    }
    // Not inline: the exception_ptr would cost every coroutine that ends here a stack protector.
    [[gnu::noinline]] void finished() noexcept override {
      end(handle_.promise().result.exception());
    }
    void destroy() noexcept override {
      handle_.destroy();
      delete this;
    }

   private:
    std::coroutine_handle<detail::TaskPromise<T>> handle_;
  };
  static_assert(sizeof(OwnedTask<void>) <= 104);  // one for each connection of a server

  /// The loop. Once nothing is left of a group that had tasks, it destroys what had to wait.
  struct Home {
    detail::Scheduler& scheduler;
    bool has_waited = false;
    ~Home() {
      if (has_waited) scheduler.destroy_waiting();
    }
  };

  void check_owner(const char* what) const noexcept {
    detail::check_owner(home_.scheduler, what, "EventLoop::spawn, EventLoop::post or on()");
  }
  void start(Member& member);
  void drop(detail::List<detail::Root>& cancelled) noexcept;
  void refuse_empty();
  void fail(std::exception_ptr failure, const void* kept) noexcept;
  void left() noexcept;
  void wake_joining() noexcept;
  /// Gives the failure to all who join.
  void tell_joining(bool is_first) noexcept;

  Home home_;  // first: goes last
  detail::Scope scope_;
  detail::List<detail::Root> tasks_;
  detail::List<JoinAwaiter> joining_;
  std::size_t size_ = 0;
  Watcher* watcher_;
  std::exception_ptr failure_;
};

class [[nodiscard("co_await it")]] TaskGroup::JoinAwaiter {
 public:
  static constexpr char kWaitsFor[] = "TaskGroup::join";

  explicit JoinAwaiter(TaskGroup& group) noexcept : group_(&group) {}
  JoinAwaiter(JoinAwaiter&& other) noexcept : group_(other.group_) {}
  ~JoinAwaiter();

  [[nodiscard]] bool await_ready() const noexcept {
    return group_->size_ == 0 || group_->failure_ != nullptr;
  }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    group_->check_owner("TaskGroup::join");
    waiter_.suspend(handle);
    group_->joining_.push_back(*this);
  }
  void await_resume();

 private:
  friend class TaskGroup;
  friend struct detail::Hook;

  detail::Link link;
  TaskGroup* group_;            // nullptr once it was destroyed
  std::exception_ptr failure_;  // of the group, once one who joins it was told
  bool is_first_ = true;        // to be told that
  detail::Waiter waiter_;
};

inline TaskGroup::JoinAwaiter TaskGroup::join() noexcept { return JoinAwaiter(*this); }

}  // namespace weir
