#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace weir::detail {

/// How much an outbox has queued, and why a look at more than that is needed: what the senders of
/// other threads may look at too. Their members are for any thread, as is `pending`; the rest is
/// the outbox's.
class OutboxLevel {
 public:
  enum Obstacle : std::uint32_t {
    kMixed = 1,    // the queue is, or was, not one message that came alone
    kCrowd = 2,    // sends wait
    kFlushes = 4,  // flushes wait
    kEnding = 8,   // not open
    kOthers = 16,  // senders of other threads have sent something, or wait
    kTransformed = 32,
  };

  OutboxLevel() noexcept = default;

  /// Accepted, and not gone.
  [[nodiscard]] std::size_t pending() const noexcept {
    return pending_.load(std::memory_order_relaxed);
  }
  void set_pending(std::size_t pending) noexcept {
    pending_.store(pending, std::memory_order_relaxed);
  }

  [[nodiscard]] bool unobstructed() const noexcept {
    return obstacles_.load(std::memory_order_relaxed) == 0;
  }
  [[nodiscard]] bool has(Obstacle obstacle) const noexcept {
    return (obstacles_.load(std::memory_order_relaxed) & obstacle) != 0;
  }
  void add(Obstacle obstacle) noexcept {
    if (!has(obstacle)) obstacles_.fetch_or(obstacle, std::memory_order_relaxed);
  }
  void remove(Obstacle obstacle) noexcept {
    const auto others = ~static_cast<std::uint32_t>(obstacle);
    if (has(obstacle)) obstacles_.fetch_and(others, std::memory_order_relaxed);
  }

  // For the senders of other threads.
  /// Accepted, or the most there is where somebody waits to send.
  [[nodiscard]] std::size_t pending_for_others() const noexcept {
    return has(kCrowd) ? std::numeric_limits<std::size_t>::max() / 2 : pending();
  }
  /// They have sent something, or wait.
  void others_came() noexcept { obstacles_.fetch_or(kOthers, std::memory_order_relaxed); }
  void others_left() noexcept { obstacles_.fetch_and(~kOthers, std::memory_order_relaxed); }

 private:
  std::atomic<std::size_t> pending_{0};
  std::atomic<std::uint32_t> obstacles_{0};
};

}  // namespace weir::detail
