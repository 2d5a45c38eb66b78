#include <weir/core/buffer.h>
#include <weir/coro/frame_allocator.h>

#include <limits>
#include <new>
#include <stdexcept>

namespace weir::detail {
namespace {

/// Buffers whose header and bytes are one block. Small blocks come from the frame allocator, and
/// those for bulk transfer from a cache of the thread: fresh pages cost more than the copy.
class HeapBuffers final : public BufferOwner {
 public:
  static void* allocate(std::size_t capacity);
  void release(Buffer& buffer) noexcept override;
};

constinit HeapBuffers heap_buffers;

/// Constant-initialised and trivially destructible: what is released after the end of the thread's
/// other objects, by a static one, still finds it as it was left.
struct BulkCache {
  static constexpr std::size_t kMost = 16;
  void* blocks[kMost];
  std::size_t count;
  bool owned;   // a CacheOwner will empty it when the thread ends
  bool closed;  // the thread is ending: nothing may be cached any more
};

constinit thread_local BulkCache bulk_cache{};

struct CacheOwner {
  CacheOwner() noexcept { bulk_cache.owned = true; }
  CacheOwner(const CacheOwner&) = delete;
  CacheOwner& operator=(const CacheOwner&) = delete;
  ~CacheOwner() {
    while (bulk_cache.count > 0) ::operator delete(bulk_cache.blocks[--bulk_cache.count]);
    bulk_cache.closed = true;
  }
};

void own_bulk_cache() noexcept {
  static thread_local CacheOwner owner;
  (void)owner;
}

/// False if it may be filled no more.
bool may_cache() noexcept {
  if (!bulk_cache.owned) own_bulk_cache();
  return !bulk_cache.closed && bulk_cache.count < BulkCache::kMost;
}

void* HeapBuffers::allocate(std::size_t capacity) {
  const std::size_t bytes = sizeof(Buffer) + capacity;
  if (bytes <= kSmallBuffer) return allocate_frame(bytes);
  if (capacity == kBulkBuffer && bulk_cache.count > 0) {
    return bulk_cache.blocks[--bulk_cache.count];
  }
  return ::operator new(bytes);
}

void HeapBuffers::release(Buffer& buffer) noexcept {
  const std::size_t capacity = buffer.capacity();
  const std::size_t bytes = sizeof(Buffer) + capacity;
  buffer.~Buffer();
  if (bytes <= kSmallBuffer) {
    free_frame(&buffer, bytes);
  } else if (capacity == kBulkBuffer && may_cache()) {
    bulk_cache.blocks[bulk_cache.count++] = &buffer;
  } else {
    ::operator delete(static_cast<void*>(&buffer));
  }
}

}  // namespace

BufferRef make_buffer(std::size_t capacity) {
  if (capacity > std::numeric_limits<std::uint32_t>::max()) {
    throw std::length_error("weir: a piece of data may have 4 GiB at the most");
  }
  void* block = HeapBuffers::allocate(capacity);
  auto* data = static_cast<std::byte*>(block) + sizeof(Buffer);
  return BufferRef(*new (block)
                       Buffer(heap_buffers, data, static_cast<std::uint32_t>(capacity), 0));
}

void prepare_thread_caches() noexcept {
  prepare_frame_cache();
  if (!bulk_cache.owned) own_bulk_cache();
}

}  // namespace weir::detail
