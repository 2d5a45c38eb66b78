#pragma once

#include <weir/core/event_loop.h>
#include <weir/coro/take_result.h>

#include <exception>
#include <future>
#include <memory>
#include <source_location>
#include <system_error>
#include <utility>

namespace weir {

namespace detail {

/// A promise that is kept in any case.
template <class T>
class KeptPromise {
 public:
  KeptPromise() = default;
  KeptPromise(KeptPromise&& other) noexcept
      : promise_(std::move(other.promise_)), open_(std::exchange(other.open_, false)) {}
  KeptPromise& operator=(KeptPromise&&) = delete;
  ~KeptPromise() {
    if (!open_) return;
    try {
      promise_.set_exception(std::make_exception_ptr(
          std::system_error(std::make_error_code(std::errc::operation_canceled),
                            "weir: the loop given to spawn_future() ended before the task")));
    } catch (...) {  // without memory: a broken promise
    }
  }

  [[nodiscard]] std::future<T> future() { return promise_.get_future(); }

  template <class... Value>
  void set_value(Value&&... value) {
    open_ = false;
    promise_.set_value(std::forward<Value>(value)...);
  }
  void set_exception(std::exception_ptr exception) {
    open_ = false;
    promise_.set_exception(std::move(exception));
  }

 private:
  std::promise<T> promise_;
  bool open_ = true;
};

template <class T>
Task<> keep_promise(Task<T> task, KeptPromise<T> promise) {
  KeptPromise<T> kept = std::move(promise);
  Result<T> result;
  co_await take_result(std::move(task), result);
  if (result.has_exception()) {
    kept.set_exception(result.exception());
  } else if constexpr (std::is_void_v<T>) {
    kept.set_value();
  } else {
    kept.set_value(result.take());
  }
}

}  // namespace detail

/// Starts a task on a loop, for a thread that has none: the future gives its result or throws what
/// it threw, and `std::errc::operation_canceled` if the loop ends first. From any thread; waiting
/// for the future on the loop's own thread never ends. The future may be let go of: the task runs
/// on.
template <class T>
std::future<T> spawn_future(EventLoop& loop, Task<T> task,
                            std::source_location where = detail::kTracesTasks
                                                             ? std::source_location::current()
                                                             : std::source_location()) {
  detail::KeptPromise<T> promise;
  std::future<T> future = promise.future();
  loop.spawn(detail::keep_promise(std::move(task), std::move(promise)), where);
  return future;
}

/// The same with the task that a callable returns; it is called on the loop, and kept as long as
/// its task.
template <detail::TaskFunction Function>
auto spawn_future(EventLoop& loop, Function function,
                  std::source_location where = detail::kTracesTasks
                                                   ? std::source_location::current()
                                                   : std::source_location()) {
  return spawn_future(loop, detail::call_and_keep(std::move(function)), where);
}

}  // namespace weir
