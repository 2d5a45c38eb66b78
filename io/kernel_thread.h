#pragma once

#include <weir/core/event_loop.h>
#include <weir/core/machine.h>

#include <unistd.h>

#include <memory>
#include <thread>

namespace weir::detail {

/// A loop in a thread of its own, which blocks all signals.
class KernelThread final : public LoopRunner {
 public:
  /// Waits until the loop stands.
  explicit KernelThread(const LoopOptions& options);
  ~KernelThread() override;

  [[nodiscard]] EventLoop& loop() noexcept override { return *loop_; }

 private:
  EventLoop* loop_ = nullptr;  // lives in the thread
  std::shared_ptr<Mailbox> mailbox_;
  std::thread thread_;
  const pid_t process_ = ::getpid();
};

}  // namespace weir::detail
