#pragma once

#include <weir/coro/awaitable.h>
#include <weir/coro/scheduler.h>

#include <bit>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string_view>
#include <type_traits>
#include <utility>

/// 1, unless the library was configured with WEIR_TRACE_TASKS=OFF: each coroutine notes where it
/// waits and for what, which `Inspector` shows.
#ifndef WEIR_TRACE_TASKS
#define WEIR_TRACE_TASKS 1
#endif

namespace weir {
template <class T>
class Task;
}  // namespace weir

namespace weir::detail {

class Place;

/// An awaitable that has coroutines of its own begun beside each other, and can be asked for them
/// while it is awaited.
class Several {
 public:
  using Visit = void (*)(void* context, std::size_t index, const Place& place, Scope& scope);
  virtual void each(void* context, Visit visit) const = 0;

 protected:
  ~Several() = default;
};

/// A text made at compile time.
template <std::size_t N>
struct Words {
  char text[N + 1] = {};
};

template <std::size_t N, std::size_t M>
constexpr Words<N + M> join_words(const char (&prefix)[N], const char (&rest)[M]) {
  Words<N + M> joined;
  for (std::size_t i = 0; i + 1 < N; ++i) joined.text[i] = prefix[i];
  for (std::size_t i = 0; i + 1 < M; ++i) joined.text[N - 1 + i] = rest[i];
  return joined;
}

template <class A>
concept SaysWhatFor = requires { A::kWaitsFor; };
/// An adaptor around another awaitable, which it names `Held`.
template <class A>
concept HoldsAwaitable = requires { typename A::Held; };

template <class A>
struct AwaitedWords {
  static constexpr char text[] = "an awaitable of the program's";
};
template <class A>
  requires SaysWhatFor<A>
struct AwaitedWords<A> {
  static constexpr auto& text = A::kWaitsFor;
};
template <class T>
struct AwaitedWords<Task<T>> {
  static constexpr char text[] = "a task";
};
template <HoldsAwaitable A>
  requires SaysWhatFor<A>
struct AwaitedWords<A> {
  static constexpr auto words =
      join_words(A::kWaitsFor, AwaitedWords<std::remove_cvref_t<typename A::Held>>::text);
  static constexpr auto& text = words.text;
};

template <class A>
inline constexpr bool kIsSeveral = std::is_base_of_v<Several, A>;
template <HoldsAwaitable A>
inline constexpr bool kIsSeveral<A> = kIsSeveral<typename A::Held>;

/// The promise's place of a task that has not been started, for who awaits it.
struct PlaceAccess {
  /// Whether `of` may give any.
  template <class A>
  static constexpr bool may_have =
      requires(const A& a) { a.handle_.promise().place; } || requires(const A& a) { a.awaited(); };

  template <class A>
  static const Place* of(const A& awaited) noexcept {
    if constexpr (requires { awaited.handle_.promise().place; }) {
      return awaited.handle_ ? &awaited.handle_.promise().place : nullptr;
    } else if constexpr (requires { awaited.awaited(); }) {
      return awaited.awaited() != nullptr ? of(*awaited.awaited()) : nullptr;
    } else {
      return nullptr;
    }
  }
};

/// What `std::source_location` holds, as `__builtin_source_location()` gives it: GCC keeps an
/// object among the arguments of an await in the coroutine's frame, and more than once.
using PlaceInSource = decltype(__builtin_source_location());

inline constexpr bool kTracesTasks = WEIR_TRACE_TASKS != 0;

/// What tells of itself by its type alone, when it suspends.
template <class A>
inline constexpr bool kTellsByType = !kIsSeveral<A> && !PlaceAccess::may_have<A>;

/// Where a coroutine waits, and for what: part of its promise. A store for each await, and another
/// for each that waits; read on the loop's own thread while the coroutine is suspended, but for
/// `where`.
class Place {
 public:
  /// The coroutine is about to await something there.
  void set(PlaceInSource where) noexcept { where_ = where; }
  /// Before it does, or, of what tells by its type, before it suspends.
  template <class A>
  void set_awaited(const A& awaited) noexcept {
    if constexpr (kIsSeveral<A>) {
      what_ = reinterpret_cast<std::uintptr_t>(several_of(awaited)) | kSeveral;
    } else if (const Place* place = PlaceAccess::of(awaited)) {
      what_ = reinterpret_cast<std::uintptr_t>(place) | kPlace;
    } else {
      what_ = reinterpret_cast<std::uintptr_t>(&AwaitedWords<A>::text[0]);
    }
  }

  /// Where the coroutine stands, with a line of 0 before its first await.
  [[nodiscard]] std::source_location where() const noexcept {
    return std::bit_cast<std::source_location>(where_);
  }
  /// The place of the coroutine that is awaited, or nullptr.
  [[nodiscard]] const Place* awaited() const noexcept {
    return (what_ & kMask) == kPlace ? reinterpret_cast<const Place*>(what_ - kPlace) : nullptr;
  }
  [[nodiscard]] const Several* several() const noexcept {
    return (what_ & kMask) == kSeveral ? reinterpret_cast<const Several*>(what_ - kSeveral)
                                       : nullptr;
  }
  /// What is awaited, where that is no coroutine.
  [[nodiscard]] const char* words() const noexcept {
    return what_ != 0 && (what_ & kMask) == 0 ? reinterpret_cast<const char*>(what_) : "";
  }

 private:
  /// Which stays where it is while it is awaited.
  template <class A>
  static const Several* several_of(const A& awaited) noexcept {
    if constexpr (HoldsAwaitable<A>) {
      return several_of(*awaited.awaited());
    } else {
      return &awaited;
    }
  }

  // What `what_` points to, in bits that an address of a program does not have.
  static constexpr std::uintptr_t kPlace = std::uintptr_t{1} << 62;
  static constexpr std::uintptr_t kSeveral = std::uintptr_t{1} << 63;
  static constexpr std::uintptr_t kMask = kPlace | kSeveral;

  PlaceInSource where_ = nullptr;
  std::uintptr_t what_ = 0;
};

template <class A>
class AwaiterThere;

template <class A>
concept HasAwaiterCalls = requires(A& a) {
  a.await_ready();
  a.await_resume();
};

/// For a promise whose coroutine is to be seen where it waits.
struct Placed {
  Place place;

#if WEIR_TRACE_TASKS
  template <class A>
  decltype(auto) await_transform(
      A&& awaited,  // NOLINT(cppcoreguidelines-missing-std-forward): it stays where it is
      PlaceInSource where = __builtin_source_location()) noexcept {
    using Awaited = std::remove_cvref_t<A>;
    constexpr bool is_awaiter = !HasMemberCoAwait<A> && !HasFreeCoAwait<A>;
    static_assert(
        !is_awaiter || HasAwaiterCalls<Awaited>,
        "weir: this cannot be awaited. A Task is moved, co_await std::move(task), or "
        "awaited where it is made; of anything else it is a call that gives what to await");
    place.set(where);
    if constexpr (!is_awaiter || !kTellsByType<Awaited>) place.set_awaited(awaited);
    if constexpr (is_awaiter) {
      return AwaiterThere<std::remove_reference_t<A>>(awaited);
    } else {
      return std::forward<A>(awaited);
    }
  }
#endif
};

/// An awaiter that stands elsewhere in the frame, which says what it waits for. Given the awaiter
/// itself as what is to be awaited, GCC 12 would make another, moved from it.
template <class A>
class AwaiterThere {
 public:
  explicit AwaiterThere(A& awaiter) noexcept : awaiter_(awaiter) {}

  [[gnu::always_inline]] bool await_ready() { return static_cast<bool>(awaiter_.await_ready()); }
  template <class Promise>
  [[gnu::always_inline]] decltype(auto) await_suspend(std::coroutine_handle<Promise> handle) {
    if constexpr (kTellsByType<A>) {
      Placed& placed = handle.promise();
      placed.place.set_awaited(awaiter_);
    }
    return awaiter_.await_suspend(handle);
  }
  [[gnu::always_inline]] decltype(auto) await_resume() { return awaiter_.await_resume(); }

 private:
  A& awaiter_;
};

}  // namespace weir::detail
