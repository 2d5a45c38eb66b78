#pragma once

#include <weir/core/buffer.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace weir::detail {

/// A mark in half the room: beyond what is ever queued one is as good as another.
constexpr std::uint32_t mark_of(std::size_t bytes) noexcept {
  constexpr std::size_t kMost = ~std::uint32_t{0};
  return static_cast<std::uint32_t>(bytes < kMost ? bytes : kMost);
}

/// Bytes in a counted buffer. Without bytes, a part of a file: the buffer then says which.
struct Segment {
  BufferRef buffer;
  Slice slice{nullptr, 0};

  [[nodiscard]] const std::byte* data() const noexcept {
    return static_cast<const std::byte*>(slice.data);
  }
  [[nodiscard]] std::size_t size() const noexcept { return slice.size; }
  [[nodiscard]] bool is_file() const noexcept { return slice.data == nullptr; }
  /// Leaves the first bytes out.
  void advance(std::size_t count) noexcept {
    if (slice.data != nullptr) slice.data = data() + count;
    slice.size -= count;
  }
};

/// A FIFO of segments: nearly always there is one at the most, which stands in place. Where there
/// are several, what has all of them stands for its buffer, and its slice stays as it was: the
/// kernel may still look at that.
class SegmentQueue {
 public:
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  [[nodiscard]] std::uint32_t size() const noexcept { return count_; }
  [[nodiscard]] Segment& front() noexcept { return (*this)[0]; }
  [[nodiscard]] Segment& operator[](std::uint32_t index) noexcept {
    return count_ <= 1 ? only_ : one_of_several(index);
  }
  [[nodiscard]] Segment& back() noexcept { return (*this)[count_ - 1]; }

  /// Throws `std::bad_alloc`; the queue is unchanged then.
  void push_back(Segment&& segment) {
    if (count_ == 0) {
      only_ = std::move(segment);
      count_ = 1;
    } else {
      push_behind(std::move(segment));
    }
  }

  /// The same for an empty queue.
  void push_first(BufferRef&& buffer, const std::byte* data, std::size_t size) noexcept {
    only_.buffer.fill(std::move(buffer));
    only_.slice = {data, size};
    count_ = 1;
  }

  /// The one in place; and takes it out, once nothing is left in it.
  [[nodiscard]] Segment& only() noexcept { return only_; }
  void pop_only() noexcept { count_ = 0; }

  void pop_front() noexcept {
    if (count_ == 1) {
      count_ = 0;
      only_.buffer.reset();
    } else {
      pop_before();
    }
  }

  /// Adds the buffers of a receive pool that it keeps, and gives how many these are. Throws
  /// `std::bad_alloc`.
  std::size_t leases(std::vector<const Buffer*>& into);

  void clear() noexcept {
    while (!empty()) pop_front();
  }

 private:
  class Several;

  [[nodiscard]] Several& several() noexcept;
  [[nodiscard]] Segment& one_of_several(std::uint32_t index) noexcept;
  void push_behind(Segment&& segment);
  void pop_before() noexcept;

  Segment only_;
  std::uint32_t count_ = 0;
};

}  // namespace weir::detail
