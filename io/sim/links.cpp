#include <weir/io/sim/chance.h>
#include <weir/io/sim/endpoint.h>
#include <weir/io/sim/links.h>

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace weir::sim::detail {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kMostLosses = 10;  // of a segment: the last pause is `kMostRetry` or less
static_assert(kFirstRetry * (1 << (kMostLosses - 1)) < kMostRetry);
static_assert(kFirstRetry * (1 << kMostLosses) >= kMostRetry);

}  // namespace

Links::Links(const Faults& faults) noexcept
    : default_{.latency = faults.latency,
               .jitter = faults.jitter,
               .bandwidth = faults.bandwidth,
               .loss = faults.loss} {}

Links::Wire& Links::wire(std::size_t from, std::size_t to) {
  return wires_.try_emplace({from, to}, Wire{.link = default_}).first->second;
}

const Link& Links::of(std::size_t from, std::size_t to) const {
  const auto found = wires_.find({from, to});
  return found != wires_.end() ? found->second.link : default_;
}

bool Links::is_cut(std::size_t from, std::size_t to) const {
  const auto found = wires_.find({from, to});
  return found != wires_.end() && found->second.is_cut;
}

void Links::lose_nothing() {
  default_.loss = 0;
  for (auto& [hosts, wire] : wires_) wire.link.loss = 0;
}

TimePoint Links::arrival(Chance& chance, TimePoint now, std::size_t from, std::size_t to,
                         std::size_t bytes) {
  const std::uint64_t drawn = chance.draw_delay();
  if (from == to) return after(now, 10us);  // loopback
  Wire& way = wire(from, to);
  TimePoint leaves = now;
  if (way.link.bandwidth > 0) {
    leaves = std::max(leaves, way.busy_until);
    const auto seconds = std::chrono::nanoseconds(
        static_cast<std::int64_t>(bytes * 1'000'000'000 / way.link.bandwidth));
    leaves += seconds;
    way.busy_until = leaves;
  }
  Duration delay = way.link.latency;
  if (way.link.jitter > Duration::zero()) {
    const auto longest = static_cast<std::uint64_t>(way.link.jitter.count());
    const std::uint64_t late = chance.choose(ChoiceKind::delay, from, to, drawn % (longest + 1), 0);
    delay += Duration(static_cast<std::int64_t>(std::min(late, longest)));
  }
  std::uint64_t losses = 0;
  while (chance.draw_loss(way.link.loss) && losses < kMostLosses) ++losses;
  losses = std::min(chance.choose(ChoiceKind::loss, from, to, losses, 0), kMostLosses);
  delay += kFirstRetry * ((1 << losses) - 1);  // each pause is twice the one before
  return after(leaves, delay);
}

}  // namespace weir::sim::detail
