#pragma once

#include <weir/core/assert.h>
#include <weir/core/engine.h>
#include <weir/core/metrics.h>
#include <weir/io/host_poll.h>
#include <weir/io/receive_pool.h>

#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <utility>

namespace weir::detail {

/// What all engines do alike: they say where each operation stands, count, and end what is
/// cancelled before anybody has begun with it. An engine writes the rest, of which these are
/// called from here:
///
///     void start(Operation&) noexcept;     // submitted just now; gives it the state that it has
///     void stop(Operation&) noexcept;      // cancelled for the first time, and not ended yet
///     void exchange(TimePoint deadline);   // hands over, waits, and gives what came to `deliver`
///     int descriptor(TimePoint deadline) noexcept;  // readable when there is something to
///     exchange
///
/// What it will not start, or has stopped, it gives to `end`: that is told at the end of the wait.
template <class Self, class Pool>
class EngineBase : public IoEngine {
 public:
  [[nodiscard]] bool idle() const noexcept final { return in_flight_ == 0; }

  void submit(Operation& operation) noexcept final {
    WEIR_ASSERT(!operation.in_flight());
    operation.cancel_wanted = false;
    ++in_flight_;
    if (abandoned_) {
      end(operation);
    } else {
      self().start(operation);
    }
  }

  void cancel(Operation& operation) noexcept final {
    if (!operation.in_flight() || operation.cancel_wanted) return;
    operation.cancel_wanted = true;
    if (operation.state != Operation::State::ended) self().stop(operation);
  }

  void wait(TimePoint deadline) final {
    if (!abandoned_) self().exchange(deadline);
    List<Operation> ended;
    ended.splice_back(ended_);
    while (Operation* operation = ended.pop_front()) self().finish(*operation, -ECANCELED);
  }

  int poll_fd(TimePoint deadline) final {
    return host_poll_.fd(self().descriptor(deadline), deadline);
  }

  void add_metrics(Metrics& metrics) const noexcept final {
    metrics.waits += counters_.waits;
    metrics.submitted += counters_.submitted;
    metrics.completed += counters_.completed;
    metrics.cancelled += counters_.cancelled;
    metrics.wakes += counters_.wakes;
    metrics.starved += counters_.starved;
    metrics.overflows += counters_.overflows;
    metrics.operations += in_flight_;
    metrics.buffers += pool_->made();
    metrics.buffers_leased += pool_->leased();
  }

  void for_each_lease(void* context, void (*visit)(void*, const Buffer&)) const final {
    pool_->for_each_lease(context, visit);
  }

 protected:
  struct Retire {
    void operator()(Pool* pool) const noexcept { pool->retire(); }
  };

  explicit EngineBase(Pool* pool) noexcept : pool_(pool) {}

  /// In a forked child what the kernel has of this engine is the parent's.
  void check_process() const {
    if (process_ == ::getpid()) return;
    throw std::logic_error(
        "weir: this event loop was made in another process, before a fork; make the loop, or the "
        "server that has it, in the process that runs it");
  }
  ~EngineBase() override = default;

  /// The kernel will not do it, or does it no longer.
  void end(Operation& operation) noexcept {
    operation.state = Operation::State::ended;
    ended_.push_back(operation);
  }

  /// One result of several.
  void deliver(Operation& operation, std::int32_t result, Buffer* buffer) noexcept {
    operation.on_complete(operation, {result, true, buffer});
  }

  /// The last result: the operation is its owner's again, and may be gone after it.
  void finish(Operation& operation, std::int32_t result, Buffer* buffer = nullptr) noexcept {
    operation.state = Operation::State::idle;
    --in_flight_;
    operation.on_complete(operation, {result, false, buffer});
  }

  std::unique_ptr<Pool, Retire> pool_;
  List<Operation> ended_;  // to be told so
  bool abandoned_ = false;
  std::size_t in_flight_ = 0;
  Metrics counters_;
  const pid_t process_ = ::getpid();
  HostPoll host_poll_;

 private:
  Self& self() noexcept { return static_cast<Self&>(*this); }
};

}  // namespace weir::detail
