#include <weir/core/buffer.h>
#include <weir/coro/frame_allocator.h>

#include <bit>
#include <cstddef>
#include <limits>
#include <new>
#include <stdexcept>

namespace weir::detail {
namespace {

/// Buffers whose header and bytes are one block. Small blocks come from the frame allocator, larger
/// ones from a cache of the thread: fresh pages cost more than the copy into them, and malloc gives
/// what is freed at the end of its heap back to the system.
class HeapBuffers final : public BufferOwner {
 public:
  static void* allocate(std::size_t capacity);
  void release(Buffer& buffer) noexcept override;
};

constinit HeapBuffers heap_buffers;

constexpr std::size_t kLargest = 1 << 20;  // that is kept
#ifdef WEIR_SANITIZED
constexpr std::size_t kKept = 0;  // so that a use after the end shows
#else
constexpr std::size_t kKept = 8 << 20;  // at the most, by a thread
#endif

/// Four sizes between one power of two and the next: up to a quarter more than was asked for.
struct BlockSize {
  static constexpr int kFirstWidth = 11;  // of what is just not small
  static constexpr std::size_t kCount = 4 * (std::size_t{21} - kFirstWidth);

  explicit BlockSize(std::size_t capacity) noexcept {
    const int width = static_cast<int>(std::bit_width(capacity - 1));
    const int step = width - 3;
    const std::size_t steps = (capacity - 1) >> step;  // 4 to 7
    index = 4 * static_cast<std::size_t>(width - kFirstWidth) + steps - 4;
    bytes = sizeof(Buffer) + ((steps + 1) << step);
  }

  std::size_t index;
  std::size_t bytes;
};

/// What was given back, by its size. Constant-initialised and trivially destructible: what is
/// released after the end of the thread's other objects, by a static one, still finds it as it was
/// left.
class BlockCache {
 public:
  /// nullptr: there is none.
  void* take(const BlockSize& size) noexcept {
    Block* block = first_[size.index];
    if (block == nullptr) return nullptr;
    first_[size.index] = block->next;
    kept_ -= size.bytes;
    return block;
  }

  void put(void* block, const BlockSize& size) noexcept {
    if (!owned_) make_owner();
    if (closed_ || size.bytes > kKept) return ::operator delete(block);
    while (kept_ + size.bytes > kKept) {
      if (!drop_one(size.index)) return ::operator delete(block);
    }
    first_[size.index] = new (block) Block{first_[size.index], size.bytes};
    kept_ += size.bytes;
  }

  /// Makes sure that it is emptied when the thread ends.
  void prepare() noexcept {
    if (!owned_) make_owner();
  }

 private:
  struct Block {
    Block* next;
    std::size_t bytes;
  };
  struct Owner;

  static void make_owner() noexcept;
  /// Of one size after the other but this, which is wanted now. False if there is none.
  bool drop_one(std::size_t but) noexcept {
    for (std::size_t i = 0; i < BlockSize::kCount; ++i) {
      last_dropped_ = (last_dropped_ + 1) % BlockSize::kCount;
      Block* block = first_[last_dropped_];
      if (block == nullptr || last_dropped_ == but) continue;
      first_[last_dropped_] = block->next;
      kept_ -= block->bytes;
      ::operator delete(static_cast<void*>(block));
      return true;
    }
    return false;
  }

  Block* first_[BlockSize::kCount];
  std::size_t kept_;
  std::size_t last_dropped_;
  bool owned_;   // an Owner will empty it when the thread ends
  bool closed_;  // the thread is ending: nothing may be kept any more
};

static_assert(std::size_t{1} << BlockSize::kFirstWidth == kSmallBuffer && kLargest == 1 << 20);

constinit thread_local BlockCache block_cache{};

struct BlockCache::Owner {
  Owner() noexcept { block_cache.owned_ = true; }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  ~Owner() {
    while (block_cache.drop_one(BlockSize::kCount)) continue;
    block_cache.closed_ = true;
  }
};

void BlockCache::make_owner() noexcept {
  static thread_local Owner owner;
  (void)owner;
}

void* HeapBuffers::allocate(std::size_t capacity) {
  const std::size_t bytes = sizeof(Buffer) + capacity;
  if (bytes <= kSmallBuffer) return allocate_frame(bytes);
  if (capacity > kLargest) return ::operator new(bytes);
  const BlockSize size(capacity);
  void* block = block_cache.take(size);
  return block != nullptr ? block : ::operator new(size.bytes);
}

void HeapBuffers::release(Buffer& buffer) noexcept {
  const std::size_t capacity = buffer.capacity();
  const std::size_t bytes = sizeof(Buffer) + capacity;
  buffer.~Buffer();
  if (bytes <= kSmallBuffer) {
    free_frame(&buffer, bytes);
  } else if (capacity > kLargest) {
    ::operator delete(static_cast<void*>(&buffer));
  } else {
    block_cache.put(&buffer, BlockSize(capacity));
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
  block_cache.prepare();
}

}  // namespace weir::detail
