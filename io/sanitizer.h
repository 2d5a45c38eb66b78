#pragma once

#include <weir/core/assert.h>

#include <cstddef>

// The sanitizers do not see what the kernel reads and writes. In their builds the engines check
// memory when it is lent to the kernel and when it comes back, and poison free buffers.

#if defined(__SANITIZE_ADDRESS__)
#define WEIR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WEIR_ASAN 1
#endif
#endif
#ifndef WEIR_ASAN
#define WEIR_ASAN 0
#endif

#if WEIR_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace weir::detail {

/// Asserts that the kernel may touch this memory: it has not been freed.
inline void check_lent([[maybe_unused]] const void* data,
                       [[maybe_unused]] std::size_t size) noexcept {
#if WEIR_ASAN
  WEIR_ASSERT(size == 0 || __asan_region_is_poisoned(const_cast<void*>(data), size) == nullptr);
#endif
}

inline void poison([[maybe_unused]] const void* data, [[maybe_unused]] std::size_t size) noexcept {
#if WEIR_ASAN
  __asan_poison_memory_region(data, size);
#endif
}

inline void unpoison([[maybe_unused]] const void* data,
                     [[maybe_unused]] std::size_t size) noexcept {
#if WEIR_ASAN
  __asan_unpoison_memory_region(data, size);
#endif
}

}  // namespace weir::detail
