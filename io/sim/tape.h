#pragma once

#include <weir/core/engine.h>
#include <weir/io/sim/faults.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace weir::sim::detail {

/// What chance can decide. The faults come first, with their own numbers.
enum class ChoiceKind : std::uint8_t {
  delay = 32,  // of a segment, nanoseconds above the least
  loss,        // of a segment: how often it is sent again
  extent,      // of a fault that was ordered
  order,       // of completions that come at once
  port,        // of a connect
  number,      // of `World::random`
  dice,        // a number of a host's library
  buggify,
};

/// One decision of chance that is not the usual one: no fault, no delay, in order, 0.
struct Choice {
  ChoiceKind kind{};
  std::uint16_t from = 0;     // host
  std::uint16_t to = 0;       // the other one, or a fault
  std::uint32_t ordinal = 0;  // among those of the same kind and hosts
  std::uint64_t value = 0;
  TimePoint at{};  // when it was made: for people

  [[nodiscard]] std::uint64_t key() const noexcept {
    return (std::uint64_t{static_cast<std::uint8_t>(kind)} << 32) | (std::uint64_t{from} << 16) |
           to;
  }
  /// What goes wrong in the network or the system; else a number of no meaning by itself.
  [[nodiscard]] bool is_fault() const noexcept {
    return static_cast<std::size_t>(kind) < kFaults || kind == ChoiceKind::delay ||
           kind == ChoiceKind::loss || kind == ChoiceKind::buggify;
  }
};

/// A run, as far as chance decided it. In a file: a line for each choice.
struct TapeText {
  std::uint64_t seed = 0;
  std::uint64_t numbers = 0;  // draws of numbers up to this one are 0, unless they are here
  std::vector<Choice> choices;

  /// Whole or not at all. Throws `std::system_error`.
  void write(const std::string& path) const;
  /// Throws `std::system_error`, and `std::invalid_argument` for what is no tape.
  static TapeText read(const std::string& path);
};

/// All that chance decides goes through here, where a world has one: it is recorded, or, in a
/// replay, taken from what was recorded. What is asked for with the same kind and hosts is
/// numbered, so that a choice that is taken away moves few of the others.
class Tape {
 public:
  /// Records.
  Tape() = default;
  /// Replays, and records what of it came to be.
  explicit Tape(const TapeText& text);
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// What is decided: `drawn`, if this records.
  std::uint64_t choose(ChoiceKind kind, std::size_t from, std::size_t to, std::uint64_t drawn,
                       std::uint64_t usual, TimePoint at);
  bool choose_fault(Fault fault, std::size_t host, bool drawn, bool ordered, TimePoint at);
  /// How much the fault does that hit last on this host: 0 to `limit` - 1.
  std::uint64_t extent_of(Fault fault, std::size_t host, std::uint64_t drawn, std::uint64_t limit,
                          TimePoint at);

  [[nodiscard]] const std::vector<Choice>& made() const noexcept { return made_; }
  [[nodiscard]] std::uint64_t numbers() const noexcept { return numbers_; }
  /// Too much to shrink.
  [[nodiscard]] bool is_full() const noexcept { return made_.size() >= kMost; }

  std::string heading;  // what a report says of it

 private:
  static constexpr std::size_t kMost = 500'000;

  struct Stream {
    std::uint32_t next = 0;
    std::size_t wanted = 0;  // the next one in `wanted_`, and their end
    std::size_t end = 0;
    bool ordered = false;  // the fault that hit last
  };
  Stream& stream(const Choice& of);
  /// True if it is wanted; its value then.
  bool find(Stream& stream, Choice& choice) noexcept;
  void record(const Choice& choice) {
    if (!is_full()) made_.push_back(choice);
  }

  bool replays_ = false;
  std::uint64_t most_numbers_ = 0;
  std::uint64_t numbers_ = 0;
  std::vector<Choice> wanted_;  // by key and ordinal
  std::unordered_map<std::uint64_t, Stream> streams_;
  std::vector<Choice> made_;
};

}  // namespace weir::sim::detail
