#pragma once

#include <weir/coro/error.h>

#include <atomic>
#include <system_error>

namespace weir::detail {

/// Why a stream ended, small enough to be kept in each box: an errno, a negated `errc`, or 0.
using Failure = int;

inline constexpr Failure kClosedHere = -static_cast<int>(errc::closed_here);
inline constexpr Failure kUnresponsive = -static_cast<int>(errc::unresponsive);
inline constexpr Failure kIdle = -static_cast<int>(errc::idle);

/// What a transform found wrong: this, less a number of the category that it made known.
inline constexpr Failure kTransformFailure = -0x10000;
inline std::atomic<const std::error_category*> transform_category{nullptr};

[[nodiscard]] inline std::error_code code_of(Failure failure) noexcept {
  if (failure <= kTransformFailure) [[unlikely]] {
    return {kTransformFailure - failure, *transform_category.load(std::memory_order_relaxed)};
  }
  if (failure < 0) return static_cast<errc>(-failure);
  return {failure, std::generic_category()};
}

[[noreturn]] void throw_failure(Failure failure);

}  // namespace weir::detail
