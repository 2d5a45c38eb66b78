#pragma once

#include <cstdint>

namespace weir::test {

/// The calls of `operator new` by this thread so far.
[[nodiscard]] std::uint64_t allocations() noexcept;

/// The calls of `operator new` by this thread from `allowed` on throw `std::bad_alloc`, until the
/// end of its life. One at a time on a thread.
class FailingAllocations {
 public:
  explicit FailingAllocations(std::uint64_t allowed) noexcept;
  FailingAllocations(const FailingAllocations&) = delete;
  FailingAllocations& operator=(const FailingAllocations&) = delete;
  ~FailingAllocations();

  /// How many calls have failed.
  [[nodiscard]] std::uint64_t failed() const noexcept;
};

}  // namespace weir::test
