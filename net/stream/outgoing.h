#pragma once

#include <weir/net/stream/out_queue.h>
#include <weir/net/stream/outbox_level.h>

#include <cstddef>
#include <cstdint>

namespace weir::detail {

/// How often somebody looked since anything moved, by whose count a deadline passes.
class alignas(2) IdleRounds {
 public:
  /// Something moved.
  void reset() noexcept { idle_ = stalled_ = 0; }
  [[nodiscard]] bool any() const noexcept { return idle_ > 0 || stalled_ > 0; }
  [[nodiscard]] unsigned idle() noexcept { return idle_++; }
  /// The same, but where there is nothing that could move.
  [[nodiscard]] unsigned stalled(bool has_something) noexcept {
    if (!has_something) stalled_ = 0;
    return has_something ? stalled_++ : 0U;
  }

 private:
  std::uint8_t idle_ = 0;
  std::uint8_t stalled_ = 0;
};

/// What an outbox has accepted, and how far that has gone; what its sink takes it from.
class Outgoing {
 public:
  Outgoing() noexcept = default;
  Outgoing(const Outgoing&) = delete;
  Outgoing& operator=(const Outgoing&) = delete;

  /// What of it the sink takes; `Outbox::sent` removes what has gone.
  [[nodiscard]] OutQueue& queue() noexcept { return queue_; }
  [[nodiscard]] OutboxLevel& level() noexcept { return level_; }
  /// Accepted, and not gone. From any thread.
  [[nodiscard]] std::size_t pending() const noexcept { return level_.pending(); }
  /// Bytes that were ever accepted.
  [[nodiscard]] std::uint64_t accepted() const noexcept { return sent_ + pending(); }
  /// Bytes that have ever gone.
  [[nodiscard]] std::uint64_t gone() const noexcept { return sent_; }
  /// Since anything went.
  [[nodiscard]] IdleRounds& rounds() noexcept { return rounds_; }
  /// More may come.
  [[nodiscard]] bool open() const noexcept { return end_ == End::none; }
  /// All has gone, and the end has not.
  [[nodiscard]] bool finished() const noexcept { return end_ == End::finished; }
  /// Gives up what is queued, which must not be with anybody.
  void clear() noexcept {
    queue_.clear();
    level_.set_pending(0);
  }

 private:
  friend class Outbox;

  enum class End : std::uint8_t { none, wanted, finished, sent, broken };

  /// The queue is not one message alone any more; the sink has that one, unless it looks again.
  void mix(bool looks_again) noexcept {
    if (level_.has(OutboxLevel::kMixed)) return;
    queue_.keep_alone(looks_again);
    level_.add(OutboxLevel::kMixed);
  }

  [[no_unique_address]] OutboxLevel level_;  // what follows lies in its padding
  End end_ = End::none;
  IdleRounds rounds_;
  std::uint64_t sent_ = 0;
  [[no_unique_address]] OutQueue queue_;  // so here, of who derives from this
};

}  // namespace weir::detail
