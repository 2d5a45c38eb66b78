#include <weir/io/sim/world_impl.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>
#include <vector>

namespace weir::sim {
namespace {

constexpr std::size_t kMostLines = 12;

/// What happened most in the time that the condition had, for a run that goes round in circles.
std::string tell_counts(const std::vector<std::unique_ptr<Host>>& hosts,
                        const EventCounts& counts) {
  std::vector<std::pair<std::uint64_t, std::string>> lines;
  lines.reserve(counts.size());
  for (const auto& [event, count] : counts) {
    lines.emplace_back(count, hosts[event.first]->name() + ": " + event.second);
  }
  std::sort(lines.begin(), lines.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  if (lines.empty()) return ", in which nothing happened";
  std::string text = ", in which happened, most of all,";
  for (std::size_t i = 0; i < std::min(lines.size(), kMostLines); ++i) {
    text += "\n    " + std::to_string(lines[i].first) + " x  " + lines[i].second;
  }
  return text;
}

}  // namespace

void World::heal_and_expect(const std::function<bool()>& condition,
                            std::chrono::nanoseconds limit) {
  heal();
  impl_->network.stop_faults();
  for (const auto& host : impl_->hosts) host->resume();
  EventCounts counts;
  const Journal::Counted counted(impl_->network.journal, counts);
  const TimePoint end = after(impl_->network.now(), limit);
  const std::string healed = "after all faults have stopped the condition of heal_and_expect does ";
  for (std::uint64_t steps = 0; !condition(); ++steps) {
    if (impl_->network.empty()) {
      impl_->give_up(healed + "not come true, and nothing is left to happen" +
                     tell_counts(impl_->hosts, counts));
    }
    if (impl_->network.next() > end || steps > impl_->network.options().most_steps) {
      impl_->network.advance_to(std::min(impl_->network.next(), end));
      char seconds[64];
      std::snprintf(seconds, sizeof seconds, "%.3f", std::chrono::duration<double>(limit).count());
      impl_->give_up(healed + "not come true within " + seconds + " s" +
                     tell_counts(impl_->hosts, counts));
    }
    impl_->step();
  }
}

}  // namespace weir::sim
