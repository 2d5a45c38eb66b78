#include "allocations.h"

#include <weir/coro/scheduler.h>

#include <malloc.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>

namespace {

constexpr auto kNone = std::numeric_limits<std::uint64_t>::max();

struct Counters {
  std::uint64_t calls;
  std::uint64_t first_to_fail;
  std::uint64_t times;
  std::uint64_t failed;
  std::int64_t large;
  std::int64_t bytes;
};

constexpr std::size_t kLarge = 32 << 10;

constinit thread_local Counters counters{0, kNone, kNone, 0, 0, 0};

void* allocate(std::size_t size) {
  if (counters.calls++ >= counters.first_to_fail && counters.failed < counters.times) {
    ++counters.failed;
    throw std::bad_alloc();
  }
  if (void* block = std::malloc(size > 0 ? size : 1)) {
    const std::size_t got = ::malloc_usable_size(block);
    if (got >= kLarge) ++counters.large;
    counters.bytes += static_cast<std::int64_t>(got);
    return block;
  }
  throw std::bad_alloc();
}

/// Whoever interrupts the thread just now, to tell where it is stuck, looks at the scope that runs.
void check_not_running(const void* block, std::size_t size) noexcept {
  const auto* scheduler = weir::detail::Scheduler::current_or_null();
  const auto* scope = scheduler == nullptr ? nullptr : scheduler->running().interrupted();
  const auto at = reinterpret_cast<std::uintptr_t>(scope);
  const auto begin = reinterpret_cast<std::uintptr_t>(block);
  if (at < begin || at >= begin + size) return;
  std::fputs("what is freed holds the scope that runs\n", stderr);
  std::abort();
}

void release(void* block) noexcept {
  const std::size_t size = ::malloc_usable_size(block);  // 0 for a null pointer
  check_not_running(block, size);
  if (size >= kLarge) --counters.large;
  counters.bytes -= static_cast<std::int64_t>(size);
  std::free(block);
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* block) noexcept { release(block); }
void operator delete[](void* block) noexcept { release(block); }
void operator delete(void* block, std::size_t) noexcept { release(block); }
void operator delete[](void* block, std::size_t) noexcept { release(block); }

namespace weir::test {

std::uint64_t allocations() noexcept { return counters.calls; }

std::int64_t allocated_bytes() noexcept { return counters.bytes; }

std::int64_t large_blocks() noexcept { return counters.large; }

FailingAllocations::FailingAllocations(std::uint64_t allowed, std::uint64_t times) noexcept {
  counters.first_to_fail = counters.calls + allowed;
  counters.times = times;
  counters.failed = 0;
}

FailingAllocations::~FailingAllocations() { counters.first_to_fail = kNone; }

std::uint64_t FailingAllocations::failed() const noexcept { return counters.failed; }

}  // namespace weir::test
