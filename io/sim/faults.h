#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace weir::sim {

/// What may go wrong by chance, or once by order (`World::inject`).
enum class Fault : std::uint8_t {
  short_receive,       // a receive gives less than there is
  short_send,          // a send takes less than there is room for
  late_completion,     // a completion comes late; those of other sockets overtake it
  reset,               // the network resets the connection (ECONNRESET at both ends)
  connection_refused,  // a connect meets a reset although somebody listens
  connection_lost,     // a connect is never answered (ETIMEDOUT after two minutes)
  connection_aborted,  // accept gives ECONNABORTED
  no_descriptor,       // EMFILE
  system_full,         // ENFILE
  no_buffers,          // ENOBUFS: a receive finds no buffer for a moment, accept fails
  no_memory,           // ENOMEM
  interrupted,         // EINTR
  queue_overflow,      // an operation with many results ends early and has to be started again
  lost_cancel,         // a cancel comes too late: the operation goes on for a moment
};

inline constexpr std::size_t kFaults = 14;

/// The name of a fault, as it stands above.
const char* name_of(Fault fault) noexcept;

/// How the network and the kernels behave. Probabilities are for each operation concerned.
struct Faults {
  std::chrono::nanoseconds latency = std::chrono::microseconds(100);  // one way
  std::chrono::nanoseconds jitter = {};  // up to this much is added, evenly
  std::uint64_t bandwidth = 0;           // bytes a second in each direction; 0: no limit
  double loss =
      0;  // of a segment; TCP sends it again, so that it shows as a delay of 200 ms and up

  double short_receive = 0;
  double short_send = 0;
  double late_completion = 0;
  std::chrono::nanoseconds lateness = std::chrono::milliseconds(5);  // the most
  double reset = 0;
  double connection_refused = 0;
  double connection_lost = 0;
  double connection_aborted = 0;
  double no_descriptor = 0;
  double system_full = 0;
  double no_buffers = 0;
  double no_memory = 0;
  double interrupted = 0;
  double queue_overflow = 0;
  double lost_cancel = 0;

  [[nodiscard]] double probability(Fault fault) const noexcept;

  /// A fast network where nothing goes wrong.
  static Faults none() noexcept { return {}; }
  /// What every server meets: pieces of any size, lateness, now and then a loss. No connection
  /// breaks.
  static Faults mild() noexcept;
  /// All of it, with connections that break and resources that run out.
  static Faults harsh() noexcept;
};

}  // namespace weir::sim
