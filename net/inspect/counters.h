#pragma once

#include <weir/core/metrics.h>

#include <cstdint>

namespace weir::detail {

/// A counter of a loop, as it is called everywhere.
struct Counter {
  const char* name;
  std::uint64_t Metrics::* value;
  bool is_gauge;
  const char* help;
};

inline constexpr Counter kCounters[] = {
    {"turns", &Metrics::turns, false, "Turns of the loop"},
    {"resumed", &Metrics::resumed, false, "Coroutines resumed by the loop"},
    {"timers_fired", &Metrics::timers_fired, false, "Timers that fired"},
    {"posted", &Metrics::posted, false, "Posted functions that were run"},
    {"waits", &Metrics::waits, false, "System calls that submit and wait"},
    {"submitted", &Metrics::submitted, false, "Operations handed to the kernel"},
    {"completed", &Metrics::completed, false, "Results taken in"},
    {"cancelled", &Metrics::cancelled, false, "Cancels handed to the kernel"},
    {"wakes", &Metrics::wakes, false, "Times that another thread woke the loop"},
    {"starved", &Metrics::starved, false, "Receives that found no free buffer"},
    {"overflows", &Metrics::overflows, false, "Overflows of the completion queue"},
    {"stalls", &Metrics::stalls, false, "Turns that lasted longer than LoopOptions::stall"},
    {"operations", &Metrics::operations, true, "Operations that the kernel has"},
    {"timers", &Metrics::timers, true, "Timers that are armed"},
    {"last_turn_ms", &Metrics::last_turn_ms, true, "The last turn, in milliseconds"},
    {"longest_turn_ms", &Metrics::longest_turn_ms, true, "The longest turn, in milliseconds"},
    {"buffers", &Metrics::buffers, true, "Receive buffers that exist"},
    {"buffers_leased", &Metrics::buffers_leased, true, "Receive buffers that somebody holds"},
};

}  // namespace weir::detail
