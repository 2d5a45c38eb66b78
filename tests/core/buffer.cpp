#include <weir/core/buffer.h>

#include <doctest/doctest.h>
#include <malloc.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "../support/allocations.h"

using namespace weir;
using namespace weir::detail;

namespace {

/// Made first in its thread, and so the last to go.
struct Last {
  std::int64_t* large = nullptr;
  BufferRef buffer;

  ~Last() {
    buffer.reset();
    if (large != nullptr) *large = test::large_blocks();
  }
};

#ifdef WEIR_SANITIZED
constexpr bool kKeeps = false;
#else
constexpr bool kKeeps = true;
#endif

}  // namespace

TEST_CASE("buffers of every size up to 1 MiB are used again, and have at most a quarter to spare") {
  std::thread([] {
    for (std::size_t capacity = 2048; capacity <= 1 << 20; capacity += capacity / 13) {
      BufferRef first = make_buffer(capacity);
      const std::byte* data = first->data();
      CHECK(first->capacity() == capacity);
      std::memset(first->data(), 7, capacity);
      CHECK(::malloc_usable_size(&*first) <= capacity + capacity / 4 + 64);
      first.reset();
      BufferRef again = make_buffer(capacity - capacity / 100);  // often of the same size
      const BufferRef same = make_buffer(capacity);
      if (kKeeps) CHECK((again->data() == data || same->data() == data));
    }
  }).join();
}

TEST_CASE("a thread keeps 8 MiB of buffers at the most, of the size that came last") {
  if (!kKeeps) return;
  std::thread([] {
    constexpr std::size_t kKept = 8 << 20;
    const std::int64_t before = test::allocated_bytes();
    for (const std::size_t kibibytes : {512UL, 4UL, 100UL, 1024UL, 17UL}) {
      const std::size_t capacity = kibibytes << 10;
      CAPTURE(capacity);
      const auto take = [capacity](std::size_t bytes) {
        std::vector<BufferRef> all;
        all.reserve(bytes / capacity);
        while (all.size() < bytes / capacity) all.push_back(make_buffer(capacity));
        return test::allocations();
      };
      take(2 * kKept);
      CHECK(test::allocated_bytes() - before <= static_cast<std::int64_t>(kKept + kKept / 64));
      const std::uint64_t allocations = test::allocations();
      CHECK(take(kKept / 2) == allocations + 1);  // the vector
    }
  }).join();
}

TEST_CASE("a large buffer that is given back when the thread's cache is gone goes to the heap") {
  std::int64_t large = -1;
  std::thread([&large] {
    static thread_local Last last;
    last.large = &large;
    last.buffer = make_buffer(kBulkBuffer);
    make_buffer(kBulkBuffer).reset();  // is kept in the cache
    CHECK(test::large_blocks() == (kKeeps ? 2 : 1));
  }).join();
  CHECK(large == 0);
}
