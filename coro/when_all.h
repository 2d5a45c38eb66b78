#pragma once

#include <weir/coro/branch.h>
#include <weir/coro/task.h>

#include <tuple>
#include <vector>

namespace weir {

namespace detail {

/// See `when_all`.
template <class... A>
class [[nodiscard("co_await it")]] WhenAll final : public Junction {
 public:
  explicit WhenAll(A&&... awaitables) : branches_(std::move(awaitables)...) {}

  static constexpr bool await_ready() noexcept { return sizeof...(A) == 0; }

  bool await_suspend(std::coroutine_handle<> handle) {
    open_ = sizeof...(A);
    std::apply(
        [this](auto&... branch) {
          std::size_t index = 0;
          (void)(... && (branch.start(*this, index++), !closed()));
        },
        branches_);
    if (closed()) return false;
    awaiting_ = handle;
    return true;
  }

  std::tuple<detail::NonVoid<detail::AwaitResult<A>>...> await_resume() {
    if (failed_ != kNone) rethrow();
    return std::apply(
        [](auto&... branch) {
          return std::tuple<detail::NonVoid<detail::AwaitResult<A>>...>{
              branch.result().take_non_void()...};
        },
        branches_);
  }

 private:
  [[noreturn]] void rethrow() {
    std::exception_ptr failure;
    std::apply(
        [&](auto&... branch) {
          std::size_t index = 0;
          ((index++ == failed_ ? void(failure = branch.result().exception()) : void()), ...);
          (branch.drop(), ...);
        },
        branches_);
    std::rethrow_exception(failure);
  }

  std::tuple<Branch<A>...> branches_;
};

/// See `when_all`.
template <class T>
class [[nodiscard("co_await it")]] WhenAllOf final : public Junction {
 public:
  explicit WhenAllOf(std::vector<Task<T>> tasks) {
    branches_.reserve(tasks.size());
    for (Task<T>& task : tasks) branches_.emplace_back(std::move(task));
  }

  [[nodiscard]] bool await_ready() const noexcept { return branches_.empty(); }

  bool await_suspend(std::coroutine_handle<> handle) {
    open_ = branches_.size();
    for (std::size_t i = 0; i < branches_.size() && !closed(); ++i) {
      branches_[i].start(*this, i);
    }
    if (closed()) return false;
    awaiting_ = handle;
    return true;
  }

  std::vector<detail::NonVoid<T>> await_resume() {
    if (failed_ != kNone) {
      const std::exception_ptr failure = branches_[failed_].result().exception();
      branches_.clear();
      std::rethrow_exception(failure);
    }
    std::vector<detail::NonVoid<T>> results;
    results.reserve(branches_.size());
    for (auto& branch : branches_) results.push_back(branch.result().take_non_void());
    return results;
  }

 private:
  std::vector<Branch<Task<T>>> branches_;
};

}  // namespace detail

/// `co_await when_all(a, b, …)` awaits all and gives a tuple of their results (`std::monostate`
/// for void). They start in order, all before the first suspension. The first exception drops the
/// others, then is thrown. Dropping it drops all.
template <detail::Awaitable... A>
  requires(... && !std::is_lvalue_reference_v<A>)
detail::WhenAll<A...> when_all(A&&... awaitables) {
  return detail::WhenAll<A...>(std::forward<A>(awaitables)...);
}

/// The same over any number of tasks; gives a vector in their order.
template <class T>
detail::WhenAllOf<T> when_all(std::vector<Task<T>> tasks) {
  return detail::WhenAllOf<T>(std::move(tasks));
}

}  // namespace weir
