#pragma once

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
};

}  // namespace weir
