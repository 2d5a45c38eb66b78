#pragma once

#include <weir/coro/branch.h>
#include <weir/coro/task.h>

#include <tuple>
#include <vector>

namespace weir {

namespace detail {

/// See `when_all`.
template <class... A>
class [[nodiscard("co_await it")]] WhenAll final : public Several {
 public:
  explicit WhenAll(A&&... awaitables)
      : branches_(detail::make_branch<A>(std::move(awaitables))...) {}

  static constexpr bool await_ready() noexcept { return sizeof...(A) == 0; }

  bool await_suspend(std::coroutine_handle<> handle) {
    junction_.open = sizeof...(A);
    std::apply(
        [this](auto&... branch) {
          std::size_t index = 0;
          (void)(... && (branch.start(junction_, index++), !junction_.closed()));
        },
        branches_);
    if (junction_.closed()) return false;
    junction_.awaiting = handle;
    return true;
  }

  std::tuple<detail::NonVoid<detail::AwaitResult<A>>...> await_resume() {
    if (junction_.failed != detail::Junction::kNone) rethrow();
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
          ((index++ == junction_.failed ? void(failure = branch.result().exception()) : void()),
           ...);
          (branch.drop(), ...);
        },
        branches_);
    std::rethrow_exception(failure);
  }

  void each(void* context, Visit visit) const override {
    std::apply(
        [&](auto&... branch) {
          std::size_t index = 0;
          (branch.show(context, index++, visit), ...);
        },
        branches_);
  }

  detail::Junction junction_;
  std::tuple<detail::Branch<detail::AwaitResult<A>>...> branches_;
};

/// See `when_all`.
template <class T>
class [[nodiscard("co_await it")]] WhenAllOf final : public Several {
 public:
  explicit WhenAllOf(std::vector<Task<T>> tasks) {
    branches_.reserve(tasks.size());
    for (Task<T>& task : tasks) branches_.push_back(detail::make_branch(std::move(task)));
  }

  [[nodiscard]] bool await_ready() const noexcept { return branches_.empty(); }

  bool await_suspend(std::coroutine_handle<> handle) {
    junction_.open = branches_.size();
    for (std::size_t i = 0; i < branches_.size() && !junction_.closed(); ++i) {
      branches_[i].start(junction_, i);
    }
    if (junction_.closed()) return false;
    junction_.awaiting = handle;
    return true;
  }

  std::vector<detail::NonVoid<T>> await_resume() {
    if (junction_.failed != detail::Junction::kNone) {
      const std::exception_ptr failure = branches_[junction_.failed].result().exception();
      branches_.clear();
      std::rethrow_exception(failure);
    }
    std::vector<detail::NonVoid<T>> results;
    results.reserve(branches_.size());
    for (auto& branch : branches_) results.push_back(branch.result().take_non_void());
    return results;
  }

 private:
  void each(void* context, Visit visit) const override {
    for (std::size_t i = 0; i < branches_.size(); ++i) branches_[i].show(context, i, visit);
  }

  detail::Junction junction_;
  std::vector<detail::Branch<T>> branches_;
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
