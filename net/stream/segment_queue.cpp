#include <weir/core/small_queue.h>
#include <weir/net/stream/segment_queue.h>

namespace weir::detail {

class SegmentQueue::Several final : public Buffer,
                                    public SmallQueue<Segment>,
                                    public FrameAllocated {
 public:
  Several() noexcept : Buffer(owner(), nullptr, 0, 0) {}

 private:
  struct Owner final : BufferOwner {
    void release(Buffer& buffer) noexcept override { delete static_cast<Several*>(&buffer); }
  };
  static Owner& owner() noexcept {
    static constinit Owner instance;
    return instance;
  }
};

SegmentQueue::Several& SegmentQueue::several() noexcept {
  return static_cast<Several&>(*only_.buffer);
}

Segment& SegmentQueue::one_of_several(std::uint32_t index) noexcept { return several()[index]; }

void SegmentQueue::push_behind(Segment&& segment) {
  if (count_ == 1) {
    auto* const made = new Several;
    BufferRef both(*made);
    made->push_back(std::move(segment));
    made->make_room();
    made->push_front(Segment{std::move(only_.buffer), only_.slice});
    only_.buffer = std::move(both);
  } else {
    several().push_back(std::move(segment));
  }
  ++count_;
}

void SegmentQueue::pop_before() noexcept {
  several().pop_front();
  if (--count_ > 1) return;
  Segment last = std::move(several().front());
  only_ = std::move(last);
}

std::size_t SegmentQueue::leases(std::vector<const Buffer*>& into) {
  std::size_t count = 0;
  const Buffer* last = nullptr;  // several segments in a row may be of one
  for (std::uint32_t i = 0; i < count_; ++i) {
    const BufferRef& buffer = (*this)[i].buffer;
    const Buffer* const one = buffer ? &*buffer : nullptr;
    if (one != nullptr && one != last && one->is_lease()) {
      into.push_back(one);
      ++count;
    }
    last = one;
  }
  return count;
}

}  // namespace weir::detail
