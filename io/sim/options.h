#pragma once

#include <weir/io/sim/faults.h>

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace weir::sim {

/// What lies between two hosts, in one direction.
struct Link {
  std::chrono::nanoseconds latency = std::chrono::microseconds(100);
  std::chrono::nanoseconds jitter = {};  // up to this much is added, evenly
  std::uint64_t bandwidth = 0;           // bytes a second; 0: no limit
  double loss = 0;                       // of a segment, which is sent again after 200 ms and up
};

struct WorldOptions {
  /// The same seed gives the same run. WEIR_SIM_SEED in the environment takes its place.
  std::uint64_t seed = 0;
  Faults faults = {};

  std::size_t send_buffer = 64 << 10;     // bytes that a kernel takes from a sender, per connection
  std::size_t receive_buffer = 64 << 10;  // bytes that it keeps for a reader: the window
  std::size_t descriptors = 20'000;       // limit of a process
  std::uint16_t first_port = 32768;       // that a connect may be given
  std::uint16_t last_port = 60999;

  std::size_t history = 40;  // events per host in the report of a failure
  /// A world that takes more steps than this in one `run_…` is taken for one that never ends.
  std::uint64_t most_steps = 200'000'000;
};

}  // namespace weir::sim
