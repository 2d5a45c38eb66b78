#pragma once

#include <cstdint>

namespace weir::test {

/// The calls of `operator new` by this thread so far.
[[nodiscard]] std::uint64_t allocations() noexcept;

/// Blocks of `operator new` of 32 KiB and more that this thread has taken, less those that it has
/// given back.
[[nodiscard]] std::int64_t large_blocks() noexcept;

/// The bytes that this thread has got from `operator new` and not given back.
[[nodiscard]] std::int64_t allocated_bytes() noexcept;

/// The calls of `operator new` by this thread from `allowed` on, `times` of them at the most, throw
/// `std::bad_alloc`, until the end of its life. One at a time on a thread.
class FailingAllocations {
 public:
  explicit FailingAllocations(std::uint64_t allowed,
                              std::uint64_t times = ~std::uint64_t{0}) noexcept;
  FailingAllocations(const FailingAllocations&) = delete;
  FailingAllocations& operator=(const FailingAllocations&) = delete;
  ~FailingAllocations();

  /// How many calls have failed.
  [[nodiscard]] std::uint64_t failed() const noexcept;
};

}  // namespace weir::test
