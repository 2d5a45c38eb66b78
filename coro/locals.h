#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace weir::detail {

/// What was set of one `TaskLocal`. It is not changed any more, and only copied.
class LocalValue {
 public:
  explicit LocalValue(std::uint64_t key) noexcept : key_(key) {}
  LocalValue(const LocalValue&) = delete;
  LocalValue& operator=(const LocalValue&) = delete;
  virtual ~LocalValue() = default;

  /// Of its `TaskLocal`: no other has it, ever.
  [[nodiscard]] std::uint64_t key() const noexcept { return key_; }
  [[nodiscard]] virtual std::shared_ptr<const LocalValue> copy() const = 0;

 private:
  const std::uint64_t key_;
};

/// The values of a task. A copy shares them, and is for the same thread; `copy_for_thread` makes
/// new ones.
class Locals {
 public:
  using Value = std::shared_ptr<const LocalValue>;

  [[nodiscard]] bool empty() const noexcept { return values_ == nullptr; }
  [[nodiscard]] const LocalValue* find(std::uint64_t key) const noexcept;
  /// The same, and this one in place of what it had of that key. Throws `std::bad_alloc`.
  [[nodiscard]] Locals with(Value value) const;
  /// What begins to run with these has: all but the task's name. Throws `std::bad_alloc`.
  [[nodiscard]] Locals inherited() const;
  /// The same for another thread. Throws what the copying of a value throws, and `std::bad_alloc`.
  [[nodiscard]] Locals copy_for_thread() const;

 private:
  std::shared_ptr<const std::vector<Value>> values_;
};

/// Those of the task, or of the function that `blocking` has called, that runs on this thread now;
/// nullptr: there are none.
[[nodiscard]] const Locals* current_locals() noexcept;
/// For a task, or a function, that runs on another thread: values of its own. Costs a look where
/// there are none.
[[nodiscard]] Locals current_locals_for_thread();
/// Sets a value for what runs now. Throws `std::logic_error` where that is no task, and
/// `std::bad_alloc`; nothing has changed then.
void set_current_local(Locals::Value value);
/// For a `TaskLocal`. It gives each number once, and never these:
inline constexpr std::uint64_t kLogContextKey = 0;
inline constexpr std::uint64_t kTaskNameKey = ~std::uint64_t{0};
[[nodiscard]] std::uint64_t next_local_key() noexcept;

/// While it lives, what runs on this thread outside of any task has these values: a function that
/// `blocking` calls, or what begins a task on behalf of another thread's.
class LocalsHere {
 public:
  explicit LocalsHere(Locals&& locals) noexcept;
  LocalsHere(const LocalsHere&) = delete;
  LocalsHere& operator=(const LocalsHere&) = delete;
  ~LocalsHere();

 private:
  friend const Locals* current_locals() noexcept;
  friend void set_current_local(Locals::Value value);

  Locals locals_;
  LocalsHere* const outer_;
};

}  // namespace weir::detail
