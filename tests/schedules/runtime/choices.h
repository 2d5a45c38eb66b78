#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weir::schedules {

/// The choices of a schedule, and which schedule comes next. What is chosen of is a number of
/// options, the first of which is what happens without us and is free; others may cost one of the
/// bound: to take the processor from a thread that could go on, or to have a load give what is old.
class Choices {
 public:
  /// All schedules that cost no more than `bound`, depth first.
  void begin_depth_first(unsigned bound);
  /// One schedule in which each choice is the chooser's own, or by chance.
  void begin_random(std::uint64_t seed);
  /// The schedule of that text.
  void begin_replay(std::string_view schedule);

  /// There is nothing to choose, but there may be in a schedule of the same text.
  void pass() noexcept { ++ordinal_; }
  /// Which option; bit n of `costs`: option n costs one. `wanted` is what a schedule by chance
  /// takes; without it, one in four times it takes another than the first. Nothing if the schedule
  /// does not fit: the scenario is not deterministic.
  [[nodiscard]] std::optional<std::size_t> choose(std::size_t options, std::uint32_t costs,
                                                  std::optional<std::size_t> wanted = {});

  /// The next of the schedules that are looked at depth first; false: it was the last.
  [[nodiscard]] bool next();

  [[nodiscard]] bool is_random() const noexcept { return mode_ == Mode::random; }
  /// Up to some number.
  [[nodiscard]] std::uint64_t draw(std::uint64_t below) noexcept;
  /// So far: "3:1,17:2", by how many times `choose` or `pass` was called before, without those that
  /// were the first option.
  /// Whether a run came to all choices that a replay was given.
  [[nodiscard]] bool used_up() const noexcept { return count_ == given_; }
  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::size_t ordinal() const noexcept { return ordinal_; }

 private:
  enum class Mode : std::uint8_t { depth_first, random, replay };
  struct Choice {
    std::size_t ordinal;
    std::uint8_t options;
    std::uint8_t chosen;
    std::uint8_t spent;  // before it
    std::uint32_t costs;
  };

  Mode mode_ = Mode::depth_first;
  unsigned bound_ = 0;
  std::size_t given_ = 0;  // choices at the front that are made
  std::size_t count_ = 0;  // made in this run
  std::size_t ordinal_ = 0;
  unsigned spent_ = 0;
  std::uint64_t random_ = 0;
  std::vector<Choice> choices_;
};

}  // namespace weir::schedules
