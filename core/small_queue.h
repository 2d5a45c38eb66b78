#pragma once

#include <weir/coro/frame_allocator.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace weir::detail {

/// A FIFO that keeps one item in place and more on the heap, which it gives back when it is empty:
/// what idles costs nothing.
template <class T>
class SmallQueue {
 public:
  SmallQueue() noexcept {}  // NOLINT(modernize-use-equals-default): the storage has no item
  SmallQueue(const SmallQueue&) = delete;
  SmallQueue& operator=(const SmallQueue&) = delete;
  ~SmallQueue() { clear(); }

  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] T& front() noexcept { return items()[first_]; }
  [[nodiscard]] T& back() noexcept { return (*this)[size_ - 1]; }
  [[nodiscard]] T& operator[](std::size_t index) noexcept {
    return items()[(first_ + index) & (capacity_ - 1)];
  }

  /// Throws `std::bad_alloc`; else the next item does not lack memory.
  void make_room() {
    if (size_ == capacity_) grow();
  }

  /// Throws `std::bad_alloc`; the queue is unchanged then.
  void push_back(T item) {
    make_room();
    new (items() + ((first_ + size_) & (capacity_ - 1))) T(std::move(item));
    ++size_;
  }

  void push_front(T item) {
    make_room();
    first_ = (first_ + capacity_ - 1) & (capacity_ - 1);
    new (items() + first_) T(std::move(item));
    ++size_;
  }

  void pop_front() noexcept {
    front().~T();
    first_ = (first_ + 1) & (capacity_ - 1);
    if (--size_ == 0) shrink();
  }

  void clear() noexcept {
    while (size_ > 0) pop_front();
  }

 private:
  [[nodiscard]] T* items() noexcept { return capacity_ == 1 ? &storage_.item : storage_.heap; }

  void grow() {
    const std::uint32_t capacity = capacity_ == 1 ? 8 : capacity_ * 2;
    T* larger = static_cast<T*>(allocate_frame(capacity * sizeof(T)));
    for (std::uint32_t i = 0; i < size_; ++i) {
      T& item = (*this)[i];
      new (larger + i) T(std::move(item));
      item.~T();  // NOLINT(bugprone-use-after-move): moved from, and still to be ended
    }
    if (capacity_ > 1) free_frame(storage_.heap, capacity_ * sizeof(T));
    storage_.heap = larger;
    capacity_ = capacity;
    first_ = 0;
  }

  void shrink() noexcept {
    first_ = 0;
    if (capacity_ == 1) return;
    free_frame(storage_.heap, capacity_ * sizeof(T));
    capacity_ = 1;
  }

  union Storage {
    Storage() noexcept {}
    ~Storage() {}
    T item;
    T* heap;
  };

  Storage storage_;
  std::uint32_t capacity_ = 1;
  std::uint32_t first_ = 0;
  std::uint32_t size_ = 0;
};

}  // namespace weir::detail
