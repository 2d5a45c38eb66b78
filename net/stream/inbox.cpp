#include <weir/net/stream/inbox.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace weir::detail {
namespace {

/// Up to this size a copy behind what is there is cheaper than a segment of its own.
constexpr std::size_t kCopyUpTo = 512;
/// What lies in a large buffer is copied out if it is smaller than this.
constexpr std::size_t kBulkPays = 8192;

/// The same as `Inbox::find` from `start` on, where what is looked for may lie across pieces.
[[gnu::noinline]] std::size_t find_across(SegmentQueue& segments, std::string_view delimiter,
                                          std::size_t start, std::size_t limit) {
  std::size_t base = 0;  // where the piece begins
  for (std::uint32_t i = 0; i < segments.size() && base < limit; base += segments[i].size(), ++i) {
    const Segment& piece = segments[i];
    const std::size_t end = std::min(base + piece.size(), limit);
    while (start < end) {
      const auto* from = piece.data() + (start - base);
      const void* hit = std::memchr(from, delimiter.front(), end - start);
      if (hit == nullptr) break;
      start = base + static_cast<std::size_t>(static_cast<const std::byte*>(hit) - piece.data());
      if (start + delimiter.size() > limit) break;
      // The rest may lie in the next pieces.
      std::size_t matched = 1;
      std::size_t at = start + 1 - base;
      for (std::uint32_t j = i; matched < delimiter.size(); ++matched, ++at) {
        while (at >= segments[j].size()) at = 0, ++j;
        if (static_cast<char>(segments[j].data()[at]) != delimiter[matched]) break;
      }
      if (matched == delimiter.size()) return start + matched;
      ++start;
    }
    start = std::max(start, end);
  }
  return 0;
}

}  // namespace

void Inbox::wait_slowly(Reader& reader) {
  if (reader_ != nullptr) {
    throw std::logic_error("weir: another read is already waiting on this connection");
  }
  reader_ = &reader;
  if (!flowing_) source_.input_wanted();
  if (unread_ > 0 || at_end()) wake_reader();  // it may have all that it wants: others go first
}

void Inbox::wake_reader() noexcept {
  if (!reader_waits()) return;
  if (reader_is_patient_ && !at_end()) {
    PatientReader& patient = *static_cast<PatientReader*>(reader_);
    if (!patient.satisfied(patient)) return;
  }
  reader_->waiter.wake();
}

Chunk Inbox::take_first() noexcept {
  if (unread_ == 0) return {};
  Segment first = std::move(segments_.front());
  segments_.pop_front();
  consumed(first.size());
  return Chunk(std::move(first.buffer), first.data(), first.size());
}

Chunk Inbox::take_most(std::size_t most) noexcept {
  if (unread_ == 0) return {};
  Segment& front = segments_.front();
  if (front.size() <= most) return take_some();
  Chunk chunk(front.buffer, front.data(), most);
  front.advance(most);
  consumed(most);
  return chunk;
}

Chunk Inbox::take_exactly(std::size_t count) {
  if (count == 0) return {};
  if (count == unread_ && segments_.size() == 1) return take_some();
  if (segments_.front().size() >= count) return take_most(count);
  BufferRef whole = make_buffer(count);
  for (std::size_t copied = 0; copied < count;) {
    Segment& next = segments_.front();
    const std::size_t part = std::min(next.size(), count - copied);
    std::memcpy(whole->data() + copied, next.data(), part);
    copied += part;
    next.advance(part);
    if (next.size() == 0) segments_.pop_front();
  }
  consumed(count);
  const std::byte* data = whole->data();
  return Chunk(std::move(whole), data, count);
}

Chunk Inbox::peek(std::size_t count) {
  if (count == 0) return {};
  Segment& front = segments_.front();
  if (front.size() >= count) return Chunk(front.buffer, front.data(), count);
  BufferRef whole = make_buffer(count);
  std::size_t copied = 0;
  for (std::uint32_t i = 0; copied < count; ++i) {
    const std::size_t part = std::min(segments_[i].size(), count - copied);
    std::memcpy(whole->data() + copied, segments_[i].data(), part);
    copied += part;
  }
  const std::byte* data = whole->data();
  return Chunk(std::move(whole), data, count);
}

std::size_t Inbox::find(std::string_view delimiter, std::size_t most, std::size_t& scanned) {
  const std::size_t limit = std::min(most, unread_);
  if (limit < delimiter.size()) return 0;
  // A delimiter may begin in what was looked at before.
  const std::size_t start = scanned < delimiter.size() ? 0 : scanned - (delimiter.size() - 1);
  std::size_t found = 0;
  if (segments_.size() == 1) [[likely]] {
    const std::string_view piece(reinterpret_cast<const char*>(segments_.only().data()), limit);
    const std::size_t at =
        delimiter.size() == 1 ? piece.find(delimiter.front(), start) : piece.find(delimiter, start);
    if (at != std::string_view::npos) found = at + delimiter.size();
  } else {
    found = find_across(segments_, delimiter, start, limit);
  }
  if (found == 0) scanned = limit;
  return found;
}

Failure Inbox::why_ended() noexcept {
  if (failure_ != 0) return std::exchange(failure_, 0);
  if (end_ == End::closed) return kClosedHere;
  return unread_ == 0 ? 0 : ECONNABORTED;
}

void Inbox::push(BufferRef buffer, const std::byte* data, std::size_t size) {
  if (!segments_.empty() && size <= kCopyUpTo) {
    // So that small pieces do not each pin a buffer.
    Segment& back = segments_.back();
    Buffer& last = *back.buffer;
    const bool own = last.data() != nullptr && !last.shared();
    std::byte* end = own ? last.data() + (back.data() - last.data()) + back.size() : nullptr;
    if (own && static_cast<std::size_t>(last.data() + last.capacity() - end) >= size) {
      std::memcpy(end, data, size);
      back.slice.size += size;
      unread_ += size;
      wake_reader();
      return;
    }
  }
  if (buffer->capacity() >= kBulkBuffer && size < kBulkPays) {
    BufferRef small = make_buffer(size);
    std::memcpy(small->data(), data, size);
    data = small->data();
    buffer = std::move(small);
  }
  if (reader_ != nullptr) buffer->set_read_at(reader_->waiter.place());
  segments_.push_back(Segment{std::move(buffer), {data, size}});
  unread_ += size;
  wake_reader();
}

void Inbox::end() noexcept {
  if (end_ != End::none) return;
  end_ = End::clean;
  flowing_ = false;
  wake_reader();
}

void Inbox::fail(Failure failure, bool here) noexcept {
  if (end_ == End::none) failure_ = failure;
  if (end_ == End::none || here) end_ = here ? End::closed : End::broken;
  flowing_ = false;
  wake_reader();
}

void Inbox::close() noexcept {
  end_ = End::closed;
  flowing_ = false;
  segments_.clear();
  unread_ = 0;
  reader_is_patient_ = false;
  Reader* reader = std::exchange(reader_, nullptr);
  if (reader == nullptr) return;
  reader->inbox = nullptr;
  if (!reader->waiter.linked()) reader->waiter.wake();
}

}  // namespace weir::detail
