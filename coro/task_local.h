#pragma once

#include <weir/coro/locals.h>

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace weir {

/// A value that goes with a task, such as the number of a request: what is deep below finds it
/// without being handed it.
///
///     TaskLocal<std::string> request;           // of static duration, as a rule
///     request.set("42");                        // in a task
///     log(request.get());                       // in it, or in anything that it awaits or starts
///
/// The task is what was spawned (`TaskGroup::spawn`, `EventLoop::spawn`, `spawn_future`, `run`), or
/// a server's call of its handler, together with all that it awaits, adaptors such as `timeout` and
/// the bodies of generators included: they share one value, and each sees what another has set.
/// What it spawns begins with the value of that moment, as a value of its own; so does each operand
/// of a `when_all` or `when_any`, a task sent to another loop by `on`, and a function given to
/// `blocking`, for as long as that runs. What is set there is not seen here, nor the other way
/// round. A handler of a server begins with nothing set, wherever `start` was called, and so does
/// what is called outside of a task, as by `EventLoop::post`, and every other thread.
///
/// Tasks of one loop share a value until one of them sets its own. For `on`, `blocking` and a
/// spawn on another loop it is copied at the call, on the calling thread; what the copy throws, the
/// call throws, and nothing was started. The copy is used and destroyed on the other thread.
/// A value goes when the last task that has it ends or is dropped, after that one's frames, or
/// when it is replaced there; it may outlive the `TaskLocal`. Of `T` only copying is asked; the
/// destructor must not throw. Who never sets one pays nothing.
///
/// Thread-safe: each thread sees the values of the task that runs on it.
template <class T>
class TaskLocal {
 public:
  TaskLocal()
    requires(std::is_default_constructible_v<T>)
      : TaskLocal(T()) {}
  /// `unset` is what `get` gives where nothing was set. It may be copied on several threads at the
  /// same time.
  explicit TaskLocal(T unset) : unset_(std::move(unset)) {}
  TaskLocal(const TaskLocal&) = delete;
  TaskLocal& operator=(const TaskLocal&) = delete;

  /// For the task that runs now, from here on. Throws `std::logic_error` where none does, and
  /// `std::bad_alloc`; the value is as before then.
  void set(T value) { detail::set_current_local(std::make_shared<Kept>(key_, std::move(value))); }

  /// A copy of what the task has; a copy of `unset` where that is nothing, or no task runs.
  [[nodiscard]] T get() const {
    const detail::Locals* locals = detail::current_locals();
    const detail::LocalValue* found = locals == nullptr ? nullptr : locals->find(key_);
    return found == nullptr ? unset_ : static_cast<const Kept*>(found)->value;
  }

 private:
  struct Kept final : detail::LocalValue {
    Kept(std::uint64_t key, T&& of) : LocalValue(key), value(std::move(of)) {}
    Kept(std::uint64_t key, const T& of) : LocalValue(key), value(of) {}
    [[nodiscard]] std::shared_ptr<const LocalValue> copy() const override {
      return std::make_shared<Kept>(key(), value);
    }
    const T value;
  };

  const std::uint64_t key_ = detail::next_local_key();
  const T unset_;
};

}  // namespace weir
