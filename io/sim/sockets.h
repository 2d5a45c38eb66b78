#pragma once

#include <weir/core/sockets.h>

#include <cstddef>
#include <cstdint>

namespace weir::sim::detail {

class Endpoint;
class Process;

using weir::detail::RawAddress;
using weir::detail::Sockets;

/// The system calls of a simulated process that concern sockets.
class SimulatedSockets final : public Sockets {
 public:
  explicit SimulatedSockets(Process& process) noexcept : process_(process) {}

  [[nodiscard]] Process& process() const noexcept { return process_; }

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
  int unacknowledged_bytes(int fd) override;
  void close(int fd) noexcept override;
  [[nodiscard]] int native(int /*fd*/) const noexcept override { return -1; }
  int look_at(int fd, std::uint16_t events) override;
  void hold_spare() noexcept override;
  void release_spare() noexcept override;
  int accept_or_shed(int listener) override;
  int keep_accepted(int fd) noexcept override;

 private:
  /// nullptr: there is no such socket.
  [[nodiscard]] Endpoint* find(int fd) const noexcept;
  /// Of a process that still runs.
  [[nodiscard]] Endpoint* find_live(int fd) const noexcept;
  void refill_spare();

  Process& process_;
  std::size_t spare_users_ = 0;
  int spare_ = -1;
};

}  // namespace weir::sim::detail
