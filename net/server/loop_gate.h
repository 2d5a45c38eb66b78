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

  /// Has the loop do that, and returns when it is done, as `EventLoop::call`; false once the loop
  /// may have ended. Whoever has shut this meanwhile may still be at it.
  template <class Function>
  bool call(Function function) {
    std::optional<EventLoop::Call> call;
    {
      const std::lock_guard lock(mutex_);
      if (gone_) return false;
      call.emplace(loop_, function);
    }
    call->finish();
    return true;
  }
  /// Does it here, if the loop stands still. False if another thread has it; nothing is done if
  /// this is shut.
  template <class Function>
  bool if_idle(Function function) {
    std::optional<EventLoop::Visit> visit;
    {
      const std::lock_guard lock(mutex_);
      if (!open_) return true;
      visit.emplace(loop_);
    }
    if (visit->is_here()) function();
    return visit->is_here();
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

  /// In the child of a fork: whoever had the lock is not there.
  void become_parents() noexcept { new (&mutex_) std::mutex; }

 private:
  EventLoop& loop_;
  const std::shared_ptr<Mailbox> mailbox_;  // outlives the loop
  std::mutex mutex_;
  bool open_ = true;
  bool gone_ = false;
};

}  // namespace weir::detail
