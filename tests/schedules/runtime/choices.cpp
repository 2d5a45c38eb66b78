#include "choices.h"

#include <charconv>

namespace weir::schedules {

void Choices::begin_depth_first(unsigned bound) {
  mode_ = Mode::depth_first;
  bound_ = bound;
  choices_.clear();
  given_ = count_ = ordinal_ = spent_ = 0;
}

void Choices::begin_random(std::uint64_t seed) {
  begin_depth_first(0);
  mode_ = Mode::random;
  random_ = seed * 2 + 1;
}

void Choices::begin_replay(std::string_view schedule) {
  begin_depth_first(0);
  mode_ = Mode::replay;
  const char* at = schedule.data();
  const char* const end = at + schedule.size();
  while (at < end) {
    std::size_t number = 0;
    unsigned chosen = 0;
    at = std::from_chars(at, end, number).ptr;
    if (at < end) at = std::from_chars(at + 1, end, chosen).ptr;
    if (at < end) ++at;
    choices_.push_back({number, 0, static_cast<std::uint8_t>(chosen), 0, 0});
  }
  given_ = choices_.size();
}

std::uint64_t Choices::draw(std::uint64_t below) noexcept {
  random_ += 0x9e3779b97f4a7c15;  // splitmix64
  std::uint64_t mixed = random_;
  mixed = (mixed ^ (mixed >> 30U)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27U)) * 0x94d049bb133111eb;
  return (mixed ^ (mixed >> 31U)) % below;
}

std::optional<std::size_t> Choices::choose(std::size_t options, std::uint32_t costs,
                                           std::optional<std::size_t> wanted) {
  const std::size_t ordinal = ordinal_++;
  const bool is_given = count_ < given_;
  if (mode_ == Mode::replay && (!is_given || choices_[count_].ordinal != ordinal)) return 0;
  if (is_given) {
    const Choice& choice = choices_[count_++];
    const bool fits =
        mode_ == Mode::replay || (choice.ordinal == ordinal && choice.options == options);
    if (!fits || choice.chosen >= options) return std::nullopt;
    spent_ += (choice.costs >> choice.chosen) & 1U;
    return choice.chosen;
  }
  ++count_;
  std::size_t chosen = 0;
  if (mode_ == Mode::random) {
    chosen = wanted ? *wanted : draw(4) == 0 ? draw(options) : 0;
  }
  choices_.push_back({ordinal, static_cast<std::uint8_t>(options),
                      static_cast<std::uint8_t>(chosen), static_cast<std::uint8_t>(spent_), costs});
  return chosen;
}

bool Choices::next() {
  choices_.resize(count_ < choices_.size() ? count_ : choices_.size());
  count_ = ordinal_ = spent_ = 0;
  for (; !choices_.empty(); choices_.pop_back()) {
    Choice& last = choices_.back();
    for (unsigned other = last.chosen + 1U; other < last.options; ++other) {
      if (last.spent + ((last.costs >> other) & 1U) > bound_) continue;
      last.chosen = static_cast<std::uint8_t>(other);
      given_ = choices_.size();
      return true;
    }
  }
  return false;
}

std::string Choices::text() const {
  std::string text;
  for (std::size_t i = 0; i < count_ && i < choices_.size(); ++i) {
    if (choices_[i].chosen == 0) continue;
    if (!text.empty()) text += ',';
    text += std::to_string(choices_[i].ordinal) + ':' + std::to_string(choices_[i].chosen);
  }
  return text;
}

}  // namespace weir::schedules
