#pragma once

#include <weir/coro/scheduler.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>

namespace weir::detail {

class IoEngine;

/// What other threads hold of a loop: a queue to push to and a way to wake the sleeper. Shared, so
/// that it may outlive the loop; posting to a loop that has ended deletes the work unrun.
class Mailbox {
 public:
  explicit Mailbox(IoEngine& engine) noexcept : engine_(&engine) {}
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;
  ~Mailbox();

  /// From any thread. Work of one thread runs in the order in which it was posted.
  void push(std::unique_ptr<Posted> work);

  /// Work without a class of its own.
  template <class Function>
  void post(Function&& function) {
    using Stored = PostedFunction<std::decay_t<Function>>;
    push(std::make_unique<Stored>(std::forward<Function>(function)));
  }

  /// Has the loop look around (`Scheduler::knock`). From any thread.
  void knock() noexcept;
  bool take_knock() noexcept {
    return knocked_.load(std::memory_order_relaxed) &&
           knocked_.exchange(false, std::memory_order_acq_rel);
  }

  /// Ends the loop's `run`. From any thread; it counts even before the run.
  void request_stop();
  bool take_stop_request() noexcept;

  /// Loop's thread: runs what has been pushed so far; an exception of one is reported to the loop
  /// and harms no other. Gives how many.
  std::size_t run(Scheduler& loop);

  /// Loop's thread: says that it is going to sleep. False if there is something to do instead.
  bool fall_asleep() noexcept;
  void wake_up() noexcept { asleep_.store(false, std::memory_order_relaxed); }

  /// Loop's thread: the engine goes; from now on pushed work is deleted.
  void close() noexcept;

  /// In the child of a fork: whoever had the lock is not there, and who sleeps is the parent's.
  void become_parents() noexcept {
    new (&engine_mutex_) std::mutex;
    engine_ = nullptr;
    of_parent_ = true;
  }
  /// The loop is that of the parent of a fork: nobody but the thread that asks has to do with it.
  [[nodiscard]] bool is_of_parent() const noexcept { return of_parent_; }

 private:
  void wake_sleeper();
  static Posted* reversed(Posted* newest) noexcept;

  std::atomic<Posted*> newest_{nullptr};  // a stack, newest first
  std::atomic<bool> stop_requested_{false};
  std::atomic<bool> knocked_{false};
  std::atomic<bool> asleep_{false};
  std::atomic<bool> closed_{false};
  bool of_parent_ = false;
  std::mutex engine_mutex_;  // held while waking, so that the engine cannot go meanwhile
  IoEngine* engine_;
};

}  // namespace weir::detail
