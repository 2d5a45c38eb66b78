#pragma once

#include <weir/core/buffer.h>
#include <weir/net/stream/segment_queue.h>
#include <weir/net/stream/shared_bytes.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace weir::detail {

/// The bytes of an outbox: segments, of which the sink may have the first. Small messages that come
/// behind others are copied one behind the other, also into what the last one's buffer has to
/// spare. One thread.
class OutQueue {
 public:
  /// Up to this size a copy is cheaper than a segment of its own.
  static constexpr std::size_t kCopyUpTo = 512;

  /// A buffer with these bytes, and room for some more behind them. Throws `std::bad_alloc`.
  [[nodiscard]] static BufferRef copy_of(const void* bytes, std::size_t size);

  [[nodiscard]] bool empty() const noexcept { return segments_.empty(); }
  [[nodiscard]] bool has_one() const noexcept { return segments_.size() == 1; }
  [[nodiscard]] Segment& front() noexcept { return segments_.front(); }

  /// See `SegmentQueue::leases`.
  std::size_t leases(std::vector<const Buffer*>& into) { return segments_.leases(into); }

  // A message that comes, and goes, alone.
  /// Where its slice is, and will be.
  [[nodiscard]] const Slice& alone() noexcept { return segments_.only().slice; }
  void push_alone(BufferRef&& buffer, const std::byte* data, std::size_t size) noexcept {
    segments_.push_first(std::move(buffer), data, size);
  }
  /// Copies the bytes behind the last segment, where the sink has not taken that and its buffer is
  /// nobody else's and has room. Else false.
  bool extend(const std::byte* data, std::size_t size) noexcept;
  void pop_alone() noexcept { segments_.pop_front(); }
  /// Others are to come, and the sink has it, unless it looks at it once more.
  void keep_alone(bool looks_again) noexcept { taken_ = segments_.empty() || looks_again ? 0 : 1; }

  /// Adds a message, whole or not at all: throws `std::bad_alloc`. It is kept where it is, or
  /// copied where it has no buffer or pins one that is much larger.
  void add(BufferRef&& buffer, const Slice& slice);
  void add(OtherMessage& message);

  /// The sink has the first, `front().slice` or a part of it, which stays unchanged until it has
  /// gone.
  void take_one() noexcept { taken_ = 1; }
  /// The same with the first slices in memory; gives how many.
  std::uint32_t take(Slice* to, std::uint32_t most) noexcept;
  /// Nothing of what was taken has gone.
  void untake() noexcept { taken_ = 0; }
  /// The first bytes have gone.
  void remove(std::size_t count) noexcept;
  /// Gives up what there is, which must not be with anybody.
  void clear() noexcept;

 private:
  void copy(const std::byte* data, std::size_t size);

  [[no_unique_address]] SegmentQueue segments_;  // what follows lies in its padding
  std::uint32_t taken_ = 0;                      // not of a message alone
};

}  // namespace weir::detail
