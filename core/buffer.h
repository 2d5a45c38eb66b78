#pragma once

#include <weir/coro/owner.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace weir::detail {

class Buffer;

/// A piece of memory to send; laid out like `struct iovec`.
struct Slice {
  const void* data;
  std::size_t size;
};

/// Where buffers come from and go back to: an engine's receive pool, or the heap.
class BufferOwner {
 public:
  virtual void release(Buffer& buffer) noexcept = 0;
  /// Whether `Metrics::buffers_leased` counts those that are out.
  [[nodiscard]] virtual bool counts_leases() const noexcept { return false; }

 protected:
  ~BufferOwner() = default;
};

/// A counted stretch of memory. The count is not atomic: a buffer lives and dies on one loop.
class Buffer {
 public:
  Buffer(BufferOwner& owner, std::byte* data, std::uint32_t capacity, std::uint32_t id) noexcept
      : owner_(&owner), data_(data), capacity_(capacity), id_(id) {
    belong_here();
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint32_t capacity() const noexcept { return capacity_; }
  /// The owner's own number for it.
  [[nodiscard]] std::uint32_t id() const noexcept { return id_; }
  [[nodiscard]] bool shared() const noexcept { return references_ > 1; }
  [[nodiscard]] bool is_lease() const noexcept { return owner_->counts_leases(); }
  [[nodiscard]] bool unused() const noexcept { return references_ == 0; }
  /// Of a lease, where the reader waited that its bytes came for: see `Waiter::place`. 0: nobody
  /// waited.
  [[nodiscard]] std::uint64_t read_at() const noexcept { return read_at_; }
  void set_read_at(std::uint64_t place) noexcept { read_at_ = place; }

  /// From now on only the loop that runs here may take and drop references.
  void belong_here() noexcept { home_ = home_tag(Scheduler::current_or_null()); }
  void check_thread() const noexcept {
    check_owner(home_, "a Chunk", "a copy of its bytes, such as std::string(chunk.view()),");
  }

 private:
  friend class BufferRef;

  BufferOwner* owner_;
  std::byte* data_;
  std::uint32_t capacity_;
  std::uint32_t id_;
  std::uint32_t references_ = 0;
  HomeTag home_;
  std::uint64_t read_at_ = 0;
};

/// One reference to a buffer; the last one gives it back.
class BufferRef {
 public:
  BufferRef() noexcept = default;
  explicit BufferRef(Buffer& buffer) noexcept : buffer_(&buffer) { ++buffer.references_; }
  BufferRef(const BufferRef& other) noexcept : buffer_(other.buffer_) {
    if (buffer_ == nullptr) return;
    buffer_->check_thread();
    ++buffer_->references_;
  }
  BufferRef(BufferRef&& other) noexcept : buffer_(std::exchange(other.buffer_, nullptr)) {}
  BufferRef& operator=(const BufferRef& other) noexcept { return *this = BufferRef(other); }
  BufferRef& operator=(BufferRef&& other) noexcept {
    Buffer* old = std::exchange(buffer_, std::exchange(other.buffer_, nullptr));
    if (old != nullptr) drop(*old);
    return *this;
  }
  ~BufferRef() {
    if (buffer_ != nullptr) drop(*buffer_);
  }

  void reset() noexcept {
    if (Buffer* buffer = std::exchange(buffer_, nullptr)) drop(*buffer);
  }

  /// For one that is empty.
  void fill(BufferRef&& other) noexcept { buffer_ = std::exchange(other.buffer_, nullptr); }

  /// Gives up the reference without giving the buffer back: somebody else is about to take it.
  Buffer& detach() noexcept {
    Buffer* buffer = std::exchange(buffer_, nullptr);
    --buffer->references_;
    return *buffer;
  }

  Buffer* operator->() const noexcept { return buffer_; }
  Buffer& operator*() const noexcept { return *buffer_; }
  explicit operator bool() const noexcept { return buffer_ != nullptr; }

 private:
  static void drop(Buffer& buffer) noexcept {
    buffer.check_thread();
    if (--buffer.references_ == 0) buffer.owner_->release(buffer);
  }

  Buffer* buffer_ = nullptr;
};

/// The whole size of a buffer, header included, up to which `make_buffer` takes recycled memory.
inline constexpr std::size_t kSmallBuffer = 2048;

/// A capacity for moving large amounts, which `make_buffer` recycles as it does all up to 1 MiB.
inline constexpr std::size_t kBulkBuffer = 512 << 10;

/// A buffer from the heap, of `capacity` bytes. Throws `std::bad_alloc`.
BufferRef make_buffer(std::size_t capacity);

/// `prepare_frame_cache`, and the same for the buffers' own.
void prepare_thread_caches() noexcept;

}  // namespace weir::detail
