#include <weir/coro/frame_allocator.h>
#include <weir/coro/locals.h>
#include <weir/coro/scope.h>

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

bool Running::is_in(const Scope& scope) const noexcept {
  if (scope.contains(scope_)) return true;
  for (const Inside* inside = outer_; inside != nullptr; inside = inside->outer_) {
    if (scope.contains(inside->scope_)) return true;
  }
  return false;
}

}  // namespace weir::detail
