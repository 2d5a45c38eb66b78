#pragma once

#include <weir/coro/branch.h>

#include <tuple>
#include <variant>

namespace weir {

namespace detail {

/// See `when_any`.
template <class... A>
class [[nodiscard("co_await it")]] WhenAny final : public Junction {
 public:
  template <class T>
  using Alternative = std::conditional_t<std::is_reference_v<T>,
                                         Reference<std::remove_reference_t<T>>, detail::NonVoid<T>>;
  using Value = std::variant<Alternative<detail::AwaitResult<A>>...>;

  explicit WhenAny(A&&... awaitables) : branches_(std::move(awaitables)...) {}

  static constexpr bool await_ready() noexcept { return false; }

  bool await_suspend(std::coroutine_handle<> handle) {
    open_ = 1;
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

  Value await_resume() { return take(std::index_sequence_for<A...>{}); }

 private:
  template <std::size_t... I>
  Value take(std::index_sequence<I...>) {
    // Before the winner's result is looked at, so that the losers are gone if it is an exception.
    ((I == first_ ? void() : std::get<I>(branches_).drop()), ...);
    using Take = Value (*)(WhenAny&);
    static constexpr Take takers[] = {[](WhenAny& self) {
      return Value(std::in_place_index<I>, std::get<I>(self.branches_).result().take_non_void());
    }...};
    return takers[first_](*this);
  }

  std::tuple<Branch<A>...> branches_;
};

}  // namespace detail

/// `co_await when_any(a, b, …)` starts them in order; the first to finish wins and the others are
/// dropped, which loses nothing of theirs. Gives a `std::variant` of the results
/// (`std::monostate` for void, `Reference` for a reference) whose `index()` names the winner, or
/// throws what the winner threw. Dropping it drops all. Makes no coroutine frame.
template <detail::Awaitable... A>
  requires(sizeof...(A) > 0 && (... && !std::is_lvalue_reference_v<A>))
detail::WhenAny<A...> when_any(A&&... awaitables) {
  return detail::WhenAny<A...>(std::forward<A>(awaitables)...);
}

}  // namespace weir
