#pragma once

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

namespace weir::sim::detail {

/// Bytes in order: appended at the end, taken from the front.
class ByteQueue {
 public:
  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size() - head_; }
  [[nodiscard]] std::string_view view() const noexcept {
    return std::string_view(bytes_).substr(head_);
  }
  void append(std::string_view bytes) { bytes_.append(bytes); }
  void remove(std::size_t count) {
    constexpr std::size_t kMostRemoved = 64 << 10;
    head_ += count;
    if (head_ != bytes_.size() && head_ <= kMostRemoved) return;
    bytes_.erase(0, head_);
    head_ = 0;
  }
  void clear() noexcept {
    bytes_.clear();
    head_ = 0;
  }

 private:
  std::string bytes_;
  std::size_t head_ = 0;  // those before it are gone
};

}  // namespace weir::sim::detail
