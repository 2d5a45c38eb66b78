#pragma once

#include <weir/core/engine.h>

#include <cstdint>

namespace weir {

/// The socket calls of a real kernel; shared by the engines that run on one.
class KernelSockets final : public Sockets {
 public:
  int open(int family) override;
  int bind(int fd, const RawAddress& address) override;
  int listen(int fd, int backlog) override;
  int connect(int fd, const RawAddress& address) override;
  int accept(int listener) override;
  int set(int fd, Option option, int value) override;
  int take_error(int fd) override;
  int local_address(int fd, RawAddress& address) override;
  int peer_address(int fd, RawAddress& address) override;
  int shutdown_send(int fd) override;
  void stop_listening(int fd) noexcept override;
  int unread_bytes(int fd) override;
  void close(int fd) noexcept override;
  int open_spare() override;
  int open_signals(std::span<const int> signals) override;
  int take_signal(int fd) override;
  void close_signals(int fd) noexcept override;
  void raise_signal(int number) noexcept override;
};

/// For whatever has no loop, or outlives it. Never destroyed.
KernelSockets& kernel_sockets() noexcept;

/// CLOCK_MONOTONIC.
TimePoint kernel_now() noexcept;

/// A generator of its own for each engine (SplitMix64), seeded by getrandom(2).
class RandomSource {
 public:
  RandomSource() noexcept;
  explicit RandomSource(std::uint64_t seed) noexcept : state_(seed) {}
  std::uint64_t next() noexcept;

 private:
  std::uint64_t state_;
};

}  // namespace weir
