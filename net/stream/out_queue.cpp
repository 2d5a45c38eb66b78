#include <weir/net/stream/out_queue.h>
#include <weir/net/stream/sending.h>

#include <algorithm>
#include <cstring>

namespace weir::detail {
namespace {

/// Up to this size a copy behind what is queued is cheaper than a segment of its own.
constexpr std::size_t kCopyUpTo = 512;
/// The data of a recycled buffer for copies.
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
  std::visit(
      [this](auto& bytes) {
        if (bytes.size() <= kCopyUpTo) {
          copy(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
        } else {
          Chunk kept = adopt(std::move(bytes));
          const Slice slice{kept.data(), kept.size()};
          segments_.push_back(Segment{std::move(kept).release_buffer(), slice});
        }
      },
      message);
}

void OutQueue::copy(const std::byte* data, std::size_t size) {
  if (size == 0) return;
  if (!copy_buffer_ || copy_buffer_->capacity() - copied_ < size) {
    // Never in two parts, so that a failure leaves no half of a message.
    copy_buffer_ = make_buffer(std::max(size, kCopyBuffer));
    copied_ = 0;
  }
  std::byte* to = copy_buffer_->data() + copied_;
  const bool extends = segments_.size() > taken_ && !segments_.back().is_file() &&
                       segments_.back().data() + segments_.back().size() == to;
  if (extends) {
    segments_.back().slice.size += size;
  } else {
    segments_.push_back(Segment{copy_buffer_, {to, size}});
  }
  std::memcpy(to, data, size);
  copied_ += static_cast<std::uint32_t>(size);
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
  if (empty()) {
    copy_buffer_.reset();
    copied_ = 0;
  }
}

void OutQueue::clear() noexcept {
  segments_.clear();
  copy_buffer_.reset();
  taken_ = 0;
}

}  // namespace weir::detail
