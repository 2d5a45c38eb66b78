#include "allocations.h"

#include <cstdlib>
#include <limits>
#include <new>

namespace {

constexpr auto kNone = std::numeric_limits<std::uint64_t>::max();

struct Counters {
  std::uint64_t calls;
  std::uint64_t first_to_fail;
  std::uint64_t failed;
};

constinit thread_local Counters counters{0, kNone, 0};

void* allocate(std::size_t size) {
  if (counters.calls++ >= counters.first_to_fail) {
    ++counters.failed;
    throw std::bad_alloc();
  }
  if (void* block = std::malloc(size > 0 ? size : 1)) return block;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* block) noexcept { std::free(block); }
void operator delete[](void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t) noexcept { std::free(block); }

namespace weir::test {

std::uint64_t allocations() noexcept { return counters.calls; }

FailingAllocations::FailingAllocations(std::uint64_t allowed) noexcept {
  counters.first_to_fail = counters.calls + allowed;
  counters.failed = 0;
}

FailingAllocations::~FailingAllocations() { counters.first_to_fail = kNone; }

std::uint64_t FailingAllocations::failed() const noexcept { return counters.failed; }

}  // namespace weir::test
