// What a run has found, and how it is told.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "latency_histogram.h"
#include "options.h"
#include "server_process.h"

namespace load_client {

// Of TLS, with bytes of the user: without those of handshakes and tickets.
struct Records {
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
};

struct Result {
  std::chrono::nanoseconds measured{};
  std::uint64_t requests = 0;  // in the measured time, as are the latencies
  LatencyHistogram latencies;
  std::uint64_t connects = 0;             // churn: in the measured time; else: before it,
  std::chrono::nanoseconds connecting{};  // in this time
  std::uint64_t bytes_checked = 0;        // in the whole run
  std::optional<Records> records;         // in the measured time
  std::uint64_t flood_handshakes = 0;     // likewise, beside the requests
  std::optional<CpuTime> server_cpu;
  std::optional<Memory> server_memory;
  CpuTime client_cpu;
  std::string error;  // empty if every byte came back right
};

// As a table or as JSON on stdout, an error also on stderr. Returns the exit status.
int report(const Options& options, const Result& result);

}  // namespace load_client
