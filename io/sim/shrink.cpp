#include <weir/io/sim/run.h>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>

namespace weir::sim {
namespace detail {
namespace {

using Clock = std::chrono::steady_clock;

/// Numbers differ from run to run, and it is the same failure.
std::string without_digits(const std::string& text) {
  std::string kept;
  const std::string line = text.substr(0, text.find('\n'));
  std::remove_copy_if(line.begin(), line.end(), std::back_inserter(kept),
                      [](unsigned char c) { return std::isdigit(c) != 0; });
  return kept;
}

/// A file of this user's alone, in a directory of its own; empty if there can be none.
std::string path_of_tape(std::string_view name, std::uint64_t seed) {
  std::error_code error;
  const std::filesystem::path base = std::filesystem::temp_directory_path(error);
  if (error) return {};
  const std::filesystem::path directory = base / ("weir-sim-" + std::to_string(::getuid()));
  struct stat is{};
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) return {};
  if (::lstat(directory.c_str(), &is) != 0 || !S_ISDIR(is.st_mode) || is.st_uid != ::getuid() ||
      (is.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return {};
  }
  std::string file(name);
  for (char& c : file) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '-';
  }
  return directory / (file + "-" + std::to_string(seed) + ".tape");
}

std::size_t count_faults(const std::vector<Choice>& choices) {
  return static_cast<std::size_t>(std::count_if(
      choices.begin(), choices.end(), [](const Choice& choice) { return choice.is_fault(); }));
}

}  // namespace

Shrinker::Shrinker(const ExploreOptions& options, const Scenario& scenario)
    : options_(options), scenario_(scenario), limit_(options.shrink_for) {
  constexpr std::uint64_t kMost = 1'000'000;  // seconds
  if (const auto seconds = number_from("WEIR_SIM_SHRINK")) {
    limit_ = std::chrono::seconds(std::min(*seconds, kMost));
  }
}

bool Shrinker::is_over() const noexcept { return Clock::now() >= deadline_; }

/// One run with no more than this. If it fails as the first one did, what came of it is kept.
bool Shrinker::fails(const std::vector<Choice>& wanted) {
  if (is_over()) return false;
  Tape tape({.seed = seed_, .numbers = numbers_, .choices = wanted});
  Run run;
  run.seed = seed_;
  run.tape = &tape;
  run.bounds = {.most_steps = most_steps_, .deadline = deadline_};
  const RunResult outcome = run(options_.world, scenario_);
  ++runs_;
  if (!outcome.failure || without_digits(outcome.cause) != cause_ || tape.is_full()) return false;
  if (tape.made().size() > left_.size()) return false;
  left_ = tape.made();
  show();
  return true;
}

bool Shrinker::try_without(std::size_t first, std::size_t count) {
  std::vector<Choice> wanted(left_.begin(), left_.begin() + static_cast<std::ptrdiff_t>(first));
  wanted.insert(wanted.end(), left_.begin() + static_cast<std::ptrdiff_t>(first + count),
                left_.end());
  return fails(wanted);
}

/// All, then whole kinds at once: most of them have nothing to do with the failure.
void Shrinker::drop_kinds() {
  if (left_.empty() || fails({})) return;
  const auto without = [&](auto unwanted) {
    std::vector<Choice> wanted;
    std::remove_copy_if(left_.begin(), left_.end(), std::back_inserter(wanted), unwanted);
    if (wanted.size() < left_.size()) fails(wanted);
  };
  without([](const Choice& choice) { return choice.is_fault(); });
  without([](const Choice& choice) { return !choice.is_fault(); });
  for (unsigned i = 0; i <= static_cast<unsigned>(ChoiceKind::buggify); ++i) {
    without([i](const Choice& choice) { return static_cast<unsigned>(choice.kind) == i; });
  }
}

/// Delta debugging: pieces of half the length each time, the last ones first, for on those the
/// least depends.
void Shrinker::drop_pieces() {
  for (std::size_t size = std::max<std::size_t>(left_.size() / 2, 1);;) {
    bool shrunk = false;
    for (std::size_t end = left_.size(); end > 0;) {
      const std::size_t first = end > size ? end - size : 0;
      shrunk = try_without(first, end - first) || shrunk;
      end = std::min(first, left_.size());
      if (is_over()) return;
    }
    if (size > 1) {
      size = std::max<std::size_t>(std::min(size / 2, left_.size()), 1);
    } else if (!shrunk) {
      return;
    }
  }
}

/// Shorter delays and smaller numbers.
void Shrinker::make_smaller() {
  for (std::size_t i = 0; i < left_.size() && !is_over(); ++i) {
    while (i < left_.size() && left_[i].value > 1 && left_[i].kind != ChoiceKind::order) {
      std::vector<Choice> wanted = left_;
      wanted[i].value /= 2;
      if (!fails(wanted)) break;
    }
  }
}

void Shrinker::show() const {
  if (::isatty(STDERR_FILENO) != 1) return;
  const std::string line = "\r" + std::string(options_.name) + ": shrinking seed " +
                           std::to_string(seed_) + ": " + std::to_string(left_.size()) +
                           " choices of chance left after " + std::to_string(runs_) + " runs      ";
  std::fputs(line.c_str(), stderr);
}

std::string Shrinker::heading(std::size_t before, const std::string& path) const {
  std::string text = "shrunk from " + std::to_string(before) + " choices of chance to " +
                     std::to_string(left_.size());
  if (is_over()) text += " (there was no time for more)";
  if (!path.empty()) {
    text += "; to repeat this: WEIR_SIM_TAPE=" + path + " " + program_invocation_short_name;
  }
  const std::size_t faults = count_faults(left_);
  text += "\n  " + std::to_string(faults) + (faults == 1 ? " fault is" : " faults are") + " left";
  if (faults < left_.size()) {
    text += ", and " + std::to_string(left_.size() - faults) + " other choices";
  }
  return text + (left_.empty() ? "" : ":");
}

std::string Shrinker::shrink(std::uint64_t seed, const RunResult& failed) {
  const Clock::time_point began = Clock::now();
  if (limit_ <= spent_) return *failed.failure;
  deadline_ = began + std::chrono::duration_cast<Clock::duration>(limit_ - spent_);
  seed_ = seed;
  runs_ = 0;
  most_steps_ = failed.steps * 2 + 1000;
  cause_ = without_digits(failed.cause);
  const Counting nobody(nullptr);
  Tape recorded;
  Run run;
  run.seed = seed;
  run.tape = &recorded;
  run.bounds = {.most_steps = most_steps_, .deadline = deadline_};
  const RunResult again = run(options_.world, scenario_);
  std::string text = *failed.failure;
  if (again.given_up || recorded.is_full()) {
    text += "\n  it is too long to be shrunk";
  } else if (again.cause != failed.cause) {
    text +=
        "\n  the same seed did not fail again so: the scenario or its tasks depend on something "
        "else than the seed";
  } else {
    left_ = recorded.made();
    numbers_ = recorded.numbers();
    drop_kinds();
    if (runs_ > 0 && (left_.size() < recorded.made().size() || fails(left_))) {
      drop_pieces();
      make_smaller();
      drop_pieces();
    }
    const TapeText left{.seed = seed, .numbers = numbers_, .choices = left_};
    std::string path = path_of_tape(options_.name, seed);
    try {
      if (!path.empty()) left.write(path);
    } catch (const std::system_error&) {
      path.clear();
    }
    Tape last(left);
    last.heading = heading(recorded.made().size(), path);
    run.tape = &last;
    run.bounds = {};
    if (const RunResult shrunk = run(options_.world, scenario_); shrunk.failure) {
      text = *shrunk.failure;
    }
  }
  spent_ += Clock::now() - began;
  return text;
}

}  // namespace detail

namespace {

constexpr std::size_t kMostTold = 30;

std::string in_milliseconds(std::uint64_t nanoseconds) {
  char text[64];
  std::snprintf(text, sizeof text, "%.3f ms", static_cast<double>(nanoseconds) / 1e6);
  return text;
}

}  // namespace

std::string World::Impl::tell(const Choice& choice) const {
  const auto name = [this](std::size_t host) {
    return host < hosts.size() ? hosts[host]->name() : std::to_string(host);
  };
  const std::string from = name(choice.from);
  const std::string value = std::to_string(choice.value);
  switch (choice.kind) {
    case ChoiceKind::delay:
      return "a segment from " + from + " to " + name(choice.to) + " takes " +
             in_milliseconds(choice.value) + " longer";
    case ChoiceKind::loss:
      return "a segment from " + from + " to " + name(choice.to) + " is lost " + value +
             (choice.value == 1 ? " time" : " times");
    case ChoiceKind::extent:
      return std::string("the ordered ") + name_of(static_cast<Fault>(choice.to)) + " at " + from +
             ": " + value;
    case ChoiceKind::order:
      return "completions at " + from + " come in another order";
    case ChoiceKind::port:
      return "a connect from " + from + " gets another port: " + value;
    case ChoiceKind::number:
      return "World::random, draw " + std::to_string(choice.ordinal + 1) + ": " + value;
    case ChoiceKind::dice:
      return "the library at " + from + ", draw " + std::to_string(choice.ordinal + 1) + ": " +
             value;
    case ChoiceKind::buggify:
      return "buggify at " + from;
  }
  const auto fault = static_cast<Fault>(choice.kind);
  std::string text = std::string(name_of(fault)) + " at " + from;
  if (fault == Fault::short_receive || fault == Fault::short_send) {
    return text + ", of " + std::to_string(choice.value + 1) + " bytes";
  }
  if (fault == Fault::late_completion || fault == Fault::lost_cancel) {
    return text + ", by " + in_milliseconds(choice.value);
  }
  return text;
}

std::string World::Impl::tell_choices() const {
  const Tape& own = *network.chance.tape();
  if (own.heading.empty()) return {};
  std::string text = "\n  " + own.heading;
  std::size_t told = 0;
  for (const Choice& choice : own.made()) {
    if (told++ == kMostTold) {
      return text + "\n    and " + std::to_string(own.made().size() - kMostTold) + " more";
    }
    char at[64];
    std::snprintf(at, sizeof at, "%.9f s",
                  std::chrono::duration<double>(choice.at - start()).count());
    text += std::string("\n    ") + at + "  " + tell(choice);
  }
  return text;
}

}  // namespace weir::sim
