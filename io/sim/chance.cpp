#include <weir/io/sim/chance.h>
#include <weir/io/sim/journal.h>

namespace weir::sim::detail {

Chance::Chance(std::uint64_t seed, const Faults& faults, const TimePoint& now, Journal& journal)
    : seed_(seed),
      probable_(faults),
      now_(now),
      journal_(journal),
      delays_(seed_of(1)),
      losses_(seed_of(2)),
      faults_(seed_of(3)),
      shapes_(seed_of(4)),
      scheduling_(seed_of(5)),
      ports_(seed_of(6)),
      quirks_(seed_of(8)) {}

std::uint64_t Chance::seed_of(std::uint64_t stream) const noexcept {
  Random mixer(seed_ ^ (stream * 0xd1342543de82ef95));
  return mixer.next();
}

bool Chance::hit(Fault fault, std::size_t host) {
  const double probability = probable_.probability(fault);
  bool hits = faults_.chance(probability);
  bool is_ordered = false;
  if (!injected_.empty()) {
    const auto ordered = injected_.find({host, static_cast<std::size_t>(fault)});
    if (ordered != injected_.end()) {
      hits = is_ordered = true;
      if (--ordered->second == 0) injected_.erase(ordered);
    }
  }
  if (tape_ != nullptr && !faults_stopped_) [[unlikely]]
    hits = tape_->choose_fault(fault, host, hits, is_ordered, now_);
  if (hits) {
    ++hits_[static_cast<std::size_t>(fault)];
    journal_.trace(host, name_of(fault), -1, 0);
  }
  return hits;
}

void Chance::inject(Fault fault, std::size_t host, std::size_t times) {
  if (times > 0 && !faults_stopped_) injected_[{host, static_cast<std::size_t>(fault)}] += times;
}

bool Chance::buggify(double probability, std::size_t host) {
  const bool drawn = quirks_.chance(probability);
  const bool is_true = choose(ChoiceKind::buggify, host, 0, drawn ? 1 : 0, 0) != 0;
  if (is_true) journal_.trace(host, "buggify", -1, 0);
  return is_true;
}

void Chance::stop_faults() {
  faults_stopped_ = true;
  injected_.clear();
  probable_ = Faults::none();
}

}  // namespace weir::sim::detail
