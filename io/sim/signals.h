#pragma once

#include <weir/core/machine.h>

#include <cstdint>

namespace weir::sim::detail {

class Process;

/// The signals of a simulated process.
class SimulatedSignals final : public weir::detail::SignalTable {
 public:
  explicit SimulatedSignals(Process& process) noexcept : process_(process) {}

  int hold(int fd, std::uint64_t signals) override;
  std::uint64_t take(int fd) override;
  void let_go(int fd) noexcept override;
  void raise(int number) noexcept override { (void)deliver(number); }

  /// True if somebody holds it.
  bool deliver(int number);

 private:
  Process& process_;
};

}  // namespace weir::sim::detail
