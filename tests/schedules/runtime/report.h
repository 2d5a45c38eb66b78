#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace weir::schedules {

/// What the process that explores shares with the one that reports.
struct Report {
  enum class State : std::uint8_t { running, failed, done };
  struct Event {
    std::uint8_t thread;
    const char* what;
    const void* from;
    std::size_t ordinal;
  };

  State state = State::running;
  unsigned preemptions = 0;    // within which schedules are explored
  bool exhausted = false;      // all of them were
  std::uint64_t explored = 0;  // of them, depth first
  std::uint64_t random = 0;
  std::uint64_t longest = 0;  // steps of a schedule
  static constexpr std::size_t kMostText = 4096;
  char what[kMostText] = {};
  char schedule[kMostText] = {};  // the one that runs, or failed
  static constexpr std::size_t kMostEvents = 1 << 14;
  std::size_t events = 0;
  Event event[kMostEvents] = {};
};

/// Ends the schedule, and the process with it.
[[noreturn]] void fail(const std::string& what);

/// A place in the program, as `fail` and the report take it.
std::string place(const void* from);

}  // namespace weir::schedules
