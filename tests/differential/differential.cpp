/// The model of TCP against the kernels: the same random script on io_uring, on epoll and on the
/// simulation, and what the programs saw of it.
///
/// WEIR_DIFFERENTIAL_SCRIPTS=N says how many; WEIR_DIFFERENTIAL_SEED=N begins there (and repeats
/// one, where the other is not set).

#include <weir/weir.h>

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../support/net.h"
#include "player.h"
#include "script.h"

using namespace weir;
using namespace weir::test;
using namespace weir::test::differential;

namespace {

constexpr std::uint64_t kScripts = 1000;
constexpr auto kShrinkFor = 20s;
constexpr std::uint64_t kAtOnce = 250;  // on one loop, and in one world

using Scripts = std::vector<Script>;
using Transcripts = std::vector<Transcript>;

/// By the name of the engine.
using Found = std::map<std::string, Transcripts>;

Task<> play_all(const Scripts& scripts, Found& found) {
  Transcripts& transcripts = found[std::string(EventLoop::current().engine_name())];
  for (const Script& script : scripts) {
    Player player;
    transcripts.push_back(co_await player.play(script));
  }
}

Found play_everywhere(const Scripts& scripts) {
  Found found;
  on_each_engine([&] { return play_all(scripts, found); });
  return found;
}

/// Where they differ, empty if they do not.
std::string difference(const Found& found, std::size_t number) {
  const auto& [model, first] = *found.begin();
  for (const auto& [engine, transcripts] : found) {
    if (transcripts[number] == first[number]) continue;
    const Transcript& here = first[number];
    const Transcript& there = transcripts[number];
    std::string text;
    for (std::size_t i = 0; i < std::max(here.size(), there.size()); ++i) {
      const std::string line = i < here.size() ? here[i] : "";
      const std::string other = i < there.size() ? there[i] : "";
      text += line == other
                  ? "  " + line + '\n'
                  : "  " + line + "  <- " + model + "\n  " + other + "  <- " + engine + '\n';
    }
    return text;
  }
  return {};
}

std::string difference(const Script& script) { return difference(play_everywhere({script}), 0); }

std::uint64_t number_of(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

void compare(const Scripts& scripts) {
  const Found found = play_everywhere(scripts);
  if (found.size() < 2) {
    MESSAGE("skipped: no kernel engine is to be had, and the model alone differs from nobody");
    return;
  }
  for (const auto& one : found) CHECK(one.second.size() == scripts.size());
  for (std::size_t i = 0; i < scripts.size(); ++i) {
    if (difference(found, i).empty()) continue;
    const auto fails = [end = std::chrono::steady_clock::now() + kShrinkFor](const Script& script) {
      return std::chrono::steady_clock::now() < end && !difference(script).empty();
    };
    const Script least = shrink(scripts[i], fails);
    std::string text = difference(least);
    // One that the same script does not show again depends on more than the script.
    if (text.empty()) text = "not again; at first\n" + difference(found, i);
    FAIL_CHECK("WEIR_DIFFERENTIAL_SEED=" << scripts[i].seed << ", shrunk to " << least.steps.size()
                                         << " steps:\n"
                                         << text);
  }
}

}  // namespace

TEST_CASE("programs see the same of a random script on the kernels and on their model") {
  const char* const only = std::getenv("WEIR_DIFFERENTIAL_SEED");  // NOLINT(concurrency-mt-unsafe)
  const std::uint64_t first = number_of("WEIR_DIFFERENTIAL_SEED", 1);
  const std::uint64_t count =
      number_of("WEIR_DIFFERENTIAL_SCRIPTS", only != nullptr ? 1 : kScripts);
  for (std::uint64_t seed = first; seed < first + count;) {
    ::alarm(400);  // the test's time limit, for each of these
    Scripts scripts;
    while (seed < first + count && scripts.size() < kAtOnce) scripts.push_back(make_script(seed++));
    compare(scripts);
  }
}
