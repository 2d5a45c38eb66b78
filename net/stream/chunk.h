#pragma once

#include <weir/core/buffer.h>

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string_view>
#include <utility>

#if defined(__clang__)
#define WEIR_LIFETIMEBOUND [[clang::lifetimebound]]
#else
#define WEIR_LIFETIMEBOUND
#endif

namespace weir {

/// A move-only lease on received bytes, which stay where the kernel put them until the last lease
/// on their buffer is gone. May outlive the connection, not the loop, whose thread it stays on.
class Chunk {
 public:
  /// Empty: no bytes, no lease.
  Chunk() noexcept = default;
  Chunk(detail::BufferRef buffer, const std::byte* data, std::size_t size) noexcept
      : buffer_(std::move(buffer)), data_(data), size_(size) {}
  Chunk(Chunk&& other) noexcept
      : buffer_(std::move(other.buffer_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  Chunk& operator=(Chunk&& other) noexcept {
    buffer_ = std::move(other.buffer_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  /// What a read gives at the end of the stream.
  [[nodiscard]] static Chunk end() noexcept { return Chunk(detail::BufferRef(), &kEnd, 0); }

  [[nodiscard]] const std::byte* data() const noexcept WEIR_LIFETIMEBOUND { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  explicit operator bool() const noexcept { return size_ != 0; }
  /// True for the end of the stream alone: an empty chunk may also be what was asked for.
  [[nodiscard]] bool is_end() const noexcept { return data_ == &kEnd; }

  [[nodiscard]] std::string_view view() const noexcept WEIR_LIFETIMEBOUND {
    return {reinterpret_cast<const char*>(data_), size_};
  }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept WEIR_LIFETIMEBOUND {
    return {data_, size_};
  }

  /// A second lease on `length` bytes from `offset` on, or as many as there are. Throws
  /// `std::out_of_range` for an offset past the end.
  [[nodiscard]] Chunk slice(std::size_t offset,
                            std::size_t length = static_cast<std::size_t>(-1)) const {
    if (offset > size_) throw std::out_of_range("weir: Chunk::slice: offset is past the end");
    const std::size_t left = size_ - offset;
    return Chunk(buffer_, data_ + offset, length < left ? length : left);
  }

  /// Gives the lease away.
  [[nodiscard]] detail::BufferRef release_buffer() && noexcept {
    data_ = nullptr;
    size_ = 0;
    return std::move(buffer_);
  }

 private:
  static constexpr std::byte kEnd{};

  detail::BufferRef buffer_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace weir
