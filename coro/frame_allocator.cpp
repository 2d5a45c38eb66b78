#include <weir/coro/frame_allocator.h>

#include <atomic>
#include <new>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WEIR_RECYCLE_FRAMES 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WEIR_RECYCLE_FRAMES 0
#endif
#endif
#ifndef WEIR_RECYCLE_FRAMES
#define WEIR_RECYCLE_FRAMES 1
#endif

namespace weir::detail {
namespace {

// 8, 24, 40 … bytes: with malloc's own 8 in front they are whole multiples of its 16.
constexpr std::size_t kGranule = 16;
constexpr std::size_t kHead = 8;
constexpr std::size_t kClasses = 129;              // up to 2 KiB; larger frames are rare
constexpr std::uint32_t kCachedBytes = 256 << 10;  // of one class, on one thread

constexpr std::size_t class_of(std::size_t bytes) noexcept {
  return (bytes + kGranule - 1 - kHead) / kGranule;
}
constexpr std::size_t size_of(std::size_t index) noexcept { return index * kGranule + kHead; }

struct FreeBlock {
  FreeBlock* next;
};

struct SizeClass {
  FreeBlock* first;
  std::uint32_t count;
};

/// Constant-initialised and trivially destructible, so that reaching it costs no guard.
struct FrameCache {
  SizeClass classes[kClasses];
  std::int64_t live;
  bool owned;   // a CacheOwner will empty this cache when the thread ends
  bool closed;  // the thread is ending: nothing may be cached any more
};

constinit thread_local FrameCache cache{};
constinit std::atomic<std::int64_t> live_of_ended_threads{0};

struct CacheOwner {
  CacheOwner() noexcept { cache.owned = true; }
  CacheOwner(const CacheOwner&) = delete;
  CacheOwner& operator=(const CacheOwner&) = delete;
  ~CacheOwner() {
    cache.closed = true;
    for (SizeClass& size_class : cache.classes) {
      while (size_class.first != nullptr) {
        FreeBlock* block = size_class.first;
        size_class.first = block->next;
        ::operator delete(block);
      }
      size_class.count = 0;
    }
    live_of_ended_threads.fetch_add(cache.live, std::memory_order_relaxed);
    cache.live = 0;
  }
};

[[gnu::noinline]] void own_cache() noexcept {
  static thread_local CacheOwner owner;
  (void)owner;
}

void count(std::int64_t change) noexcept {
  if (cache.closed) {
    live_of_ended_threads.fetch_add(change, std::memory_order_relaxed);
  } else {
    cache.live += change;
  }
}

}  // namespace

void* allocate_frame(std::size_t bytes) {
  const std::size_t index = class_of(bytes);
  if (WEIR_RECYCLE_FRAMES != 0 && index < kClasses) {
    SizeClass& size_class = cache.classes[index];
    if (FreeBlock* block = size_class.first; block != nullptr) {
      size_class.first = block->next;
      --size_class.count;
      ++cache.live;
      return block;
    }
    bytes = size_of(index);
  }
  if (!cache.owned) own_cache();
  void* block = ::operator new(bytes);
  count(+1);
  return block;
}

void free_frame(void* block, std::size_t bytes) noexcept {
  if (!cache.owned) [[unlikely]] {
    own_cache();  // a thread that took none: it counts all the same
  }
  const std::size_t index = class_of(bytes);
  if (WEIR_RECYCLE_FRAMES != 0 && index < kClasses && !cache.closed) {
    SizeClass& size_class = cache.classes[index];
    if (size_class.count * size_of(index) < kCachedBytes) {
      size_class.first = new (block) FreeBlock{size_class.first};
      ++size_class.count;
      --cache.live;
      return;
    }
  }
  count(-1);
  ::operator delete(block);
}

void prepare_frame_cache() noexcept {
  if (!cache.owned) own_cache();
}

void leave_uncounted(std::int64_t blocks) noexcept { count(-blocks); }

std::int64_t live_frames() noexcept {
  return cache.live + live_of_ended_threads.load(std::memory_order_relaxed);
}

}  // namespace weir::detail
