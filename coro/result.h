#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>

namespace weir {

namespace detail {

/// A reference, or none: where a result that is one may be missing.
template <class T>
class Reference {
 public:
  constexpr Reference() noexcept = default;
  constexpr Reference(T& to) noexcept : to_(&to) {}  // NOLINT: stands for the reference

  [[nodiscard]] constexpr T& get() const noexcept { return *to_; }
  constexpr T& operator*() const noexcept { return *to_; }
  constexpr T* operator->() const noexcept { return to_; }
  constexpr operator T&() const noexcept { return *to_; }  // NOLINT: likewise
  [[nodiscard]] constexpr bool has_value() const noexcept { return to_ != nullptr; }

 private:
  T* to_ = nullptr;
};

/// What stands for a result that may be missing: itself if it has a default, for a reference a
/// `Reference`, else a `std::optional`.
template <class T>
struct Missable {
  using type = std::conditional_t<std::is_default_constructible_v<T>, T, std::optional<T>>;
};
template <class T>
struct Missable<T&> {
  using type = Reference<T>;
};

}  // namespace detail

/// What `as_tuple` gives: the error, or the value. For an awaitable of void, `value` is a
/// `std::monostate`; for one of a reference a `Reference`, and a `std::optional` for a type that
/// cannot be default-constructed.
template <class T>
struct [[nodiscard]] Outcome {
  std::error_code error;
  typename detail::Missable<T>::type value;
};

template <>
struct [[nodiscard]] Outcome<void> {
  std::error_code error;
  std::monostate value;
};

namespace detail {

/// In place of void: whether it has ended is not asked of the result.
struct NoValue;

/// void as a value: `std::monostate`.
template <class T>
using NonVoid = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

/// The result of a coroutine: nothing yet, a value or an exception. (A `std::variant` of the three
/// does the same, and costs every file that includes this a hundredth of a second.)
template <class T>
class Result {
  using Stored = std::conditional_t<std::is_reference_v<T>,
                                    std::reference_wrapper<std::remove_reference_t<T>>, NonVoid<T>>;

 public:
  Result() noexcept {}  // NOLINT(modernize-use-equals-default): nothing is stored yet
  Result(const Result&) = delete;
  Result& operator=(const Result&) = delete;
  ~Result() { clear(); }

  template <class U>
  void set_value(U&& value) {
    clear();
    ::new (place_of(stored_.value)) Stored(std::forward<U>(value));
    state_ = State::value;
  }
  void set_value() noexcept
    requires(std::is_void_v<T>)
  {
    clear();
    ::new (place_of(stored_.value)) Stored();
    state_ = State::value;
  }
  void set_exception(std::exception_ptr exception) noexcept {
    clear();
    ::new (place_of(stored_.exception)) std::exception_ptr(std::move(exception));
    state_ = State::exception;
  }

  [[nodiscard]] bool has_value() const noexcept { return state_ == State::value; }
  [[nodiscard]] bool has_exception() const noexcept { return state_ == State::exception; }
  [[nodiscard]] std::exception_ptr exception() const noexcept {
    return has_exception() ? stored_.exception : nullptr;
  }

  /// Moves the value out, or throws the exception. One of them is there.
  T take() {
    if (has_exception()) std::rethrow_exception(std::move(stored_.exception));
    if constexpr (std::is_reference_v<T>) {
      return static_cast<T>(stored_.value.get());
    } else if constexpr (!std::is_void_v<T>) {
      return std::move(stored_.value);
    }
  }

  /// The same with void as a `std::monostate`.
  NonVoid<T> take_non_void() {
    if constexpr (std::is_void_v<T>) {
      take();
      return {};
    } else {
      return take();
    }
  }

 private:
  enum class State : unsigned char { none, value, exception };

  /// Of a type that may be const, or have operators of its own.
  template <class Member>
  static void* place_of(Member& member) noexcept {
    return const_cast<void*>(static_cast<const volatile void*>(std::addressof(member)));
  }

  void clear() noexcept {
    const State was = std::exchange(state_, State::none);
    if (was == State::value) stored_.value.~Stored();
    if (was == State::exception) stored_.exception.~exception_ptr();
  }

  union Storage {
    Storage() noexcept {}
    ~Storage() {}
    Stored value;
    std::exception_ptr exception;
  };

  Storage stored_;
  State state_ = State::none;
};

/// The same of what is known to have ended, and gives no value.
template <>
class Result<NoValue> {
 public:
  void set_value() noexcept {}
  void set_exception(std::exception_ptr exception) noexcept { exception_ = std::move(exception); }
  [[nodiscard]] const std::exception_ptr& exception() const noexcept { return exception_; }
  void take() {
    if (exception_ != nullptr) std::rethrow_exception(std::move(exception_));
  }

 private:
  std::exception_ptr exception_;
};

}  // namespace detail
}  // namespace weir
