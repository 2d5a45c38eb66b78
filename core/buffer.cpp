#include <weir/core/buffer.h>
#include <weir/coro/frame_allocator.h>

#include <limits>
#include <new>
#include <stdexcept>

namespace weir {
namespace {

/// Buffers whose header and bytes are one block. Small blocks come from the frame allocator, and
/// those for bulk transfer from a cache of the thread: fresh pages cost more than the copy.
class HeapBuffers final : public BufferOwner {
 public:
  static void* allocate(std::size_t capacity);
  void release(Buffer& buffer) noexcept override;
};

constinit HeapBuffers heap_buffers;

struct BulkCache {
  static constexpr std::size_t kMost = 16;
  void* blocks[kMost];
  std::size_t count = 0;
  BulkCache() = default;
  BulkCache(const BulkCache&) = delete;
  BulkCache& operator=(const BulkCache&) = delete;
  ~BulkCache() {
    while (count > 0) ::operator delete(blocks[--count]);
    count = kMost;  // what is released later than this goes to the heap
  }
};

thread_local BulkCache bulk_cache;

void* HeapBuffers::allocate(std::size_t capacity) {
  const std::size_t bytes = sizeof(Buffer) + capacity;
  if (bytes <= kSmallBuffer) return allocate_frame(bytes);
  if (capacity == kBulkBuffer && bulk_cache.count > 0 && bulk_cache.count <= BulkCache::kMost) {
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
  } else if (capacity == kBulkBuffer && bulk_cache.count < BulkCache::kMost) {
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

}  // namespace weir
