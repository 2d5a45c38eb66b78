#pragma once

#include <weir/core/turn_watch.h>

#include <pthread.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace weir::detail {

/// Looks at the turns of this process's loops, from a thread that is there as long as any of them
/// is, and says of each stall, while it lasts, that there is one, and what the loop's thread does.
/// Where the thread cannot be had nothing is said. While all loops wait it does, too. Any thread.
///
/// Whoever forks finds the lock free on both sides. The child has no such thread, and the loops
/// that were running are looked at no more: at most one of them goes on, until its next run.
class TurnWatcher {
 public:
  /// Never destroyed: a loop of static duration may run in a destructor.
  static TurnWatcher& instance() noexcept;

  /// The calling thread runs the loop.
  void add(TurnWatch& loop) noexcept;
  void remove(TurnWatch& loop) noexcept;
  /// The loop begins a turn, and has not been looked at any more.
  void wake(TurnWatch& loop) noexcept;

  // For tests.
  /// How often it has looked at the loops.
  [[nodiscard]] std::uint64_t looks() noexcept;
  /// It does not look: all loops wait.
  [[nodiscard]] bool rests() noexcept;

 private:
  TurnWatcher() noexcept;

  void start() noexcept;
  void run() noexcept;
  void tell(std::unique_lock<std::mutex>& lock, TurnWatch& stalled, TimePoint now) noexcept;
  [[nodiscard]] bool all_wait() noexcept;
  void wait_for_next(std::unique_lock<std::mutex>& lock) noexcept;
  void set_unwatched(bool unwatched) noexcept;
  /// The first of those that are to be told of, or nullptr.
  TurnWatch* look(TimePoint now) noexcept;

  std::mutex mutex_;
  std::condition_variable news_;
  List<TurnWatch> loops_;
  Duration pause_{};  // between two looks
  std::uint64_t looks_ = 0;
  enum class Watch : std::uint8_t {
    kept,    // it looks again after the pause
    ending,  // likewise, but the loops have been told that it may be the last time
    off,     // until a loop begins a turn
  } watch_ = Watch::kept;
  pthread_t thread_{};
  bool running_ = false;
};

}  // namespace weir::detail
