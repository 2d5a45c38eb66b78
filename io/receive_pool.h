#pragma once

#include <weir/core/assert.h>
#include <weir/core/buffer.h>
#include <weir/io/sanitizer.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace weir::detail {

/// Receive buffers of one loop: address space for all that the options allow is reserved at once,
/// memory is used only by the buffers made so far. Free buffers are the engine's to hand out;
/// those with a reference are out on lease. Outlives its engine for as long as leases do.
class ReceivePool : public BufferOwner {
 public:
  /// Made at once, to begin with.
  static constexpr std::size_t kFirst = 64;

  /// Throws `std::bad_alloc` where the address space cannot be had.
  ReceivePool(std::size_t buffer_size, std::size_t most);
  ReceivePool(const ReceivePool&) = delete;
  ReceivePool& operator=(const ReceivePool&) = delete;

  /// The buffer goes out: its first reference is about to be taken.
  Buffer& lend(std::uint32_t id) noexcept {
    WEIR_ASSERT(header(id)->unused());
    ++leased_;
    unpoison(data_of(id), buffer_size_);
    header(id)->belong_here();
    header(id)->set_read_at(0);
    return *header(id);
  }

  /// The same for a buffer with `used` bytes in it; but when half of all that may be are out, the
  /// bytes are copied to the heap instead and the buffer is free at once. So leases that are
  /// kept, by users or in the queues of peers that do not read, never stop the others' receiving.
  Buffer& lend_or_copy(std::uint32_t id, std::size_t used) noexcept {
    return leased_ < most_lent_ ? lend(id) : copy_out(id, used);
  }

  /// Makes up to `count` more buffers; gives how many it made. Their ids are the highest.
  std::size_t grow(std::size_t count) noexcept;

  [[nodiscard]] std::byte* data_of(std::uint32_t id) const noexcept {
    return data_ + std::size_t{id} * stride_;
  }
  [[nodiscard]] std::size_t buffer_size() const noexcept { return buffer_size_; }
  [[nodiscard]] std::size_t made() const noexcept { return made_; }
  [[nodiscard]] std::size_t most() const noexcept { return most_; }
  [[nodiscard]] std::size_t leased() const noexcept { return leased_; }
  [[nodiscard]] bool counts_leases() const noexcept override { return true; }
  void for_each_lease(void* context, void (*visit)(void*, const Buffer&)) const {
    for (std::uint32_t id = 0; id < made_; ++id) {
      if (!header(id)->unused()) visit(context, *header(id));
    }
  }

  /// Called by the engine in place of a destructor: the pool goes with its last lease.
  void retire() noexcept;

 protected:
  virtual ~ReceivePool();

  /// To be called first by `release`. False if the buffer is not wanted any more, and then this
  /// object may be gone.
  [[nodiscard]] bool returned(const Buffer& buffer) noexcept {
    --leased_;
    if (retired_) [[unlikely]] {
      go_with_last_lease();
      return false;
    }
    poison(buffer.data(), buffer_size_);
    return true;
  }

 private:
  [[gnu::noinline]] void go_with_last_lease() noexcept {
    if (leased_ == 0) delete this;
  }
  Buffer& copy_out(std::uint32_t id, std::size_t used) noexcept;
  [[nodiscard]] Buffer* header(std::uint32_t id) const noexcept { return headers_ + id; }

  std::size_t buffer_size_;
  std::size_t stride_;
  std::size_t most_;
  std::size_t most_lent_;
  std::size_t made_ = 0;
  std::size_t leased_ = 0;
  bool retired_ = false;
  std::byte* data_;
  Buffer* headers_;
};

/// Free buffers as a stack: the one that came back last is still in the cache.
class FreeListPool : public ReceivePool {
 public:
  FreeListPool(std::size_t buffer_size, std::size_t most) : ReceivePool(buffer_size, most) {
    free_.reserve(most);
  }

  /// Whether there is a free buffer; makes more if there is none, as many again as there are.
  [[nodiscard]] bool has_free() noexcept { return !free_.empty() || make_more(); }

  /// The kernel's from now on, until it is lent or given back.
  [[nodiscard]] std::uint32_t take() noexcept {
    const std::uint32_t id = free_.back();
    free_.pop_back();
    unpoison(data_of(id), buffer_size());
    return id;
  }
  void give_back(std::uint32_t id) noexcept {
    poison(data_of(id), buffer_size());
    free_.push_back(id);  // there is room for all
  }

  void release(Buffer& buffer) noexcept override { put_back(buffer); }

 protected:
  /// False if this object may be gone.
  bool put_back(const Buffer& buffer) noexcept {
    const bool wanted = returned(buffer);
    if (wanted) free_.push_back(buffer.id());
    return wanted;
  }
  ~FreeListPool() override = default;

 private:
  bool make_more() noexcept;

  std::vector<std::uint32_t> free_;
};

}  // namespace weir::detail
