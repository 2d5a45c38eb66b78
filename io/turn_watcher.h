#pragma once

#include <weir/core/turn_watch.h>

#include <pthread.h>

#include <condition_variable>
#include <mutex>

namespace weir::detail {

/// Looks at the turns of this process's loops, from a thread that is there as long as any of them
/// is, and says of each stall, while it lasts, that there is one. Where the thread cannot be had
/// nothing is said. Any thread.
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

 private:
  TurnWatcher() noexcept;

  void start() noexcept;
  void run() noexcept;
  /// The first of those that are to be told of, or nullptr.
  TurnWatch* look(TimePoint now) noexcept;

  std::mutex mutex_;
  std::condition_variable news_;
  List<TurnWatch> loops_;
  Duration pause_{};  // between two looks
  pthread_t thread_{};
  bool running_ = false;
};

}  // namespace weir::detail
