#pragma once

#include <exception>
#include <functional>
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

/// void as a value: `std::monostate`.
template <class T>
using NonVoid = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

/// The result of a coroutine: nothing yet, a value or an exception.
template <class T>
class Result {
  using Stored = std::conditional_t<std::is_reference_v<T>,
                                    std::reference_wrapper<std::remove_reference_t<T>>, NonVoid<T>>;

 public:
  template <class U>
  void set_value(U&& value) {
    state_.template emplace<1>(std::forward<U>(value));
  }
  void set_value()
    requires(std::is_void_v<T>)
  {
    state_.template emplace<1>();
  }
  void set_exception(std::exception_ptr exception) noexcept {
    state_.template emplace<2>(std::move(exception));
  }

  [[nodiscard]] bool has_value() const noexcept { return state_.index() == 1; }
  [[nodiscard]] bool has_exception() const noexcept { return state_.index() == 2; }
  [[nodiscard]] std::exception_ptr exception() const noexcept {
    return has_exception() ? std::get<2>(state_) : nullptr;
  }

  /// Moves the value out, or throws the exception.
  T take() {
    if (state_.index() == 2) std::rethrow_exception(std::get<2>(std::move(state_)));
    if constexpr (std::is_reference_v<T>) {
      return static_cast<T>(std::get<1>(state_).get());
    } else if constexpr (!std::is_void_v<T>) {
      return std::get<1>(std::move(state_));
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
  std::variant<std::monostate, Stored, std::exception_ptr> state_;
};

}  // namespace detail
}  // namespace weir
