#include <weir/coro/frame_allocator.h>
#include <weir/coro/locals.h>
#include <weir/coro/scheduler.h>

#include <stdexcept>
#include <utility>

namespace weir::detail {

struct Scope::Extra : FrameAllocated {
  Scope* first_child;
  Locals locals;
};

inline Scope*& Scope::first_child() noexcept {
  return has_extra_ ? below_.extra->first_child : below_.first_child;
}

Scope* Scope::first_below() noexcept { return first_child(); }

inline void Scope::unlink() noexcept {
  if (parent_ == nullptr) return;
  (previous_ != nullptr ? previous_->next_ : parent_->first_child()) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
  next_ = previous_ = nullptr;
}

void Scope::stand_last_below(Scope& parent) noexcept {
  Scope* last = parent.first_child();
  while (last->next_ != nullptr) last = last->next_;
  stand_nowhere();
  parent_ = &parent;
  previous_ = last;
  last->next_ = this;
}

void Scope::stand_before(Scope& sibling) noexcept {
  stand_nowhere();
  parent_ = sibling.parent_;
  next_ = &sibling;
  previous_ = std::exchange(sibling.previous_, this);
  (previous_ != nullptr ? previous_->next_ : parent_->first_child()) = this;
}

void Scope::stand_nowhere() noexcept {
  unlink();
  parent_ = nullptr;
}

void Scope::end() noexcept {
  if (first_child() != nullptr) hand_over_children();
  if (kind_ != Kind::branch) unlink();
  if (has_extra_) drop_locals();
}

void Scope::hand_over_children() noexcept {
  while (Scope* child = first_child()) {
    child->unlink();
    child->parent_ = parent_;  // whose count has the child's already
    child->link();
  }
}

/// The destructors of the values may set others.
void Scope::drop_locals() noexcept {
  while (has_extra_) {
    const std::unique_ptr<Extra> extra(below_.extra);
    has_extra_ = false;
    below_.first_child = nullptr;
  }
}

void Scope::attach(Scope* parent) noexcept {
  if (doomed_count_ != 0) add_doomed(parent_, 0 - doomed_count_);
  unlink();
  parent_ = parent;
  link();
  if (doomed_count_ != 0) add_doomed(parent_, doomed_count_);
}

void Scope::link() noexcept {
  if (parent_ == nullptr) return;
  Scope*& first = parent_->first_child();
  next_ = first;
  if (next_ != nullptr) next_->previous_ = this;
  first = this;
}

void Scope::add_doomed(Scope* from, std::uint32_t count) noexcept {
  for (; from != nullptr; from = from->parent_) from->doomed_count_ += count;
}

const Locals* Scope::own_locals() const noexcept { return &below_.extra->locals; }

bool Scope::set_locals(Locals&& locals) {
  Scope* task = this;
  while (task != nullptr && task->is_helper()) task = task->parent_;
  if (task == nullptr) return false;
  if (!task->has_extra_) {
    task->below_.extra = new Extra{{}, task->below_.first_child, {}};
    task->has_extra_ = true;
  }
  // What was there goes last: its destructors may come here.
  std::swap(task->below_.extra->locals, locals);
  return true;
}

void Scope::inherit_current_locals() {
  const Locals* from = current_locals();
  if (from == nullptr) return;
  if (Locals locals = from->inherited(); !locals.empty()) set_locals(std::move(locals));
}

void Scope::set_doomed(bool doomed) noexcept {
  if (std::exchange(doomed_, doomed) != doomed) add_doomed(this, doomed ? 1 : 0 - 1U);
}

void Waiter::wake_from_anywhere() noexcept {
  Scheduler& home = *scheduler_;
  if (Scheduler::current_ == &home) {
    wake();
    return;
  }
  {
    const std::lock_guard lock(home.woken_mutex_);
    home.woken_.push_back(*this);
  }
  home.knock();
}

bool Waiter::forget_wake() noexcept {
  const std::lock_guard lock(scheduler_->woken_mutex_);
  const bool waited = linked();
  unlink();
  return waited;
}

void Scheduler::take_woken() noexcept {
  const std::lock_guard lock(woken_mutex_);
  ready_.splice_back(woken_);
}

Scheduler& Scheduler::current() {
  if (current_ == nullptr) {
    throw std::logic_error(
        "weir: no event loop runs on this thread; call this from a task, started with weir::run, "
        "EventLoop::spawn or TcpServer::run");
  }
  return *current_;
}

void Scheduler::run_in_scope(Scope* scope, std::coroutine_handle<> handle) {
  {
    const Inside inside(*this, scope);
    if (scope != nullptr) scope->runs_at(clock_ms());
    handle.resume();
  }
  destroy_waiting();
}

bool Scheduler::runs_in(const Scope& scope) const noexcept {
  if (scope.contains(scope_)) return true;
  for (const Inside* inside = outer_; inside != nullptr; inside = inside->outer_) {
    if (scope.contains(inside->scope_)) return true;
  }
  return false;
}

void Scheduler::doom(Root& root) noexcept {
  doomed_.push_back(root);
  root.scope().set_doomed(true);
}

void Scheduler::destroy(Root& root) noexcept {
  doom(root);
  bury_doomed();
}

void Scheduler::destroy(List<Root>& roots) noexcept {
  // All are doomed before the first is destroyed: a destructor of one may end what owns them all,
  // and that has to wait for the others.
  while (Root* root = roots.front()) doom(*root);
  bury_doomed();
}

std::size_t Scheduler::run_ready(std::size_t most) {
  std::size_t count = 0;
  const std::uint32_t clock = clock_ms();
  at_once_ = kMostAtOnce;
  while (count < most) {
    Waiter* waiter = ready_.pop_front();
    if (waiter == nullptr) break;
    ++count;
    scope_ = waiter->scope_;
    if (scope_ != nullptr) scope_->runs_at(clock);
    std::coroutine_handle<>::from_address(waiter->frame_).resume();
    if (!doomed_.empty()) {
      scope_ = nullptr;
      bury_doomed();
    }
  }
  scope_ = nullptr;
  destroy_waiting();  // of coroutines that somebody else resumed
  return count;
}

void Scheduler::bury_doomed() noexcept {
  List<Root> waiting;  // for what still runs, or is doomed, below them
  for (bool buried = true; buried; doomed_.splice_back(waiting)) {
    buried = false;
    // A destructor may doom others and come here itself.
    while (Root* root = doomed_.pop_front()) {
      Scope& scope = root->scope();
      if (scope.doomed_count_ > 1 || runs_in(scope)) {
        waiting.push_back(*root);
        continue;
      }
      scope.set_doomed(false);
      const Burial destructors(*this, scope);
      root->destroy();
      buried = true;
    }
  }
}

}  // namespace weir::detail
