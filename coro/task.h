#pragma once

#include <weir/coro/frame_allocator.h>
#include <weir/coro/place.h>
#include <weir/coro/result.h>
#include <weir/coro/scheduler.h>

#include <coroutine>
#include <cstdint>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace weir {

template <class T = void>
class Task;

namespace detail {

/// What goes on when a task has finished: the coroutine that awaits it, the root that owns it, or
/// nobody, where the awaiter still stands in its `await_suspend`.
class Continuation {
 public:
  void set(std::coroutine_handle<> awaiting) noexcept {
    bits_ = reinterpret_cast<std::uintptr_t>(awaiting.address());
  }
  void set(Root& owner) noexcept { bits_ = reinterpret_cast<std::uintptr_t>(&owner) | kRoot; }

  /// Gives the coroutine that is to be resumed.
  [[nodiscard]] std::coroutine_handle<> finished() const noexcept {
    if (bits_ == 0) return std::noop_coroutine();
    if ((bits_ & kRoot) == 0) {
      return std::coroutine_handle<>::from_address(reinterpret_cast<void*>(bits_));
    }
    reinterpret_cast<Root*>(bits_ - kRoot)->finished();
    return std::noop_coroutine();
  }

 private:
  static constexpr std::uintptr_t kRoot = 1;  // neither frames nor roots have odd addresses
  std::uintptr_t bits_ = 0;
};

struct FinalAwaiter {
  static constexpr bool await_ready() noexcept { return false; }
  template <class Promise>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> finished) noexcept {
    return finished.promise().continuation.finished();
  }
  static constexpr void await_resume() noexcept {}
};

template <class T>
struct TaskPromiseBase : FrameAllocated, Placed {
  Continuation continuation;
  Result<std::conditional_t<std::is_void_v<T>, NoValue, T>> result;

  static std::suspend_always initial_suspend() noexcept { return {}; }
  static FinalAwaiter final_suspend() noexcept { return {}; }
  [[gnu::noinline]] void unhandled_exception() noexcept {
    result.set_exception(std::current_exception());
  }
};

template <class T>
struct TaskPromise : TaskPromiseBase<T> {
  Task<T> get_return_object() noexcept;
  template <class U = T>
    requires std::is_convertible_v<U&&, T>
  void return_value(U&& value) {
    this->result.set_value(std::forward<U>(value));
  }
};

template <>
struct TaskPromise<void> : TaskPromiseBase<void> {
  Task<void> get_return_object() noexcept;
  void return_void() noexcept { result.set_value(); }
};

}  // namespace detail

/// A lazy coroutine: nothing of it runs before it is awaited or spawned. Owns its frame; lives
/// and dies on one loop.
///
/// Awaiting it (`co_await std::move(task)`, or a temporary) runs it and gives its result, or
/// throws what it threw; the task is empty then. It resumes its awaiter directly, on the same loop.
///
/// Destroying it at any suspension point is safe and cancels it: its frames unwind innermost
/// first, whatever it waited for is let go, and nothing that had not reached it is lost.
/// It must not be destroyed by a coroutine that it is awaiting itself; a `TaskGroup` can do that.
template <class T>
class [[nodiscard("a task does nothing until it is awaited or spawned")]] Task {
 public:
  using promise_type = detail::TaskPromise<T>;

  Task() noexcept = default;
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    Task taken(std::move(other));
    std::swap(handle_, taken.handle_);  // what is dropped may own this
    return *this;
  }
  ~Task() { reset(); }

  /// False for a task that was moved from, dropped or never made.
  explicit operator bool() const noexcept { return static_cast<bool>(handle_); }

  /// Drops the task.
  void reset() noexcept {
    if (auto handle = std::exchange(handle_, nullptr)) handle.destroy();
  }

  /// Owns the frame from here on: whoever awaited the task and is dropped drops it, even if the
  /// `Task` itself is kept elsewhere.
  class Awaiter {
   public:
    explicit Awaiter(std::coroutine_handle<promise_type> handle) noexcept : handle_(handle) {}
    Awaiter(const Awaiter&) = delete;
    Awaiter& operator=(const Awaiter&) = delete;
    ~Awaiter() { handle_.destroy(); }

    static constexpr bool await_ready() noexcept { return false; }
    /// The task starts here, not by symmetric transfer: below -O2 GCC makes no tail calls, and a
    /// loop over tasks that finish at once would deepen the stack with each.
    bool await_suspend(std::coroutine_handle<> awaiting) const {
      handle_.resume();
      if (handle_.done()) return false;
      handle_.promise().continuation.set(awaiting);
      return true;
    }
    T await_resume() const { return handle_.promise().result.take(); }

   private:
    std::coroutine_handle<promise_type> handle_;
  };

  /// Throws `std::logic_error` if the task is empty.
  Awaiter operator co_await() && { return Awaiter(std::move(*this).release()); }

  /// Gives the frame away, not started yet as a rule. Throws `std::logic_error` if there is none.
  [[nodiscard]] std::coroutine_handle<promise_type> release() && {
    if (!handle_) throw std::logic_error("weir: an empty Task was awaited");
    return std::exchange(handle_, nullptr);
  }

 private:
  friend promise_type;
  friend struct detail::PlaceAccess;
  explicit Task(std::coroutine_handle<promise_type> handle) noexcept : handle_(handle) {}

  std::coroutine_handle<promise_type> handle_;
};

namespace detail {

template <class T>
Task<T> TaskPromise<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<TaskPromise>::from_promise(*this));
}

inline Task<void> TaskPromise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<TaskPromise>::from_promise(*this));
}

template <class T>
inline constexpr bool is_task = false;
template <class T>
inline constexpr bool is_task<Task<T>> = true;

}  // namespace detail

namespace detail {

/// A callable without arguments that returns a task: a coroutine lambda with captures, as a rule.
/// What takes one (`spawn`, `on`, `run`) keeps it as long as its task, which refers to it.
template <class Function>
concept TaskFunction =
    std::is_invocable_v<Function&> && detail::is_task<std::invoke_result_t<Function&>>;

}  // namespace detail

namespace detail {

/// The callable stands in the frame of this coroutine, which awaits its task.
template <TaskFunction Function>
std::invoke_result_t<Function&> call_and_keep(Function function) {
  co_return co_await function();
}

}  // namespace detail
}  // namespace weir
