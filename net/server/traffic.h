#pragma once

#include <weir/net/server/core.h>

#include <atomic>
#include <cstdint>

namespace weir::detail {

/// Bytes of a server's connections on one loop, as that loop has last said. From any thread.
struct Traffic {
  std::atomic<std::uint64_t> in{0};
  std::atomic<std::uint64_t> out{0};
};

/// Has each loop say it. Waits for those that other threads run, so long as a turn of theirs should
/// take; what comes later is there for the next. From any thread.
void update_traffic(const ServerCore& core) noexcept;

}  // namespace weir::detail
