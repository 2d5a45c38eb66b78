#include <weir/coro/probes.h>
#include <weir/coro/task_group.h>

#include <cstdint>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace weir {

namespace {

using detail::FlightRecorder;

/// What a cancelled task has to expect of what it awaits until it is dropped.
bool is_cancellation(const std::exception_ptr& failure) noexcept {
  try {
    std::rethrow_exception(failure);
  } catch (const std::system_error& error) {
    return error.code() == std::errc::operation_canceled;
  } catch (...) {
    return false;
  }
}

}  // namespace

void TaskGroup::Member::end(std::exception_ptr failure) noexcept {
  detail::Scheduler& scheduler = detail::Scheduler::current();
  const std::uint32_t task = FlightRecorder::number_of(&scope());
  scheduler.flight.note(FlightRecorder::Kind::ended, 0, task);
  WEIR_PROBE1(ended, task);
  if (failure != nullptr && forgotten_) {
    if (!is_cancellation(failure)) {
      scheduler.report_failure(std::move(failure), "a task that was cancelled");
    }
  } else if (failure != nullptr) {
    group().fail(std::move(failure), keep_.get());
  }
  link.unlink();
  if (!std::exchange(forgotten_, true)) group().left();
  scheduler.destroy_finished(*this);
}

TaskGroup::~TaskGroup() {
  if (!tasks_.empty()) {
    // Who owns the group has to wait, whatever the destructors of its tasks cancel.
    home_.has_waited = true;
    const detail::Running::Inside inside(home_.scheduler.running(), &scope_);
    // Again for what they spawn: nobody else would drop it.
    while (!tasks_.empty()) cancel();
  }
  if (!joining_.empty()) tell_joining(true);
  while (JoinAwaiter* joiner = joining_.pop_front()) {
    joiner->group_ = nullptr;
    if (!joiner->waiter_.linked()) joiner->waiter_.wake();
  }
  if (failure_ != nullptr) home_.scheduler.report_failure(failure_, "a task of a group");
}

void TaskGroup::start(Member& member) {
  check_owner("TaskGroup::spawn");
  tasks_.push_back(member);
  ++size_;
  const std::uint32_t task = FlightRecorder::number_of(&member.scope());
  home_.scheduler.flight.note(FlightRecorder::Kind::began, 0, task);
  WEIR_PROBE1(began, task);
  home_.scheduler.run_in_scope(&member.scope(), member.handle());
}

void TaskGroup::refuse_empty() {
  ++size_;
  fail(std::make_exception_ptr(std::logic_error("weir: an empty Task was spawned")), nullptr);
  left();
}

void TaskGroup::fail(std::exception_ptr failure, const void* kept) noexcept {
  if (watcher_ != nullptr && watcher_->handle_failure(failure, kept)) return;
  if (failure_ != nullptr) {
    home_.scheduler.report_failure(std::move(failure), "a second task of a group");
    return;
  }
  failure_ = std::move(failure);
  wake_joining();
}

void TaskGroup::left() noexcept {
  --size_;
  if (watcher_ != nullptr) watcher_->task_left();
  if (size_ == 0) wake_joining();
}

void TaskGroup::wake_joining() noexcept {
  // They stay in the list until they are resumed: the group may be destroyed before.
  JoinAwaiter* joiner = joining_.front();
  for (; joiner != nullptr; joiner = joining_.after(*joiner)) {
    if (!joiner->waiter_.linked()) joiner->waiter_.wake();
  }
}

void TaskGroup::cancel() noexcept {
  if (tasks_.empty()) return;
  check_owner("TaskGroup::cancel or ~TaskGroup");
  // What a destructor spawns meanwhile goes to `tasks_` and is not part of this cancel.
  detail::List<detail::Root> cancelled;
  cancelled.splice_back(tasks_);
  drop(cancelled);
}

void TaskGroup::visit_kept(void* context, void (*visit)(void* context, const detail::Scope& task,
                                                        const void* kept)) const {
  for (detail::Root* task = tasks_.front(); task != nullptr; task = tasks_.after(*task)) {
    visit(context, task->scope(), static_cast<Member*>(task)->kept());
  }
}

const void* TaskGroup::kept_above(const detail::Scope& scope) const noexcept {
  using detail::Scope;
  const Scope* below = &scope;
  while (below != nullptr && below->parent() != &scope_) below = below->parent();
  if (below == nullptr || below->kind() != Scope::Kind::task) return nullptr;
  detail::Root& task = detail::Root::of(const_cast<Scope&>(*below));  // it is only looked at
  return static_cast<const Member&>(task).kept();
}

const void* TaskGroup::first_kept() const noexcept {
  const detail::Root* first = tasks_.front();
  return first == nullptr ? nullptr : static_cast<const Member*>(first)->kept();
}

void TaskGroup::cancel_first() noexcept {
  detail::List<detail::Root> cancelled;
  if (detail::Root* first = tasks_.pop_front()) cancelled.push_back(*first);
  drop(cancelled);
}

void TaskGroup::drop(detail::List<detail::Root>& cancelled) noexcept {
  for (detail::Root* root = cancelled.front(); root != nullptr; root = cancelled.after(*root)) {
    static_cast<Member*>(root)->forget_group();
    --size_;
    if (watcher_ != nullptr) watcher_->task_left();
  }
  if (size_ == 0) wake_joining();
  home_.scheduler.destroy(cancelled);  // the last of the tasks may own the group
}

void TaskGroup::tell_joining(bool is_first) noexcept {
  const std::exception_ptr failure = std::exchange(failure_, nullptr);
  if (failure == nullptr) return;
  JoinAwaiter* joiner = joining_.front();
  for (; joiner != nullptr; joiner = joining_.after(*joiner)) {
    joiner->failure_ = failure;
    joiner->is_first_ = std::exchange(is_first, false);
  }
}

/// One is enough to make known that nobody was told.
TaskGroup::JoinAwaiter::~JoinAwaiter() {
  if (failure_ == nullptr || !is_first_) return;
  waiter_.scheduler()->report_failure(std::move(failure_), "a task of a group");
}

void TaskGroup::JoinAwaiter::await_resume() {
  link.unlink();
  std::exception_ptr told = std::exchange(failure_, nullptr);
  if (told == nullptr && group_ != nullptr && group_->failure_ != nullptr) {
    told = group_->failure_;
    group_->tell_joining(false);
    group_->cancel();
  }
  if (told != nullptr) std::rethrow_exception(told);
}

}  // namespace weir
