#pragma once

#include <weir/core/machine.h>

#include <atomic>
#include <cstdint>
#include <memory>

namespace weir::detail {

/// The signals of this process. Any thread's.
class KernelSignals final : public SignalTable {
 public:
  int hold(int fd, std::uint64_t signals) override;
  std::uint64_t take(int fd) override;
  void let_go(int fd) noexcept override;
  void raise(int number) noexcept override;
};

/// The machine that this process runs on.
class KernelMachine final : public Machine {
 public:
  KernelMachine() noexcept;

  [[nodiscard]] TimePoint now() noexcept override;
  [[nodiscard]] std::uint32_t clock_ms() noexcept override;
  [[nodiscard]] std::uint64_t random() noexcept override;
  [[nodiscard]] Sockets& sockets() noexcept override;
  [[nodiscard]] SignalTable& signals() noexcept override { return signals_; }
  std::unique_ptr<IoEngine> make_engine(const LoopOptions& options) override;
  std::unique_ptr<LoopRunner> start_loop(const LoopOptions& options) override;
  Task<std::vector<RawAddress>> look_up(NameQuery query) override;
  void start_work(WorkQueue& queue, std::shared_ptr<Work> work) override;
  Task<bool> start_successor(SuccessorCommand command) override;
  void begin_run(TurnWatch& turns, int cpu) override;
  void end_run(TurnWatch& turns) noexcept override;
  ThreadView look_at_thread(int thread) override;
  std::optional<SocketView> look_at_socket(int fd) noexcept override;

 private:
  KernelSignals signals_;
  std::atomic<std::uint64_t> dice_;
};

/// CLOCK_MONOTONIC.
TimePoint kernel_now() noexcept;

}  // namespace weir::detail
