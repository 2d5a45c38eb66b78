#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace weir::schedules {

/// How much of a scenario is looked at. WEIR_SCHEDULES in the environment gives another number of
/// preemptions, with a million schedules and twenty thousand by chance.
struct Limits {
  unsigned preemptions = 2;         // a load that gives an old value counts as one
  std::uint64_t schedules = 2'000;  // depth first, at the most
  std::uint64_t random = 300;  // by priorities that chance gives and changes twice (PCT, d = 3)
};

struct Outcome {
  std::string failure;   // empty: none
  std::string schedule;  // in which it came, for WEIR_SCHEDULE: "name@3:1,17:2"
  std::string account;   // step by step
  std::uint64_t explored = 0;
  std::uint64_t random = 0;
  bool exhausted = false;  // within the preemptions there are no others
  bool left_out = false;   // WEIR_SCHEDULE is of another scenario
};

/// Runs the scenario again and again, each time in another schedule of its threads, in a child
/// process, until one fails: threads race, all wait for ever, memory is used after it was freed or
/// never freed, an exception leaves it, `require` is false, or the process crashes. What the
/// scenario starts ends in it; it must be the same each time, but for the schedule. With
/// WEIR_SCHEDULE in the environment that one alone runs, and is told step by step.
Outcome explore(const std::string& name, const std::function<void()>& scenario, Limits limits = {});

/// Runs it with threads as they come, `rounds` times, for a minute at the most: how many of them
/// end before one fails, or has no end.
std::uint64_t run_freely(const std::function<void()>& scenario, std::uint64_t rounds);

/// Of a scenario, by any of its threads.
void require(bool holds, const char* what);

/// What one thread sleeps in until another wakes it: the eventfd of an engine. It orders no memory.
class Doorbell {
 public:
  Doorbell() = default;
  Doorbell(const Doorbell&) = delete;
  Doorbell& operator=(const Doorbell&) = delete;

  void ring() noexcept;
  /// Until it rings, or has rung since it was waited for last. False if the time is over, which is
  /// when no thread can do anything else.
  bool wait(std::chrono::steady_clock::time_point deadline) noexcept;

 private:
  std::uint32_t rung_ = 0;
};

}  // namespace weir::schedules
