#pragma once

#include <weir/io/sim/world.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

// Many worlds: one scenario under many seeds, or with a task dropped at each of its suspensions.
namespace weir::sim {

struct ExploreOptions {
  std::uint64_t first = 1;    // seed
  std::uint64_t count = 200;  // seeds; WEIR_SIM_SEEDS in the environment takes its place
  WorldOptions world = {};    // its seed does not count
  std::size_t most_failures = 3;
  std::string_view name = "scenario";
  /// Names that `reached` must have been called with in one of the worlds at least.
  std::vector<std::string> expect = {};
  /// For how long, in real time and for all failures together, failing runs are shrunk; 0: they are
  /// reported as they are. WEIR_SIM_SHRINK in the environment, in seconds, takes its place.
  std::chrono::nanoseconds shrink_for = std::chrono::seconds(10);
  /// Whether it fails if a fault whose probability is not 0 has hit in none of the worlds.
  bool faults_must_hit = false;
};

struct Exploration {
  struct Failed {
    std::uint64_t seed;  // the first one, where all worlds together have failed
    std::string text;
  };
  std::uint64_t runs = 0;  // worlds, without those of shrinking
  std::uint64_t hash = 0;  // over the trace hashes of all runs
  std::vector<Failed> failures;
  /// Faults whose probability is not 0, and that have hit in no world: they tested nothing.
  std::vector<Fault> never_hit;

  /// The texts of all failures, empty if there is none.
  [[nodiscard]] std::string text() const;
};

/// Runs the scenario in a fresh world for each seed, and stops after `most_failures`. A run fails
/// by any exception. With WEIR_SIM_SEED in the environment only that seed runs, with WEIR_SIM_TAPE
/// only what that file says. On a terminal it shows how far it is.
///
/// When all seeds have run it fails as well if a `sometimes` was looked at and held in none of
/// them, or a name of `expect` was not reached; not when it stopped early, nor when it
/// runs one seed only, which is a replay.
///
/// A failing run is shrunk before it is reported: it runs again and again with less and less of
/// what chance did, as long as it fails with the same words (numbers apart). The report lists what
/// is left, and a file that repeats exactly that: WEIR_SIM_TAPE=path. The scenario must do the same
/// each time that it is called.
Exploration explore(const ExploreOptions& options, const std::function<void(World&)>& scenario);
inline Exploration explore(std::uint64_t seeds, const std::function<void(World&)>& scenario) {
  return explore(ExploreOptions{.count = seeds}, scenario);
}

/// Tests that a task is safe to cancel: runs the scenario for each suspension of the task that it
/// marks with `Host::spawn_dropped`, and drops the task there, once as it suspends and once when
/// what it waits for has come and has not been looked at. The world goes on, as if the task had
/// ended; `World::dropped` tells the scenario. A last run, in which the task outlives all that,
/// must pass as well.
///
/// What must still hold is checked by the scenario, and by the world as ever: operations,
/// descriptors, leases, frames. A failure says at which suspension the drop did harm. It stops
/// after three of them, and gives up after 5000 suspensions. WEIR_SIM_DROP=number in the
/// environment repeats one of its runs.
Exploration drop_everywhere(const WorldOptions& options,
                            const std::function<void(World&)>& scenario);

}  // namespace weir::sim
