#pragma once

#include <weir/core/engine.h>
#include <weir/core/event_loop.h>
#include <weir/core/machine.h>
#include <weir/core/metrics.h>
#include <weir/core/options.h>
#include <weir/core/work_queue.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "schedules.h"

namespace weir::schedules {

/// An engine without a kernel: what is sent has gone by the next `wait`, nothing ever comes, and
/// the loop sleeps in a `Doorbell`.
class ModelEngine final : public detail::IoEngine {
 public:
  using Operation = detail::Operation;

  [[nodiscard]] std::string_view name() const noexcept override { return "model"; }
  void attach() override {}
  void abandon() noexcept override {
    while (Operation* operation = operations_.pop_front()) complete(*operation, -ECANCELED);
  }
  void submit(Operation& operation) noexcept override {
    operation.state = Operation::State::submitted;
    operation.cancel_wanted = false;
    operations_.push_back(operation);
  }
  void cancel(Operation& operation) noexcept override { operation.cancel_wanted = true; }
  void wait(TimePoint deadline) override {
    detail::List<Operation> looked_at;
    looked_at.splice_back(operations_);
    bool any = false;
    while (Operation* operation = looked_at.pop_front()) {
      std::int32_t result = 0;
      if (ends(*operation, result)) {
        any = true;
        complete(*operation, result);
      } else {
        operations_.push_back(*operation);
      }
    }
    (void)bell_.wait(any ? TimePoint::min() : deadline);
  }
  void wake() noexcept override { bell_.ring(); }
  [[nodiscard]] bool idle() const noexcept override { return operations_.empty(); }
  void add_metrics(Metrics&) const noexcept override {}

  /// Bytes that have gone.
  [[nodiscard]] std::size_t sent() const noexcept { return sent_; }

 private:
  static void complete(Operation& operation, std::int32_t result) noexcept {
    operation.state = Operation::State::idle;
    operation.on_complete(operation, {result, 0, nullptr});
  }
  bool ends(const Operation& operation, std::int32_t& result) noexcept {
    using Kind = detail::OperationKind;
    if (operation.cancel_wanted) {
      result = -ECANCELED;
      return true;
    }
    if (operation.kind != Kind::send && operation.kind != Kind::send_now) return false;
    for (std::uint32_t i = 0; i < operation.gather.count; ++i) {
      result += static_cast<std::int32_t>(operation.gather.slices[i].size);
    }
    sent_ += static_cast<std::size_t>(result);
    return true;
  }

  detail::List<Operation> operations_;
  std::size_t sent_ = 0;
  Doorbell bell_;
};

/// Time, which passes only while no thread can do anything, and threads for what blocks.
class ModelMachine final : public detail::Machine {
 public:
  static ModelMachine& instance() noexcept {
    static ModelMachine machine;
    return machine;
  }

  [[nodiscard]] TimePoint now() noexcept override { return std::chrono::steady_clock::now(); }
  [[nodiscard]] std::uint64_t random() noexcept override { return 1; }
  [[nodiscard]] detail::Sockets& sockets() noexcept override {
    return detail::process_machine().sockets();
  }
  [[nodiscard]] detail::SignalTable& signals() noexcept override {
    return detail::process_machine().signals();
  }
  std::unique_ptr<detail::IoEngine> make_engine(const LoopOptions&) override {
    return std::make_unique<ModelEngine>();
  }
  std::unique_ptr<detail::LoopRunner> start_loop(const LoopOptions&) override {
    throw std::logic_error("the model starts no loops");
  }
  Task<std::vector<detail::RawAddress>> look_up(detail::NameQuery) override {
    throw std::logic_error("the model knows no names");
  }
  void start_work(detail::WorkQueue& queue, std::shared_ptr<detail::Work> work) override {
    queue.push(std::move(work));
  }
  Task<bool> start_successor(detail::SuccessorCommand) override {
    throw std::logic_error("the model has no programs");
  }
};

/// A loop on them.
class ModelLoop {
 public:
  ModelLoop()
      : loop_(LoopOptions{.stall = std::chrono::milliseconds(0)}, ModelMachine::instance(),
              std::make_unique<ModelEngine>()) {}
  EventLoop& operator*() noexcept { return loop_; }
  EventLoop* operator->() noexcept { return &loop_; }
  [[nodiscard]] std::size_t sent() noexcept {
    return static_cast<ModelEngine&>(loop_.engine()).sent();
  }

 private:
  EventLoop loop_;
};

}  // namespace weir::schedules
