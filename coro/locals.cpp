#include <weir/coro/locals.h>
#include <weir/coro/scheduler.h>

#include <atomic>
#include <stdexcept>

namespace weir::detail {
namespace {

constinit thread_local LocalsHere* here = nullptr;
constinit std::atomic<std::uint64_t> last_key{0};

Scope* current_scope() noexcept {
  Scheduler* scheduler = Scheduler::current_or_null();
  return scheduler == nullptr ? nullptr : scheduler->running().scope();
}

}  // namespace

const LocalValue* Locals::find(std::uint64_t key) const noexcept {
  if (values_ == nullptr) return nullptr;
  for (const Value& value : *values_) {
    if (value->key() == key) return value.get();
  }
  return nullptr;
}

Locals Locals::with(Value value) const {
  auto values = std::make_shared<std::vector<Value>>();
  values->reserve(1 + (values_ == nullptr ? 0 : values_->size()));
  if (values_ != nullptr) {
    for (const Value& other : *values_) {
      if (other->key() != value->key()) values->push_back(other);
    }
  }
  values->push_back(std::move(value));
  Locals with_it;
  with_it.values_ = std::move(values);
  return with_it;
}

Locals Locals::inherited() const {
  if (find(kTaskNameKey) == nullptr) return *this;
  Locals rest;
  for (const Value& value : *values_) {
    if (value->key() != kTaskNameKey) rest = rest.with(value);
  }
  return rest;
}

Locals Locals::copy_for_thread() const {
  Locals copy;
  if (values_ == nullptr) return copy;
  auto values = std::make_shared<std::vector<Value>>();
  values->reserve(values_->size());
  for (const Value& value : *values_) {
    if (value->key() != kTaskNameKey) values->push_back(value->copy());
  }
  copy.values_ = std::move(values);
  return copy;
}

LocalsHere::LocalsHere(Locals&& locals) noexcept
    : locals_(std::move(locals)), outer_(std::exchange(here, this)) {}

LocalsHere::~LocalsHere() { here = outer_; }

const Locals* current_locals() noexcept {
  if (const Scope* scope = current_scope()) return scope->locals();
  return here == nullptr ? nullptr : &here->locals_;
}

Locals current_locals_for_thread() {
  const Locals* locals = current_locals();
  return locals == nullptr ? Locals() : locals->copy_for_thread();
}

void set_current_local(Locals::Value value) {
  const Locals* before = current_locals();
  Locals after =
      before == nullptr ? Locals().with(std::move(value)) : before->with(std::move(value));
  if (Scope* scope = current_scope()) {
    if (scope->set_locals(std::move(after))) return;
  } else if (here != nullptr) {
    std::swap(here->locals_, after);  // what was there goes last: its destructors may come here
    return;
  }
  throw std::logic_error(
      "weir: no task runs here whose value this could set; call it from a task, or from a function "
      "that blocking() calls");
}

std::uint64_t next_local_key() noexcept { return ++last_key; }

}  // namespace weir::detail
