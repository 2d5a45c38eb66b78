#include <weir/core/event_loop.h>
#include <weir/core/survey.h>
#include <weir/coro/place.h>

#include <pthread.h>

#include <string_view>

namespace weir::detail {
namespace {

/// A report is to be read by somebody; one of this many lines takes a loop some milliseconds.
constexpr std::size_t kMostLines = 100'000;
/// Of what stands deeper, the end of each chain alone is shown: where it waits. Nobody reads more,
/// and the indents of all would be the square of that.
constexpr std::size_t kDeepest = 256;

/// Whether the coroutine is one of the library's own helpers, which only hand on what they await.
bool only_hands_on(std::string_view file) noexcept {
  for (const std::string_view own :
       {"coro/task.h", "coro/branch.h", "coro/take_result.h", "core/event_loop.h", "core/on.h",
        "io/sim/host.cpp", "io/sim/drop.cpp", "io/sim/world.h"}) {
    if (file.ends_with(own)) return true;
  }
  return false;
}

class Walker {
 public:
  Walker(LoopReport& report, std::uint32_t now) noexcept : report_(report), now_(now) {}

  void walk_below(Scope& scope, std::size_t depth) {
    if (depth > kDeepest) {
      report_.tasks_cut = true;
      return;
    }
    std::vector<Scope*> children;  // they are listed with the latest first
    for (Scope* child = scope.first_below(); child != nullptr; child = child->next()) {
      children.push_back(child);
    }
    for (auto child = children.rbegin(); child != children.rend(); ++child) {
      if (full()) {
        report_.tasks_cut = true;
        return;
      }
      if ((*child)->kind() == Scope::Kind::group) {
        walk_below(**child, depth);
      } else {
        const std::size_t below = walk_chain(Root::of(**child).place(), depth, *child);
        walk_below(**child, below);
      }
    }
  }

 private:
  [[nodiscard]] bool full() const noexcept { return report_.tasks.size() == kMostLines; }

  /// Gives the depth of what stands below the last.
  std::size_t walk_chain(const Place* place, std::size_t depth, Scope* scope) {
    const Scope* own = scope;
    for (; place != nullptr; place = place->awaited()) {
      if (depth >= kDeepest && place->awaited() != nullptr) {
        report_.tasks_cut = true;
        continue;
      }
      const Several* several = place->several();
      const bool hands_on = only_hands_on(place->where().file_name());
      if (!hands_on || (place->awaited() == nullptr && several == nullptr)) {
        if (full()) {
          report_.tasks_cut = true;
          return depth;
        }
        report_.tasks.push_back({depth++, hands_on ? std::source_location() : place->where(),
                                 place->words(), now_ - scope->ran_ms(), own != nullptr, own});
        own = nullptr;
      }
      if (several != nullptr) walk_branches(*several, depth);
    }
    return depth;
  }

  void walk_branches(const Several& several, std::size_t depth) {
    depth_ = depth;
    several.each(this, [](void* context, std::size_t, const Place& place, Scope& scope) {
      auto& self = *static_cast<Walker*>(context);
      const std::size_t at = self.depth_;
      if (at <= kDeepest) {
        self.walk_below(scope, self.walk_chain(&place, at, &scope));
      } else {
        self.report_.tasks_cut = true;
      }
      self.depth_ = at;
    });
  }

  LoopReport& report_;
  std::uint32_t now_;
  std::size_t depth_ = 0;
};

}  // namespace

void survey_tasks(EventLoop& loop, LoopReport& report) {
  Walker(report, loop.machine().clock_ms()).walk_below(loop.top_scope(), 0);
}

AllLoops& AllLoops::instance() {
  static auto* const all = [] {
    auto* const made = new AllLoops;
    // Whoever forks finds the lock free on both sides.
    ::pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                     [] { instance().mutex_.unlock(); });
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
