#pragma once

#include <weir/core/event_loop.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace weir {

/// An event loop in a thread of its own. The thread blocks all signals, so that they reach the
/// threads of the program, but one that nobody uses (docs/debugging.md). On a simulated host it is
/// a further loop of that host.
class EventLoopThread {
 public:
  /// Starts the thread and waits until its loop stands. Throws what the making of the loop threw.
  explicit EventLoopThread(LoopOptions options = {});
  EventLoopThread(const EventLoopThread&) = delete;
  EventLoopThread& operator=(const EventLoopThread&) = delete;
  /// Stops the loop, destroys it on its thread, and joins the thread. Not from the thread itself.
  ~EventLoopThread();

  [[nodiscard]] EventLoop& loop() const noexcept { return *loop_; }

  /// The same as the destructor, now; the loop is gone then. From any other thread, any number of
  /// times.
  void stop();

 private:
  friend class EventLoopThreadPool;

  std::mutex stopping_;
  std::unique_ptr<detail::LoopRunner> runner_;
  EventLoop* loop_;  // the runner's
  std::shared_ptr<detail::Mailbox> mailbox_;
};

/// A number of loop threads, handed out in turn.
class EventLoopThreadPool {
 public:
  explicit EventLoopThreadPool(LoopOptions options = {});
  EventLoopThreadPool(const EventLoopThreadPool&) = delete;
  EventLoopThreadPool& operator=(const EventLoopThreadPool&) = delete;
  ~EventLoopThreadPool();

  /// Throws `std::invalid_argument` for zero threads, `std::logic_error` if it was started before.
  void start(std::size_t threads);

  /// The loops in turn; from any thread, once started.
  [[nodiscard]] EventLoop& next();

  [[nodiscard]] const std::vector<EventLoop*>& loops() const noexcept { return loops_; }

  /// Stops and joins all threads; their loops are gone then. Not from one of them, else from any
  /// thread, any number of times.
  void stop();

 private:
  LoopOptions options_;
  std::string name_;
  std::mutex stopping_;
  std::vector<std::unique_ptr<EventLoopThread>> threads_;
  std::vector<EventLoop*> loops_;
  std::atomic<std::size_t> next_{0};
};

}  // namespace weir
