#pragma once

#include <weir/core/histogram.h>
#include <weir/net/server/core.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace weir::detail {

/// Bytes of a server's connections on one loop, as that loop has last said. From any thread.
struct Traffic {
  std::atomic<std::uint64_t> in{0};
  std::atomic<std::uint64_t> out{0};

  /// From when a connection was accepted until its handler is called: see `add_nanoseconds`.
  [[nodiscard]] Histogram waits() const noexcept {
    const std::lock_guard lock(mutex_);
    return waits_;
  }
  void add_wait(Duration wait) noexcept {
    const std::lock_guard lock(mutex_);
    add_nanoseconds(waits_, wait.count());
  }

 private:
  mutable std::mutex mutex_;
  Histogram waits_;
};

/// Has each loop say it, of one server or several. From any thread.
class TrafficUpdate {
 public:
  void ask(const ServerCore& core) noexcept;
  /// For the loops that other threads run, so long as a turn of theirs should take; what comes
  /// later is there for the next.
  void wait() noexcept;

  class Asked;  // those that were, and have not answered

 private:
  std::shared_ptr<Asked> asked_;
};

}  // namespace weir::detail
