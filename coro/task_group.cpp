#include <weir/coro/task_group.h>

#include <utility>

namespace weir {

void TaskGroup::RootTask::promise_type::unhandled_exception() noexcept {
  if (group != nullptr) {
    group->fail(std::current_exception());
  } else {
    Scheduler::current().report_failure(std::current_exception(), "a task that was cancelled");
  }
}

void TaskGroup::RootTask::promise_type::leave() noexcept {
  unlink();
  if (TaskGroup* owner = std::exchange(group, nullptr)) owner->left();
}

TaskGroup::~TaskGroup() {
  // Again for what the destructors of the dropped ones spawn: nobody else would drop it.
  while (!tasks_.empty()) cancel();
  if (failure_ != nullptr) scheduler_.report_failure(failure_, "a task of a group");
}

void TaskGroup::start(RootTask root) {
  tasks_.push_back(root.promise);
  ++size_;
  scheduler_.run_in_scope(&root.promise.scope(), root.promise.handle());
}

void TaskGroup::fail(std::exception_ptr failure) noexcept {
  if (handle_failure(failure)) return;
  if (failure_ != nullptr) {
    scheduler_.report_failure(std::move(failure), "a second task of a group");
    return;
  }
  failure_ = std::move(failure);
  while (Waiter* waiter = joining_.pop_front()) waiter->wake();
}

void TaskGroup::left() noexcept {
  --size_;
  task_left();
  if (size_ > 0) return;
  while (Waiter* waiter = joining_.pop_front()) waiter->wake();
}

void TaskGroup::cancel() noexcept {
  // What a destructor spawns meanwhile goes to `tasks_` and is not part of this cancel.
  List<Root> cancelled;
  cancelled.splice_back(tasks_);
  for (Root* root = cancelled.front(); root != nullptr; root = cancelled.after(*root)) {
    static_cast<RootTask::promise_type*>(root)->group = nullptr;
    --size_;
    task_left();
  }
  if (size_ == 0) {
    while (Waiter* waiter = joining_.pop_front()) waiter->wake();
  }
  // From here on nothing of the group is touched: the last of its tasks may own it.
  Scheduler& scheduler = scheduler_;
  while (Root* root = cancelled.front()) scheduler.destroy(*root);
}

void TaskGroup::JoinAwaiter::await_resume() {
  if (group_.failure_ == nullptr) return;
  const std::exception_ptr failure = std::exchange(group_.failure_, nullptr);
  group_.cancel();
  std::rethrow_exception(failure);
}

}  // namespace weir
