#include <weir/core/buffer.h>

#include <doctest/doctest.h>

#include <cstdint>
#include <thread>

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

}  // namespace

TEST_CASE("a large buffer that is given back when the thread's cache is gone goes to the heap") {
  std::int64_t large = -1;
  std::thread([&large] {
    static thread_local Last last;
    last.large = &large;
    last.buffer = make_buffer(kBulkBuffer);
    make_buffer(kBulkBuffer).reset();  // is kept in the cache
    CHECK(test::large_blocks() == 2);
  }).join();
  CHECK(large == 0);
}
