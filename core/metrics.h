#pragma once

#include <cstdint>

namespace weir {

/// Counters of one loop since it was made.
struct Metrics {
  std::uint64_t turns = 0;
  std::uint64_t resumed = 0;  // coroutines resumed by the loop
  std::uint64_t timers_fired = 0;
  std::uint64_t posted = 0;          // closures run that other threads or this one posted
  std::uint64_t waits = 0;           // system calls that submit and wait
  std::uint64_t submitted = 0;       // operations handed to the kernel
  std::uint64_t completed = 0;       // results taken in
  std::uint64_t cancelled = 0;       // cancels handed to the kernel
  std::uint64_t wakes = 0;           // times that another thread woke the loop
  std::uint64_t starved = 0;         // receives that found no free buffer
  std::uint64_t overflows = 0;       // times that the completion queue was found overflown
  std::uint64_t buffers = 0;         // receive buffers that exist now
  std::uint64_t buffers_leased = 0;  // of these, out with connections and users now
  std::uint64_t stalls = 0;          // turns that lasted longer than `LoopOptions::stall`
  std::uint64_t operations = 0;      // with the kernel, or on their way to it or back, now
  std::uint64_t timers = 0;          // armed now
  // Of turns while there were timers, by ticks of the kernel's clock, in milliseconds.
  std::uint64_t last_turn_ms = 0;
  std::uint64_t longest_turn_ms = 0;
};

}  // namespace weir
