#pragma once

#include <weir/coro/result.h>

#include <concepts>
#include <coroutine>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

namespace weir::detail {

template <class A>
concept HasMemberCoAwait = requires(A&& a) { std::forward<A>(a).operator co_await(); };

template <class A>
concept HasFreeCoAwait = requires(A&& a) { operator co_await(std::forward<A>(a)); };

/// What `co_await a` awaits, as the language finds it.
template <class A>
decltype(auto) get_awaiter(A&& a) {
  if constexpr (HasMemberCoAwait<A>) {
    return std::forward<A>(a).operator co_await();
  } else if constexpr (HasFreeCoAwait<A>) {
    return operator co_await(std::forward<A>(a));
  } else {
    return std::forward<A>(a);
  }
}

template <class A>
using AwaiterOf = std::remove_reference_t<decltype(get_awaiter(std::declval<A>()))>;

template <class A>
concept Awaitable = requires(AwaiterOf<A>& awaiter) {
  { awaiter.await_ready() } -> std::convertible_to<bool>;
  awaiter.await_resume();
};

template <class A>
using AwaitResult = decltype(std::declval<AwaiterOf<A>&>().await_resume());

/// Calls `await_suspend` whichever of the three forms it has: false where there is no need to
/// suspend. A handle to transfer to is resumed here.
template <class Awaiter>
bool suspend_on(Awaiter& awaiter, std::coroutine_handle<> handle) {
  using Suspended = decltype(awaiter.await_suspend(handle));
  if constexpr (std::is_void_v<Suspended>) {
    awaiter.await_suspend(handle);
    return true;
  } else if constexpr (std::is_same_v<Suspended, bool>) {
    return awaiter.await_suspend(handle);
  } else {
    const std::coroutine_handle<> next = awaiter.await_suspend(handle);
    if (next == handle) return false;
    next.resume();
    return true;
  }
}

/// The outcome of an awaiter that is ready: its own where it offers one (no exception is thrown
/// for a plain error then), else from what `await_resume` does. An exception other than
/// `std::system_error` passes through.
template <class Awaiter>
auto outcome_of(Awaiter& awaiter) -> Outcome<decltype(awaiter.await_resume())> {
  using T = decltype(awaiter.await_resume());
  if constexpr (requires { awaiter.outcome(); }) {
    return awaiter.outcome();
  } else {
    try {
      if constexpr (std::is_void_v<T>) {
        awaiter.await_resume();
        return {};
      } else {
        return {std::error_code(), awaiter.await_resume()};
      }
    } catch (const std::system_error& error) {
      return {error.code(), {}};
    }
  }
}

/// An awaitable with its awaiter, both in place: what the adaptors (`as_tuple`, `timeout`) hold.
/// It moves only before it is awaited; the awaiter is made then.
template <class A>
class HeldAwaitable {
 public:
  using Result = AwaitResult<A>;

  explicit HeldAwaitable(A&& awaitable) : awaitable_(std::move(awaitable)) {}

  HeldAwaitable(HeldAwaitable&& other) noexcept : awaitable_(std::move(other.awaitable_)) {}
  HeldAwaitable& operator=(HeldAwaitable&&) = delete;
  ~HeldAwaitable() { drop_awaiter(); }

  AwaiterOf<A>& awaiter() {
    if constexpr (kIsAwaiter) {
      return *awaitable_;
    } else {
      if (!made_) {
        if constexpr (kIsElsewhere) {
          auto&& elsewhere = get_awaiter(std::move(*awaitable_));
          ::new (static_cast<void*>(&storage_.awaiter)) AwaiterType(std::addressof(elsewhere));
        } else {
          ::new (static_cast<void*>(&storage_.awaiter))
              AwaiterType(get_awaiter(std::move(*awaitable_)));
        }
        made_ = true;
      }
      if constexpr (kIsElsewhere) {
        return *storage_.awaiter;
      } else {
        return storage_.awaiter;
      }
    }
  }

  /// As long as it is there.
  [[nodiscard]] const A* awaitable() const noexcept {
    return awaitable_ ? std::addressof(*awaitable_) : nullptr;
  }

  /// Drops what is awaited, and with it its whole tree of frames.
  void drop() noexcept {
    drop_awaiter();
    awaitable_.reset();
  }

  /// Once it has given its result.
  void drop_awaiter() noexcept {
    if constexpr (!kIsAwaiter) {
      if (made_) storage_.awaiter.~AwaiterType();
      made_ = false;
    }
  }

 private:
  static constexpr bool kIsAwaiter = !HasMemberCoAwait<A> && !HasFreeCoAwait<A>;
  /// Its `operator co_await` gives a reference.
  static constexpr bool kIsElsewhere =
      !kIsAwaiter && std::is_reference_v<decltype(get_awaiter(std::declval<A>()))>;
  using AwaiterType = std::conditional_t<kIsElsewhere, AwaiterOf<A>*, AwaiterOf<A>>;

  union Storage {
    Storage() noexcept {}
    ~Storage() {}
    char none;
    AwaiterType awaiter;
  };
  struct NoStorage {};

  std::optional<A> awaitable_;
  [[no_unique_address]] std::conditional_t<kIsAwaiter, NoStorage, Storage> storage_;
  bool made_ = false;
};

}  // namespace weir::detail
