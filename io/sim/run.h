#pragma once

#include <weir/io/sim/explore.h>
#include <weir/io/sim/world_impl.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>

// One run of a scenario in a world, for those that make many.
namespace weir::sim::detail {

using Scenario = std::function<void(World&)>;

/// What the worlds of an exploration have seen.
struct Coverage {
  std::map<std::string, bool, std::less<>> conditions;  // and whether one held
  std::set<std::string, std::less<>> reached;
  std::array<std::uint64_t, kFaults> hits{};
};

/// Of the exploration that runs on this thread; nullptr: nobody counts.
inline constinit thread_local Coverage* current_coverage = nullptr;

/// Makes it the thread's for its own life.
class Counting {
 public:
  explicit Counting(Coverage* coverage) noexcept
      : before_(std::exchange(current_coverage, coverage)) {}
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;
  ~Counting() { current_coverage = before_; }

 private:
  Coverage* before_;
};

struct RunResult {
  std::optional<std::string> failure;
  std::string cause;       // of it, in words
  std::uint64_t hash = 0;  // of a run that did not fail in the scenario
  std::uint64_t steps = 0;
  bool given_up = false;  // it took longer than it may
};

class Run {
 public:
  std::uint64_t seed = 0;
  Tape* tape = nullptr;
  DropPlan* drop = nullptr;
  Bounds bounds = {};

  RunResult operator()(WorldOptions options, const Scenario& scenario) const;
};

/// Shrinks failing runs.
class Shrinker {
 public:
  Shrinker(const ExploreOptions& options, const Scenario& scenario);

  /// What to report of a run with this seed that has failed.
  std::string shrink(std::uint64_t seed, const RunResult& failed);

 private:
  bool fails(const std::vector<Choice>& wanted);
  bool try_without(std::size_t first, std::size_t count);
  void drop_kinds();
  void drop_pieces();
  void make_smaller();
  void show() const;
  [[nodiscard]] bool is_over() const noexcept;
  [[nodiscard]] std::string heading(std::size_t before, const std::string& path) const;

  const ExploreOptions& options_;
  const Scenario& scenario_;
  std::chrono::nanoseconds limit_;    // for all failures
  std::chrono::nanoseconds spent_{};  // on failures before
  std::chrono::steady_clock::time_point deadline_{};
  std::uint64_t seed_ = 0;
  std::uint64_t numbers_ = 0;
  std::uint64_t most_steps_ = 0;
  std::string cause_;
  std::vector<Choice> left_;  // of the smallest run that fails
  std::uint64_t runs_ = 0;
};

}  // namespace weir::sim::detail
