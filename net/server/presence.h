#pragma once

#include <weir/core/event_loop.h>
#include <weir/coro/event.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

namespace weir::detail {

/// Counts what there is of a server: open acceptors, connections on the way to their loop, running
/// handlers, connections. Once the acceptors are closed it only goes down: a drain waits for 0.
class Presence {
 public:
  explicit Presence(std::shared_ptr<Mailbox> base) noexcept : base_(std::move(base)) {}
  Presence(const Presence&) = delete;
  Presence& operator=(const Presence&) = delete;
  ~Presence() { delete note_.load(); }

  // From any thread.
  void enter() noexcept { ++count_; }
  void leave() noexcept {
    if (--count_ == 0) tell();
  }
  [[nodiscard]] bool nobody() const noexcept { return count_ == 0; }

  /// Waits for that; on the base loop. `self` is the same, kept alive meanwhile.
  static Task<> all_gone(std::shared_ptr<Presence> self);

 private:
  void tell() noexcept {
    if (Posted* note = note_.exchange(nullptr)) base_->push(std::unique_ptr<Posted>(note));
  }

  std::shared_ptr<Mailbox> base_;  // outlives its loop
  std::atomic<std::size_t> count_{0};
  std::atomic<Posted*> note_{nullptr};  // made beforehand: the end may be short of memory
  Event gone_;                          // the base loop's
};

/// One of those that are counted, for its life.
class Present {
 public:
  explicit Present(std::shared_ptr<Presence> of) noexcept : of_(std::move(of)) { of_->enter(); }
  Present(Present&& other) noexcept = default;
  Present& operator=(Present&&) = delete;
  ~Present() {
    if (of_ != nullptr) of_->leave();
  }

 private:
  std::shared_ptr<Presence> of_;
};

}  // namespace weir::detail
