#include <weir/net/server/presence.h>

namespace weir::detail {

Task<> Presence::all_gone(std::shared_ptr<Presence> self) {
  while (!self->nobody()) {
    self->gone_.reset();
    // Weak: it may never be sent, and belongs to what it refers to.
    const auto note = [weak = std::weak_ptr(self)] {
      if (const auto here = weak.lock()) here->gone_.set();
    };
    delete self->note_.exchange(new PostedFunction<std::decay_t<decltype(note)>>(note));
    if (self->nobody()) break;  // it may have gone before there was a note
    co_await self->gone_.wait();
  }
}

}  // namespace weir::detail
