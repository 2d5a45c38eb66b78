#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "../support/directory.h"
#include "../support/sim.h"

using namespace weir;
using namespace weir::test;

namespace {

namespace explored {

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

/// Sends a byte and waits for it to come back, `count` times; remembers the longest wait.
Task<> ping(sim::World& world, int count, std::chrono::nanoseconds& longest, bool& done) {
  TcpConnection connection = co_await connect("server:7");
  for (int i = 0; i < count; ++i) {
    const auto start = world.now();
    co_await connection.send("x");
    const Chunk back = co_await connection.read_exactly(1);
    longest = std::max(longest, world.now() - start);
  }
  done = true;
}

/// A scenario that fails where an answer takes too long.
void demand_quick_answers(sim::World& world) {
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2", "client");
  server.spawn(serve_echo(), "server");
  auto& longest = world.make<std::chrono::nanoseconds>(0ns);
  auto& done = world.make<bool>(false);
  client.spawn(ping(world, 30, longest, done), "ping");
  world.check(world.run_until([&] { return done; }, 1min), "it is answered");
  world.check(longest < 32ms, "the longest answer took " + std::to_string(longest.count()));
}

sim::ExploreOptions with_jitter() {
  sim::ExploreOptions options;
  static const std::string name = "quick answers " + std::to_string(::getpid());
  options.name = name;
  options.most_failures = 1;
  options.shrink_for = 5min;  // however slow it is
  options.world.faults = sim::Faults::mild();
  options.world.faults.jitter = 20ms;
  options.world.faults.loss = 0;
  options.world.faults.late_completion = 0;
  return options;
}

/// The part of a report behind `after`, to the end of its word.
std::string word_after(const std::string& text, std::string_view after) {
  const auto at = text.find(after);
  if (at == std::string::npos) return {};
  const auto begin = at + after.size();
  return text.substr(begin, text.find_first_of(" \n", begin) - begin);
}

}  // namespace explored

}  // namespace

TEST_CASE("explore fails where a sometimes was looked at and held in no world") {
  const auto scenario = [](sim::World& world) {
    const std::uint64_t number = world.random() % 4;
    sim::sometimes(number == 2, "two");
    sim::sometimes(number == 4, "four");
  };
  const sim::Exploration found = sim::explore(30, scenario);
  REQUIRE(found.failures.size() == 1);
  CHECK(explored::has(found.text(), "\"four\" was true in none of 30 worlds"));
  CHECK_FALSE(explored::has(found.text(), "\"two\""));
}

TEST_CASE("a sometimes that no world looks at, or that holds in one task, is no failure") {
  const auto scenario = [](sim::World& world) {
    if (world.seed() == 0) sim::sometimes(false, "never looked at");
    auto& host = world.add_host("10.0.0.1");
    const auto look = [](bool holds) -> Task<> {
      co_await sleep(1ms);
      sim::sometimes(holds, "in a task");
    };
    host.spawn(look(world.seed() == 3));
    world.run_for(1s);
  };
  CHECK(sim::explore(5, scenario).failures.empty());
}

TEST_CASE("explore fails for names it expects and no world has reached") {
  sim::ExploreOptions options;
  options.count = 20;
  options.expect = {"odd", "held", "nowhere"};
  const sim::Exploration found = sim::explore(options, [](sim::World& world) {
    if (world.random() % 2 == 1) sim::reached("odd");
    sim::sometimes(true, "held");
  });
  REQUIRE(found.failures.size() == 1);
  CHECK(explored::has(found.text(), "\"nowhere\" was reached in none of 20 worlds"));
  CHECK_FALSE(explored::has(found.text(), "\"odd\""));
  CHECK_FALSE(explored::has(found.text(), "\"held\""));
}

TEST_CASE("what was not reached is no failure of an exploration that stopped early") {
  sim::ExploreOptions options;
  options.count = 20;
  options.most_failures = 2;
  options.expect = {"nowhere"};
  const sim::Exploration found = sim::explore(options, [](sim::World& world) {
    sim::sometimes(false, "never");
    world.check(false, "always wrong");
  });
  CHECK(found.runs == 2);
  CHECK(found.failures.size() == 2);
  CHECK_FALSE(explored::has(found.text(), "nowhere"));
  CHECK_FALSE(explored::has(found.text(), "never"));
}

TEST_CASE("what was not reached is no failure of a replay of one seed") {
  sim::ExploreOptions options;
  options.expect = {"nowhere"};
  const auto scenario = [](sim::World& world) {
    sim::sometimes(world.random() == 0, "never");
    world.run_for(1s);
  };
  options.count = 1;
  CHECK(sim::explore(options, scenario).failures.empty());
  options.count = 20;
  CHECK(sim::explore(options, scenario).failures.size() == 1);
  ::setenv("WEIR_SIM_SEED", "7", 1);  // NOLINT(concurrency-mt-unsafe)
  const sim::Exploration replayed = sim::explore(options, scenario);
  ::unsetenv("WEIR_SIM_SEED");  // NOLINT(concurrency-mt-unsafe)
  CHECK(replayed.runs == 1);
  CHECK(replayed.failures.empty());
}

TEST_CASE("outside of a world and of an exploration the hooks do nothing") {
  sim::sometimes(false, "nobody counts");
  sim::reached("nobody counts");
  CHECK_FALSE(sim::buggify(1.0));
  sim::World world;
  world.add_host("10.0.0.1");
  CHECK_FALSE(sim::buggify(1.0));
  world.run_for(1s);
  world.finish();
  CHECK_FALSE(sim::buggify(1.0));
}

TEST_CASE("buggify is true with its probability in a world's tasks, the same for the same seed") {
  const auto hits_of = [](std::uint64_t seed, double probability) {
    sim::World world({.seed = seed});
    auto& host = world.add_host("10.0.0.1");
    auto& hits = world.make<std::vector<int>>();
    const auto ask = [](double chance, std::vector<int>& into) -> Task<> {
      for (int i = 0; i < 400; ++i) {
        if (sim::buggify(chance)) into.push_back(i);
        co_await sleep(1ms);
      }
    };
    host.spawn(ask(probability, hits));
    world.run_for(1min);
    return std::pair(hits, world.trace_hash());
  };
  const auto quarter = hits_of(7, 0.25);
  CHECK(quarter.first.size() > 60);
  CHECK(quarter.first.size() < 140);
  CHECK(hits_of(7, 0.25) == quarter);
  CHECK(hits_of(8, 0.25) != quarter);
  CHECK(hits_of(7, 0).first.empty());
  CHECK(hits_of(7, 1).first.size() == 400);
}

TEST_CASE("explore names the faults that have hit nowhere, and fails for them if asked to") {
  sim::ExploreOptions options;
  options.count = 3;
  options.world.faults = sim::Faults::mild();
  const auto scenario = [](sim::World& world) {
    world.add_host("10.0.0.1").spawn(serve_echo());
    world.run_for(1s);
  };
  const sim::Exploration found = sim::explore(options, scenario);
  CHECK(found.failures.empty());
  CHECK(std::find(found.never_hit.begin(), found.never_hit.end(), sim::Fault::short_receive) !=
        found.never_hit.end());
  CHECK(std::find(found.never_hit.begin(), found.never_hit.end(), sim::Fault::reset) ==
        found.never_hit.end());  // mild ones do not have it
  options.faults_must_hit = true;
  CHECK(explored::has(sim::explore(options, scenario).text(), "\"short receive\" has hit in none"));
}

TEST_CASE("a failing run is shrunk to what makes it fail, in words") {
  const sim::Exploration found =
      sim::explore(explored::with_jitter(), explored::demand_quick_answers);
  REQUIRE(found.failures.size() == 1);
  const std::string& text = found.failures.front().text;
  INFO(text);
  CHECK(explored::has(text, "the longest answer took"));
  // There and back: each way is 20 ms at the most.
  CHECK(explored::has(text, "2 faults are left:"));
  CHECK(explored::has(text, "a segment from client to server takes"));
  CHECK(explored::has(text, "a segment from server to client takes"));
  std::remove(explored::word_after(text, "WEIR_SIM_TAPE=").c_str());
}

TEST_CASE("the tape of a shrunk run repeats it, event for event") {
  const sim::Exploration found =
      sim::explore(explored::with_jitter(), explored::demand_quick_answers);
  REQUIRE(found.failures.size() == 1);
  const std::string path = explored::word_after(found.text(), "WEIR_SIM_TAPE=");
  REQUIRE(std::ifstream(path).good());
  ::setenv("WEIR_SIM_TAPE", path.c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
  const sim::Exploration again =
      sim::explore(explored::with_jitter(), explored::demand_quick_answers);
  ::unsetenv("WEIR_SIM_TAPE");  // NOLINT(concurrency-mt-unsafe)
  std::remove(path.c_str());
  CHECK(again.runs == 1);
  REQUIRE(again.failures.size() == 1);
  CHECK(again.failures.front().seed == found.failures.front().seed);
  // What happened in the hosts, behind the lines about where it comes from.
  const auto events = [](const std::string& text) { return text.substr(text.find("\n  host ")); };
  CHECK(events(again.text()) == events(found.text()));
}

TEST_CASE("numbers of the test's own are shrunk as well") {
  const sim::ExploreOptions options{.most_failures = 1, .shrink_for = 5min};
  const sim::Exploration found = sim::explore(options, [](sim::World& world) {
    std::uint64_t over = 0;
    for (int i = 0; i < 20; ++i) over += world.random() % 1000 > 800 ? 1 : 0;
    world.check(over < 3, "too many large ones");
  });
  REQUIRE(found.failures.size() == 1);
  INFO(found.text());
  CHECK(explored::has(found.text(), "0 faults are left, and 3 other choices:"));
  std::remove(explored::word_after(found.text(), "WEIR_SIM_TAPE=").c_str());
}

TEST_CASE("what was ordered is no choice of chance, what buggify did is one") {
  const auto pipe = [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2", "client");
    server.spawn(serve_echo());
    world.inject(sim::Fault::short_receive, server);
    auto& longest = world.make<std::chrono::nanoseconds>(0ns);
    auto& rare = world.make<int>(0);
    const auto talk = [](sim::World& of, std::chrono::nanoseconds& time, int& count) -> Task<> {
      bool done = false;
      co_await explored::ping(of, 10, time, done);
      for (int i = 0; i < 20; ++i) count += sim::buggify(0.2) ? 1 : 0;
    };
    client.spawn(talk(world, longest, rare));
    world.run_for(1min);
    const bool both = world.hits(sim::Fault::short_receive) > 0 && rare >= 2;
    world.check(!both, "a short receive and two rare things");
  };
  sim::ExploreOptions options = explored::with_jitter();
  options.world.faults = sim::Faults::none();
  const sim::Exploration found = sim::explore(options, pipe);
  REQUIRE(found.failures.size() == 1);
  INFO(found.text());
  CHECK(explored::has(found.text(), "2 faults are left:"));
  CHECK(explored::has(found.text(), "buggify at client"));
  std::remove(explored::word_after(found.text(), "WEIR_SIM_TAPE=").c_str());
}

TEST_CASE("a run that fails for another reason when repeated is reported as it was, and said so") {
  int calls = 0;
  const sim::Exploration found = sim::explore({.most_failures = 1}, [&](sim::World& world) {
    world.check(++calls > 1, "only the first time");
  });
  REQUIRE(found.failures.size() == 1);
  CHECK(explored::has(found.text(), "only the first time"));
  CHECK(explored::has(found.text(), "depend on something else than the seed"));
}

TEST_CASE("what is no tape is refused") {
  const std::string path = "/proc/self/comm";
  ::setenv("WEIR_SIM_TAPE", path.c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
  CHECK_THROWS_AS(sim::World{}, std::invalid_argument);
  ::setenv("WEIR_SIM_TAPE", "/nowhere/at/all", 1);  // NOLINT(concurrency-mt-unsafe)
  CHECK_THROWS_AS(sim::World{}, std::system_error);
  ::unsetenv("WEIR_SIM_TAPE");  // NOLINT(concurrency-mt-unsafe)
}

TEST_CASE("what a tape asks for beyond all bounds is as much as there can be") {
  const Directory directory;
  const std::string path = directory.file("tape");
  {
    std::ofstream tape(path);
    tape << "weir-sim-tape 1\nseed 1\nnumbers 0\nport 1 0 0 18446744073709551615\n";
    for (int i = 0; i < 10; ++i) {
      tape << "delay 1 0 " << i << " 18446744073709551615\n";
      tape << "delay 0 1 " << i << " 9223372036854775807\n";
    }
  }
  ::setenv("WEIR_SIM_TAPE", path.c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
  const sim::Exploration found =
      sim::explore(explored::with_jitter(), explored::demand_quick_answers);
  ::unsetenv("WEIR_SIM_TAPE");  // NOLINT(concurrency-mt-unsafe)
  INFO(found.text());
  CHECK(found.runs == 1);
  CHECK(explored::has(found.text(), "the longest answer took 4"));  // 40 ms and a little
}
