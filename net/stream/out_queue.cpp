#include <weir/net/stream/out_queue.h>
#include <weir/net/stream/sending.h>

#include <algorithm>
#include <cstring>

namespace weir::detail {
namespace {

/// The room of a buffer for copies.
constexpr std::size_t kCopyBuffer = kSmallBuffer - sizeof(Buffer);

}  // namespace

void OutQueue::add(BufferRef&& buffer, const Slice& slice) {
  // What waits behind others must not pin much more memory than it has bytes.
  const bool keep =
      buffer && (empty() || slice.data == nullptr ||
                 slice.size > std::max<std::size_t>(kCopyUpTo, buffer->capacity() / 2));
  if (keep) {
    segments_.push_back(Segment{std::move(buffer), slice});
  } else {
    copy(static_cast<const std::byte*>(slice.data), slice.size);
    buffer.reset();
  }
}

void OutQueue::add(OtherMessage& message) {
  const std::string_view bytes = message.view();
  if (bytes.size() <= kCopyUpTo) {
    copy(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
  } else {
    Chunk kept = adopt(std::move(message));
    const Slice slice{kept.data(), kept.size()};
    segments_.push_back(Segment{std::move(kept).release_buffer(), slice});
  }
}

BufferRef OutQueue::copy_of(const void* bytes, std::size_t size) {
  BufferRef buffer = make_buffer(std::max(size, kCopyBuffer));
  std::memcpy(buffer->data(), bytes, size);
  return buffer;
}

bool OutQueue::extend(const std::byte* data, std::size_t size) noexcept {
  if (segments_.size() <= taken_) return false;
  Segment& back = segments_.back();
  const Buffer& last = *back.buffer;
  if (back.is_file() || last.data() == nullptr || last.shared()) return false;
  const std::size_t used = static_cast<std::size_t>(back.data() - last.data()) + back.size();
  if (last.capacity() - used < size) return false;
  std::memcpy(last.data() + used, data, size);
  back.slice.size += size;
  return true;
}

void OutQueue::copy(const std::byte* data, std::size_t size) {
  if (size == 0 || extend(data, size)) return;
  // Never in two parts, so that a failure leaves no half of a message.
  BufferRef buffer = copy_of(data, size);
  const Slice slice{buffer->data(), size};
  segments_.push_back(Segment{std::move(buffer), slice});
}

std::uint32_t OutQueue::take(Slice* to, std::uint32_t most) noexcept {
  most = std::min(most, segments_.size());
  for (taken_ = 0; taken_ < most && !segments_[taken_].is_file(); ++taken_) {
    to[taken_] = segments_[taken_].slice;
  }
  return taken_;
}

void OutQueue::remove(std::size_t count) noexcept {
  taken_ = 0;
  while (count > 0) {
    Segment& first = segments_.front();
    const std::size_t part = std::min(count, first.size());
    first.advance(part);
    count -= part;
    if (first.size() == 0) segments_.pop_front();
  }
}

void OutQueue::clear() noexcept {
  segments_.clear();
  taken_ = 0;
}

}  // namespace weir::detail
