#pragma once

#include <weir/core/sockets.h>

namespace weir::detail {

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
  int unacknowledged_bytes(int fd) override;
  void close(int fd) noexcept override;
  int look_at(int fd, std::uint16_t events) override;
  // The spare descriptor is in kernel_spare.cpp, any thread's.
  void hold_spare() noexcept override;
  void release_spare() noexcept override;
  int accept_or_shed(int listener) override;
  int keep_accepted(int fd) noexcept override;
};

/// For whatever has no loop, or outlives it. Never destroyed.
KernelSockets& kernel_sockets() noexcept;

/// Moves a descriptor of ours that has a number of the standard streams, which a program may be
/// started without: what is written to stderr must not go to a client. Gives the descriptor, or
/// -errno; what is negative stays as it is.
int above_standard(int fd) noexcept;

/// While it lives, what is opened gets other numbers than the standard streams'.
class StandardStreamsTaken {
 public:
  StandardStreamsTaken() noexcept;
  StandardStreamsTaken(const StandardStreamsTaken&) = delete;
  StandardStreamsTaken& operator=(const StandardStreamsTaken&) = delete;
  ~StandardStreamsTaken();

 private:
  bool taken_[3] = {};
};

}  // namespace weir::detail
