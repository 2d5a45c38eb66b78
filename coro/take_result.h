#pragma once

#include <weir/coro/result.h>
#include <weir/coro/task.h>

#include <exception>
#include <type_traits>
#include <utility>

namespace weir::detail {

/// Awaits the task, and keeps what it returns or throws.
template <class T>
Task<> take_result(Task<T> task, Result<T>& result) {
  try {
    Task<T> inner = std::move(task);
    if constexpr (std::is_void_v<T>) {
      co_await std::move(inner);
      result.set_value();
    } else {
      result.set_value(co_await std::move(inner));
    }
  } catch (...) {
    result.set_exception(std::current_exception());
  }
}

}  // namespace weir::detail
