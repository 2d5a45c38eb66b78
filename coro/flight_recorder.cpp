#include <weir/coro/flight_recorder.h>

#include <algorithm>

namespace weir::detail {

std::size_t FlightRecorder::take_last(std::span<Event> into) const noexcept {
  const std::uint64_t end = end_.load(std::memory_order_acquire);
  const std::uint64_t begin = end - std::min<std::uint64_t>({end, into.size(), kEvents});
  for (std::uint64_t i = begin; i != end; ++i) {
    std::uint64_t* const event = &words_[2 * (i % kEvents)];
    const std::uint64_t head = std::atomic_ref(event[0]).load(std::memory_order_acquire);
    into[i - begin] = {static_cast<Kind>(head & 0xff), static_cast<std::uint32_t>(head >> 32),
                       static_cast<std::uint32_t>(head >> 8 & 0xffffff),
                       std::atomic_ref(event[1]).load(std::memory_order_acquire)};
  }
  // One more than are counted may have been begun.
  const std::uint64_t now = end_.load(std::memory_order_relaxed) + 1;
  const std::uint64_t oldest = now > kEvents ? now - kEvents : 0;
  const std::uint64_t whole = std::min(std::max(oldest, begin), end);
  std::copy(into.begin() + static_cast<std::ptrdiff_t>(whole - begin),
            into.begin() + static_cast<std::ptrdiff_t>(end - begin), into.begin());
  return end - whole;
}

}  // namespace weir::detail
