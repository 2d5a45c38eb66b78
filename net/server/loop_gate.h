#pragma once

#include <weir/core/event_loop.h>

#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <utility>

namespace weir::detail {

/// The way to a loop that may end before those who call on it. From any thread.
class LoopGate {
 public:
  explicit LoopGate(EventLoop& loop) : loop_(loop), mailbox_(loop.mailbox()) {}
  LoopGate(const LoopGate&) = delete;
  LoopGate& operator=(const LoopGate&) = delete;

  /// To be used on its thread, or as long as the gate is open.
  [[nodiscard]] EventLoop& loop() const noexcept { return loop_; }
  /// Whether this thread runs the loop, which may have gone.
  [[nodiscard]] bool is_here() const noexcept { return EventLoop::current_or_null() == &loop_; }
  [[nodiscard]] bool leads_to(const std::shared_ptr<Mailbox>& mailbox) const noexcept {
    return mailbox == mailbox_;
  }

  /// Has the loop do that; false once this is shut. What was posted before is done, or is deleted
  /// when the loop ends.
  bool post(std::unique_ptr<Posted> work) {
    const std::lock_guard lock(mutex_);
    if (open_) mailbox_->push(std::move(work));
    return open_;
  }
  template <class Function>
  bool post_function(Function function) {
    return post(std::make_unique<PostedFunction<Function>>(std::move(function)));
  }
  /// The first time only, and needs no memory.
  void post_once(std::unique_ptr<Posted>& note) noexcept {
    const std::lock_guard lock(mutex_);
    if (open_ && note != nullptr) mailbox_->push(std::move(note));
  }

  /// Whether another thread runs the loop now; nothing if this is shut.
  [[nodiscard]] std::optional<bool> runs_elsewhere() const {
    const std::lock_guard lock(mutex_);
    if (!open_) return std::nullopt;
    return loop_.runs_elsewhere();
  }
  /// False if another thread runs the loop; else it stands still, or this is shut and nothing is
  /// done.
  template <class Function>
  bool if_idle(Function function) {
    const std::lock_guard lock(mutex_);
    return !open_ || loop_.if_idle(std::move(function));
  }

  /// On the loop's thread. False if it is shut.
  bool shut() noexcept {
    const std::lock_guard lock(mutex_);
    return std::exchange(open_, false);
  }
  /// Shut, and nothing is left to be done: the loop may end.
  void leave() noexcept {
    const std::lock_guard lock(mutex_);
    gone_ = true;
  }
  [[nodiscard]] bool gone() const {
    const std::lock_guard lock(mutex_);
    return gone_;
  }

  /// In the child of a fork: whoever had the lock is not there.
  void become_parents() noexcept { new (&mutex_) std::mutex; }

 private:
  EventLoop& loop_;
  const std::shared_ptr<Mailbox> mailbox_;  // outlives the loop
  mutable std::mutex mutex_;
  bool open_ = true;
  bool gone_ = false;
};

}  // namespace weir::detail
