#pragma once

namespace weir {

[[noreturn]] void assertion_failed(const char* condition, const char* file, int line) noexcept;

}  // namespace weir

/// For what only a bug of weir's own can cause. On in release builds too: it stands where it is
/// cheap.
#define WEIR_ASSERT(condition)                         \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::weir::assertion_failed(#condition, __FILE__, __LINE__))
