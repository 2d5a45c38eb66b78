#pragma once

#include <chrono>
#include <cstddef>
#include <string_view>

namespace weir {

/// Which interface of the kernel a loop uses.
enum class Engine {
  automatic,  // io_uring where the kernel allows it, else epoll; WEIR_ENGINE=uring|epoll overrides
  uring,
  epoll,
};

struct LoopOptions {
  Engine engine = Engine::automatic;

  /// Entries of io_uring's submission queue; a power of two, 4 to 4096. More is seldom faster and
  /// counts against RLIMIT_MEMLOCK on old kernels; the queue never limits how much is in flight.
  unsigned ring_entries = 256;

  /// Bytes of one receive buffer, 64 to 1 MiB.
  std::size_t buffer_size = 4096;

  /// Receive buffers that a loop may have at the most, 1 to 32768. They are made on demand.
  std::size_t buffer_count = 8192;

  /// For messages, and the thread's name. Copied by the loop.
  std::string_view name = {};

  /// A turn that lasts longer is a stall: something blocks the loop, or computes. Each is counted
  /// (`Metrics::stalls`) and, a few in a second, logged while it lasts, by a thread that is there
  /// as long as any loop of the process runs that wants it, with the stack of the loop's thread,
  /// which may get a signal for that (docs/debugging.md). 0: nobody looks. Not in the simulation.
  std::chrono::milliseconds stall = std::chrono::milliseconds(100);

  /// The processor on which the loop runs, from 0 on (sched_setaffinity(2)); -1: any. Of a pool the
  /// first loop's, the next ones have those behind it. It holds for the thread that runs the loop,
  /// while it does. Nothing in the simulation.
  int cpu = -1;
};

}  // namespace weir
