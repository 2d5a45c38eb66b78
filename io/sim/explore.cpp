#include <weir/io/sim/run.h>

#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace weir::sim {
namespace detail {

std::optional<std::uint64_t> number_from(const char* variable) {
  const char* text = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe)
  if (text == nullptr || *text == '\0') return std::nullopt;
  const std::string_view value(text);
  std::uint64_t number = 0;
  const auto parsed = std::from_chars(value.data(), value.data() + value.size(), number);
  if (parsed.ec != std::errc() || parsed.ptr != value.data() + value.size()) {
    throw std::invalid_argument("weir: " + std::string(variable) + " is \"" + std::string(value) +
                                "\"; it must be a number");
  }
  return number;
}

std::string describe(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& exception) {
    return exception.what();
  } catch (...) {
    return "an exception of unknown type";
  }
}

std::optional<TapeText> tape_of_environment() {
  const char* path = std::getenv("WEIR_SIM_TAPE");  // NOLINT(concurrency-mt-unsafe)
  if (path == nullptr || *path == '\0') return std::nullopt;
  return TapeText::read(path);
}

RunResult Run::operator()(WorldOptions options, const Scenario& scenario) const {
  options.seed = seed;
  RunResult outcome;
  World world(options);
  World::Impl& impl = *world.impl_;
  if (tape != nullptr) impl.network.chance.use(tape);
  impl.drop = drop;
  impl.bounds = bounds;
  const auto failed = [&](const std::string& text, const std::string& cause) {
    outcome.failure = text;
    outcome.cause = impl.cause.empty() ? cause : impl.cause;
  };
  try {
    scenario(world);
    outcome.hash = world.trace_hash();
  } catch (const GivenUp&) {
    outcome.given_up = true;
  } catch (const Failure& failure) {
    failed(failure.what(), failure.what());
  } catch (...) {
    const std::string what = describe(std::current_exception());
    failed(impl.report(what), what);
  }
  try {
    world.finish();
  } catch (const Failure& failure) {
    if (!outcome.failure && !outcome.given_up) failed(failure.what(), failure.what());
  }
  outcome.steps = impl.steps;
  if (current_coverage != nullptr) {
    for (std::size_t i = 0; i < kFaults; ++i) {
      current_coverage->hits[i] += impl.network.chance.hits(static_cast<Fault>(i));
    }
  }
  return outcome;
}

}  // namespace detail

namespace {

using namespace detail;

/// What all worlds together have failed to do; empty: nothing.
std::string tell_missing(const ExploreOptions& options, const Exploration& result,
                         const Coverage& coverage) {
  std::string text;
  const auto add = [&](const char* what, const std::string& name, const char* did) {
    text.append("\n  ").append(what).append("\"").append(name).append("\" ").append(did);
    text.append(" in none of ").append(std::to_string(result.runs)).append(" worlds of ");
    text.append(options.name);
  };
  for (const auto& [name, held] : coverage.conditions) {
    if (!held) add("sometimes ", name, "was true");
  }
  for (const std::string& name : options.expect) {
    if (coverage.reached.find(name) == coverage.reached.end()) add("", name, "was reached");
  }
  if (options.faults_must_hit) {
    for (const Fault fault : result.never_hit) add("the fault ", name_of(fault), "has hit");
  }
  return text.empty() ? text : "weir: an exploration saw too little:" + text;
}

void find_unhit(const ExploreOptions& options, const Coverage& coverage, Exploration& result) {
  for (std::size_t i = 0; i < kFaults; ++i) {
    const auto fault = static_cast<Fault>(i);
    if (coverage.hits[i] == 0 && options.world.faults.probability(fault) > 0) {
      result.never_hit.push_back(fault);
    }
  }
}

void show(const ExploreOptions& options, const Exploration& result, std::uint64_t count) {
  const bool last = result.runs == count;
  if (result.runs % 64 != 1 && !last) return;
  const std::string line = "\r" + std::string(options.name) + ": " + std::to_string(result.runs) +
                           " of " + std::to_string(count) + " seeds, " +
                           std::to_string(result.failures.size()) + " failed" + (last ? "\n" : "");
  std::fputs(line.c_str(), stderr);
}

}  // namespace

std::string Exploration::text() const {
  std::string text;
  for (const Failed& failed : failures) text += failed.text + "\n";
  return text;
}

Exploration explore(const ExploreOptions& options, const std::function<void(World&)>& scenario) {
  Exploration result;
  Run run;
  run.seed = options.first;
  std::uint64_t count = number_from("WEIR_SIM_SEEDS").value_or(options.count);
  const auto only = number_from("WEIR_SIM_SEED");
  const auto tape = tape_of_environment();
  const bool replays = only || tape;
  if (replays) {
    run.seed = tape ? tape->seed : *only;
    count = 1;
  }
  Coverage coverage;
  Shrinker shrinker(options, scenario);
  const std::uint64_t first = run.seed;
  const bool shows = ::isatty(STDERR_FILENO) == 1;
  for (; result.runs < count && result.failures.size() < options.most_failures; ++run.seed) {
    RunResult outcome;
    {
      const Counting counting(&coverage);
      outcome = run(options.world, scenario);
    }
    ++result.runs;
    result.hash = (result.hash ^ outcome.hash) * 0x9e3779b97f4a7c15;
    if (outcome.failure) {
      if (!replays) outcome.failure = shrinker.shrink(run.seed, outcome);
      result.failures.push_back({run.seed, *outcome.failure});
    }
    if (shows) show(options, result, count);
  }
  if (count <= 1 || result.runs < count) return result;  // one seed is a replay
  find_unhit(options, coverage, result);
  if (const std::string missing = tell_missing(options, result, coverage); !missing.empty()) {
    result.failures.push_back({first, missing});
  }
  return result;
}

}  // namespace weir::sim
