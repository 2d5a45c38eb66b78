#include <weir/core/all_loops.h>
#include <weir/core/event_loop.h>

#include <pthread.h>

namespace weir::detail {

AllLoops& AllLoops::instance() {
  static auto* const all = [] {
    auto* const made = new AllLoops;
    // Whoever forks finds the lock free on both sides; and the child nothing that threads have
    // which are not there.
    ::pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                     [] {
                       while (LoopEntry* entry = instance().entries_.pop_front()) {
                         entry->loop.become_parents();
                       }
                       instance().mutex_.unlock();
                     });
    return made;
  }();
  return *all;
}

void AllLoops::add(LoopEntry& entry) noexcept {
  const std::lock_guard lock(mutex_);
  entries_.push_back(entry);
}

void AllLoops::remove(LoopEntry& entry) noexcept {
  const std::lock_guard lock(mutex_);
  entry.link.unlink();
}

std::uint64_t AllLoops::next_number() noexcept {
  const std::lock_guard lock(mutex_);
  return ++last_number_;
}

void AllLoops::hide(const EventLoop& loop) noexcept {
  const std::lock_guard lock(mutex_);
  for (LoopEntry* entry = entries_.front(); entry != nullptr; entry = entries_.after(*entry)) {
    if (&entry->loop == &loop) entry->hidden = true;
  }
}

void AllLoops::for_each(const std::function<void(EventLoop&, std::uint64_t)>& function) {
  const std::lock_guard lock(mutex_);
  for (LoopEntry* entry = entries_.front(); entry != nullptr; entry = entries_.after(*entry)) {
    if (!entry->hidden) function(entry->loop, entry->number);
  }
}

}  // namespace weir::detail
