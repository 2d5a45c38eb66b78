#pragma once

#include <weir/core/engine.h>
#include <weir/io/random.h>
#include <weir/io/sim/faults.h>
#include <weir/io/sim/tape.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

namespace weir::sim::detail {

class Journal;

using weir::detail::Random;

/// All that a world leaves to chance. Each kind has a stream of its own, by the seed; where there
/// is a tape, it has the last word.
class Chance {
 public:
  Chance(std::uint64_t seed, const Faults& faults, const TimePoint& now, Journal& journal);

  [[nodiscard]] std::uint64_t seed_of(std::uint64_t stream) const noexcept;

  /// Whether this fault hits now on this machine.
  bool hit(Fault fault, std::size_t host);
  void inject(Fault fault, std::size_t host, std::size_t times);
  /// How much of it, 0 to `limit` - 1: to be asked after each time that it may have hit. It counts
  /// only if it has.
  std::uint64_t extent(Fault fault, std::size_t host, bool has_hit, std::uint64_t limit) {
    const std::uint64_t drawn = shapes_.below(limit);
    if (tape_ == nullptr || !has_hit) [[likely]]
      return drawn;
    return tape_->extent_of(fault, host, drawn, limit, now_);
  }
  /// Whether the user's code does what it rarely does.
  bool buggify(double probability, std::size_t host);
  /// From now on nothing goes wrong.
  void stop_faults();
  [[nodiscard]] std::uint64_t hits(Fault fault) const noexcept {
    return hits_[static_cast<std::size_t>(fault)];
  }

  /// The order of what happens at once.
  std::uint64_t order(std::size_t host) {
    const std::uint64_t drawn = scheduling_.next() >> 1;
    if (tape_ == nullptr) [[likely]]
      return drawn;
    return tape_->choose(ChoiceKind::order, host, 0, drawn, ++in_order_, now_);
  }
  std::uint64_t port(std::size_t host, std::uint64_t count) {
    return std::min(choose(ChoiceKind::port, host, 0, ports_.below(count), 0), count - 1);
  }
  /// How late a segment is, up to that much, and how often it is lost. `draw_delay` is asked for
  /// each, also where its answer does not matter.
  std::uint64_t draw_delay() noexcept { return delays_.next(); }
  bool draw_loss(double probability) noexcept { return losses_.chance(probability); }
  /// What was drawn, or what the tape of this world has in its place.
  std::uint64_t choose(ChoiceKind kind, std::size_t from, std::size_t to, std::uint64_t drawn,
                       std::uint64_t usual) {
    if (tape_ == nullptr) [[likely]]
      return drawn;
    return tape_->choose(kind, from, to, drawn, usual, now_);
  }
  /// Before anything happens. The tape outlives this.
  void use(Tape* tape) noexcept { tape_ = tape; }
  [[nodiscard]] const Tape* tape() const noexcept { return tape_; }
  [[nodiscard]] const Faults& faults() const noexcept { return probable_; }

 private:
  std::uint64_t seed_;
  Faults probable_;
  const TimePoint& now_;
  Journal& journal_;
  Random delays_;
  Random losses_;
  Random faults_;
  Random shapes_;
  Random scheduling_;
  Random ports_;
  Random quirks_;
  Tape* tape_ = nullptr;
  std::uint64_t in_order_ = 0;
  bool faults_stopped_ = false;
  std::array<std::uint64_t, kFaults> hits_{};
  std::map<std::pair<std::size_t, std::size_t>, std::size_t> injected_;
};

}  // namespace weir::sim::detail
