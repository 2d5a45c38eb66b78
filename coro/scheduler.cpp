#include <weir/coro/scheduler.h>

#include <stdexcept>
#include <utility>

namespace weir {

void Scope::attach(Scope* parent) noexcept {
  detach();
  parent_ = parent;
  if (parent == nullptr) return;
  next_ = parent->first_child_;
  if (next_ != nullptr) next_->previous_ = this;
  parent->first_child_ = this;
}

void Scope::detach() noexcept {
  while (first_child_ != nullptr) {  // they were moved elsewhere and outlive this scope
    Scope* child = first_child_;
    first_child_ = child->next_;
    child->parent_ = child->next_ = child->previous_ = nullptr;
  }
  if (parent_ == nullptr) return;
  (previous_ != nullptr ? previous_->next_ : parent_->first_child_) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
  parent_ = next_ = previous_ = nullptr;
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
  Running outer{scope_, outer_};
  outer_ = &outer;
  scope_ = scope;
  handle.resume();
  scope_ = outer.scope;
  outer_ = outer.outer;
  if (!doomed_.empty()) bury_doomed();
}

bool Scheduler::runs_in(const Scope& scope) const noexcept {
  if (scope.contains(scope_)) return true;
  for (const Running* running = outer_; running != nullptr; running = running->outer) {
    if (scope.contains(running->scope)) return true;
  }
  return false;
}

void Scheduler::destroy(Root& root) noexcept {
  if (runs_in(root.scope())) {
    doomed_.push_back(root);
  } else {
    root.unlink();
    root.destroy();
  }
}

std::size_t Scheduler::run_ready(std::size_t most) {
  std::size_t count = 0;
  while (count < most) {
    Waiter* waiter = ready_.pop_front();
    if (waiter == nullptr) break;
    ++count;
    scope_ = waiter->scope_;
    std::coroutine_handle<>::from_address(waiter->frame_).resume();
    if (!doomed_.empty()) {
      scope_ = nullptr;
      bury_doomed();
    }
  }
  scope_ = nullptr;
  if (!doomed_.empty()) bury_doomed();  // of coroutines that somebody else resumed
  return count;
}

bool Scheduler::owns_doomed(Root& root) noexcept {
  for (Root* other = doomed_.front(); other != nullptr; other = doomed_.after(*other)) {
    if (other != &root && root.scope().contains(&other->scope())) return true;
  }
  return false;
}

void Scheduler::bury_doomed() noexcept {
  // Destroying one may doom others or destroy others: look again from the start each time.
  for (Root* root = doomed_.front(); root != nullptr;) {
    if (runs_in(root->scope()) || owns_doomed(*root)) {
      root = doomed_.after(*root);
      continue;
    }
    root->unlink();
    // Its destructors are its own still: what owns it has to wait for them.
    Scope* outer = std::exchange(scope_, &root->scope());
    root->destroy();
    scope_ = outer;
    root = doomed_.front();
  }
}

}  // namespace weir
