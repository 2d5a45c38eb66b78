#include <weir/core/sleep.h>
#include <weir/coro/channel.h>
#include <weir/coro/frame_allocator.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_all.h>
#include <weir/coro/when_any.h>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <new>
#include <thread>
#include <vector>

#include "../support/allocations.h"
#include "../support/virtual_loop.h"

using namespace weir;
using namespace weir::detail;
using namespace std::chrono_literals;
using test::allocations;
using test::FailingAllocations;
using test::VirtualLoop;

namespace {

#ifdef WEIR_SANITIZED
constexpr bool kRecycles = false;
#else
constexpr bool kRecycles = true;
#endif

Task<int> inner(int value) {
  co_await yield();
  co_return value;
}

Task<int> outer() { co_return co_await inner(1) + co_await inner(2); }

/// One of everything that makes frames or takes memory.
Task<int> everything(Channel<int>& channel) {
  int sum = co_await outer();
  const auto [one, two] = co_await when_all(inner(1), inner(2));
  const auto winner = co_await when_any(inner(3), sleep(1h));
  sum += one + two + std::get<0>(winner);
  sum += co_await timeout(1h, inner(4));
  TaskGroup group;
  group.spawn(inner(5));
  co_await group.join();
  co_await channel.send(6);
  sum += (co_await channel.receive()).value();
  co_return sum;
}

}  // namespace

TEST_CASE("frames are recycled: a loop of tasks takes memory for the first one only") {
  VirtualLoop loop;
  std::uint64_t taken = 0;
  const auto body = [&]() -> Task<> {
    co_await outer();
    const auto before = allocations();
    for (int i = 0; i < 1000; ++i) co_await outer();
    taken = allocations() - before;
  };
  loop.run(body());
  if (kRecycles) {
    CHECK(taken == 0);
  } else {
    CHECK(taken == 3000);  // hidden from no sanitizer
  }
}

TEST_CASE("leaves make no frame and take no memory") {
  VirtualLoop loop;
  std::uint64_t taken = 1;
  std::int64_t frames = 1;
  const auto body = [&]() -> Task<> {
    const auto before = allocations();
    const auto frames_before = live_frames();
    for (int i = 0; i < 100; ++i) {
      co_await sleep(1ms);
      co_await yield();
      co_await timeout(2ms, sleep(1ms));
    }
    taken = allocations() - before;
    frames = live_frames() - frames_before;
  };
  loop.run(body());
  CHECK(taken == 0);
  CHECK(frames == 0);
}

TEST_CASE("blocks of all sizes are writable, apart from each other, and given back") {
  const auto before = live_frames();
  std::vector<std::pair<unsigned char*, std::size_t>> blocks;
  for (int round = 0; round < 3; ++round) {
    for (std::size_t size = 1; size < 5000; size += 37) {
      auto* block = static_cast<unsigned char*>(allocate_frame(size));
      CHECK(reinterpret_cast<std::uintptr_t>(block) % alignof(std::max_align_t) == 0);
      std::fill_n(block, size, static_cast<unsigned char>(blocks.size()));
      blocks.emplace_back(block, size);
    }
    CHECK(live_frames() - before == static_cast<std::int64_t>(blocks.size()));
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const auto [block, size] = blocks[i];
      bool intact = true;
      for (std::size_t at = 0; at < size; ++at) {
        intact = intact && block[at] == static_cast<unsigned char>(i);
      }
      CHECK(intact);
      free_frame(block, size);
    }
    blocks.clear();
  }
  CHECK(live_frames() == before);
}

TEST_CASE("a block may be freed on another thread, and counts once") {
  const auto before = live_frames();
  void* block = allocate_frame(100);
  std::thread([block] { free_frame(block, 100); }).join();
  CHECK(live_frames() == before);
  std::thread([&block] { block = allocate_frame(100); }).join();
  CHECK(live_frames() == before + 1);
  free_frame(block, 100);
  CHECK(live_frames() == before);
}

TEST_CASE("wherever memory runs out, the exception arrives and nothing is left behind") {
  const auto frames = live_frames();
  std::uint64_t allowed = 0;
  int failures = 0;
  for (bool finished = false; !finished; ++allowed) {
    REQUIRE(allowed < 1000);
    // In a thread of its own, so that no frame is recycled from the round before.
    std::thread([&] {
      VirtualLoop loop;
      Channel<int> channel(1);
      const auto body = [&]() -> Task<int> { return everything(channel); };
      auto task = body();
      std::uint64_t failed = 0;
      int result = 0;
      try {
        const FailingAllocations failing(allowed);
        try {
          result = loop.run(std::move(task));
        } catch (const std::bad_alloc&) {
          ++failures;
        }
        failed = failing.failed();
      } catch (...) {
        FAIL_CHECK("another exception than bad_alloc");
      }
      finished = failed == 0;
      if (finished) CHECK(result == 3 + 3 + 3 + 4 + 6);
    }).join();
    CHECK(live_frames() == frames);
  }
  CHECK(failures > 5);
}
