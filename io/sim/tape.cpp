#include <weir/io/sim/tape.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <system_error>

namespace weir::sim::detail {
namespace {

constexpr const char* kFirstLine = "weir-sim-tape 1";

std::string word_of(ChoiceKind kind) {
  switch (kind) {
    case ChoiceKind::delay:
      return "delay";
    case ChoiceKind::loss:
      return "loss";
    case ChoiceKind::extent:
      return "extent";
    case ChoiceKind::order:
      return "order";
    case ChoiceKind::port:
      return "port";
    case ChoiceKind::number:
      return "number";
    case ChoiceKind::dice:
      return "dice";
    case ChoiceKind::buggify:
      return "buggify";
  }
  std::string word = name_of(static_cast<Fault>(kind));
  std::replace(word.begin(), word.end(), ' ', '_');
  return word;
}

std::optional<ChoiceKind> kind_of(const std::string& word) {
  for (unsigned i = 0; i <= static_cast<unsigned>(ChoiceKind::buggify); ++i) {
    const auto kind = static_cast<ChoiceKind>(i);
    const bool exists = i < kFaults || i >= static_cast<unsigned>(ChoiceKind::delay);
    if (exists && word_of(kind) == word) return kind;
  }
  return std::nullopt;
}

bool is_number(ChoiceKind kind) noexcept {
  return kind == ChoiceKind::number || kind == ChoiceKind::dice;
}

}  // namespace

void TapeText::write(const std::string& path) const {
  errno = 0;
  const std::string unfinished = path + "." + std::to_string(::getpid());
  std::ofstream file(unfinished, std::ios::trunc);
  file << kFirstLine << "\nseed " << seed << "\nnumbers " << numbers << '\n';
  for (const Choice& choice : choices) {
    file << word_of(choice.kind) << ' ' << choice.from << ' ' << choice.to << ' ' << choice.ordinal
         << ' ' << choice.value << '\n';
  }
  file.close();
  if (!file || std::rename(unfinished.c_str(), path.c_str()) != 0) {
    const int why = errno != 0 ? errno : EIO;
    std::remove(unfinished.c_str());
    throw std::system_error(why, std::generic_category(), "weir: " + path);
  }
}

TapeText TapeText::read(const std::string& path) {
  errno = 0;
  std::ifstream file(path);
  if (!file) {
    throw std::system_error(errno != 0 ? errno : EIO, std::generic_category(), "weir: " + path);
  }
  TapeText text;
  std::string line;
  bool right = std::getline(file, line) && line == kFirstLine;
  while (right && std::getline(file, line)) {
    if (line.empty() || line.front() == '#') continue;
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "seed") {
      words >> text.seed;
    } else if (word == "numbers") {
      words >> text.numbers;
    } else {
      Choice choice;
      const auto kind = kind_of(word);
      words >> choice.from >> choice.to >> choice.ordinal >> choice.value;
      right = kind.has_value();
      if (kind) choice.kind = *kind;
      text.choices.push_back(choice);
    }
    right = right && !words.fail();
  }
  if (!right) throw std::invalid_argument("weir: " + path + " is no tape: \"" + line + '"');
  return text;
}

Tape::Tape(const TapeText& text)
    : replays_(true), most_numbers_(text.numbers), wanted_(text.choices) {
  std::sort(wanted_.begin(), wanted_.end(), [](const Choice& a, const Choice& b) {
    return a.key() != b.key() ? a.key() < b.key() : a.ordinal < b.ordinal;
  });
  for (std::size_t i = 0; i < wanted_.size(); ++i) {
    const auto [found, first] = streams_.try_emplace(wanted_[i].key());
    if (first) found->second.wanted = i;
    found->second.end = i + 1;
  }
}

Tape::Stream& Tape::stream(const Choice& of) { return streams_[of.key()]; }

bool Tape::find(Stream& stream, Choice& choice) noexcept {
  while (stream.wanted < stream.end && wanted_[stream.wanted].ordinal < choice.ordinal) {
    ++stream.wanted;
  }
  if (stream.wanted == stream.end || wanted_[stream.wanted].ordinal != choice.ordinal) return false;
  choice.value = wanted_[stream.wanted].value;
  return true;
}

std::uint64_t Tape::choose(ChoiceKind kind, std::size_t from, std::size_t to, std::uint64_t drawn,
                           std::uint64_t usual, TimePoint at) {
  Choice choice{.kind = kind,
                .from = static_cast<std::uint16_t>(from),
                .to = static_cast<std::uint16_t>(to),
                .value = drawn,
                .at = at};
  Stream& own = stream(choice);
  choice.ordinal = own.next++;
  const bool number = is_number(kind);
  if (number) numbers_ = std::max<std::uint64_t>(numbers_, own.next);
  if (replays_ && !find(own, choice)) {
    // Beyond those that were recorded numbers go on, so that who waits for another one gets it.
    choice.value = number && choice.ordinal >= most_numbers_ ? drawn : usual;
    return choice.value;
  }
  if (choice.value != usual) record(choice);
  return choice.value;
}

bool Tape::choose_fault(Fault fault, std::size_t host, bool drawn, bool ordered, TimePoint at) {
  Choice choice{
      .kind = static_cast<ChoiceKind>(fault), .from = static_cast<std::uint16_t>(host), .at = at};
  Stream& own = stream(choice);
  choice.ordinal = own.next++;
  const bool hits = replays_ ? find(own, choice) : drawn;
  own.ordered = ordered;
  if (hits && !ordered) record(choice);
  return hits || ordered;
}

std::uint64_t Tape::extent_of(Fault fault, std::size_t host, std::uint64_t drawn,
                              std::uint64_t limit, TimePoint at) {
  if (limit == 0) return drawn;
  const Choice as{.kind = static_cast<ChoiceKind>(fault), .from = static_cast<std::uint16_t>(host)};
  if (stream(as).ordered) {
    const std::uint64_t chosen =
        choose(ChoiceKind::extent, host, static_cast<std::size_t>(fault), drawn, limit / 2, at);
    return std::min(chosen, limit - 1);
  }
  const auto last = std::find_if(made_.rbegin(), made_.rend(),
                                 [&](const Choice& one) { return one.key() == as.key(); });
  if (last == made_.rend()) return drawn;  // of a tape that is full
  if (replays_) return std::min(last->value, limit - 1);
  last->value = drawn;
  return drawn;
}

}  // namespace weir::sim::detail
