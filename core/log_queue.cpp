#include <weir/core/log_queue.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace weir::detail {

std::uint64_t LogQueue::take_lost() noexcept { return std::exchange(lost_, 0); }

void LogQueue::push(std::chrono::system_clock::time_point time, logging::Level level,
                    std::string_view text, bool is_json) noexcept {
  const Header header{time, std::min(text.size(), kLongest), level, is_json};
  while (kCapacity - used_ < sizeof header + header.size) {
    Header oldest{};
    get(&oldest, sizeof oldest);
    get(nullptr, oldest.size);
    ++gone_;
    ++lost_;
  }
  put(&header, sizeof header);
  put(text.data(), header.size);
  ++pushed_;
}

LogQueue::Header LogQueue::pop(char* text) noexcept {
  Header header{};
  get(&header, sizeof header);
  get(text, header.size);
  ++gone_;
  return header;
}

void LogQueue::clear() noexcept {
  first_ = used_ = 0;
  gone_ = pushed_;
  lost_ = 0;
}

void LogQueue::put(const void* bytes, std::size_t count) noexcept {
  const std::size_t at = (first_ + used_) % kCapacity;
  const std::size_t before_end = std::min(count, kCapacity - at);
  if (before_end > 0) std::memcpy(ring_ + at, bytes, before_end);
  if (count > before_end) {
    std::memcpy(ring_, static_cast<const char*>(bytes) + before_end, count - before_end);
  }
  used_ += count;
}

/// With nullptr the bytes are left out.
void LogQueue::get(void* bytes, std::size_t count) noexcept {
  const std::size_t before_end = std::min(count, kCapacity - first_);
  if (bytes != nullptr) {
    std::memcpy(bytes, ring_ + first_, before_end);
    std::memcpy(static_cast<char*>(bytes) + before_end, ring_, count - before_end);
  }
  used_ -= count;
  first_ = used_ == 0 ? 0 : (first_ + count) % kCapacity;  // stays where the memory is touched
}

}  // namespace weir::detail
