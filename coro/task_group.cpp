#include <weir/coro/task_group.h>

#include <stdexcept>
#include <utility>

namespace weir {

void TaskGroup::Member::end(std::exception_ptr failure) noexcept {
  Scheduler& scheduler = Scheduler::current();
  if (failure != nullptr && group_ == nullptr) {
    scheduler.report_failure(std::move(failure), "a task that was cancelled");
  } else if (failure != nullptr) {
    group_->fail(std::move(failure));
  }
  unlink();
  if (TaskGroup* owner = std::exchange(group_, nullptr)) owner->left();
  scheduler.destroy_finished(*this);
}

TaskGroup::~TaskGroup() {
  // Again for what the destructors of the dropped ones spawn: nobody else would drop it.
  while (!tasks_.empty()) cancel();
  if (failure_ != nullptr) scheduler_.report_failure(failure_, "a task of a group");
}

void TaskGroup::start(Member& member) {
  tasks_.push_back(member);
  ++size_;
  scheduler_.run_in_scope(&member.scope(), member.handle());
}

void TaskGroup::refuse_empty() {
  ++size_;
  fail(std::make_exception_ptr(std::logic_error("weir: an empty Task was spawned")));
  left();
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
    static_cast<Member*>(root)->forget_group();
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
