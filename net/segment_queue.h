#pragma once

#include <weir/core/engine.h>
#include <weir/core/small_queue.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace weir {

/// Bytes in a counted buffer. Without `data`, a part of a file (see `FileSource`).
struct Segment {
  BufferRef buffer;
  const std::byte* data = nullptr;
  std::size_t size = 0;

  /// Data and size as what an engine sends.
  [[nodiscard]] const Slice* slice() const noexcept {
    static_assert(offsetof(Segment, size) - offsetof(Segment, data) == offsetof(Slice, size));
    return reinterpret_cast<const Slice*>(&data);
  }
};

/// A FIFO of segments whose first stands in place: nearly always it is the only one.
class SegmentQueue {
 public:
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  [[nodiscard]] std::uint32_t size() const noexcept { return count_; }
  [[nodiscard]] Segment& front() noexcept { return first_; }
  [[nodiscard]] Segment& operator[](std::uint32_t index) noexcept {
    return index == 0 ? first_ : (*rest_)[index - 1];
  }
  [[nodiscard]] Segment& back() noexcept { return (*this)[count_ - 1]; }

  /// Throws `std::bad_alloc`; the queue is unchanged then.
  void push_back(Segment&& segment) {
    if (count_ == 0) {
      first_ = std::move(segment);
      count_ = 1;
    } else {
      push_behind(std::move(segment));
    }
  }

  /// The same for an empty queue.
  void push_first(BufferRef&& buffer, const std::byte* data, std::size_t size) noexcept {
    ::new (&first_.buffer) BufferRef(std::move(buffer));  // there was none
    first_.data = data;
    first_.size = size;
    count_ = 1;
  }

  void pop_front() noexcept {
    if (count_ == 1) {
      count_ = 0;
      first_.buffer.reset();
    } else {
      pop_before();
    }
  }

  void clear() noexcept {
    while (!empty()) pop_front();
  }

 private:
  struct Rest : SmallQueue<Segment>, FrameAllocated {};

  [[gnu::noinline]] void push_behind(Segment&& segment) {
    if (rest_ == nullptr) rest_ = std::make_unique<Rest>();
    rest_->push_back(std::move(segment));
    ++count_;
  }

  [[gnu::noinline]] void pop_before() noexcept {
    first_ = std::move(rest_->front());
    rest_->pop_front();
    if (--count_ == 1) rest_.reset();
  }

  Segment first_;
  std::unique_ptr<Rest> rest_;
  std::uint32_t count_ = 0;
};

}  // namespace weir
