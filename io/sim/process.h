#pragma once

#include <weir/core/engine.h>
#include <weir/core/machine.h>
#include <weir/io/sim/endpoint.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace weir::sim::detail {

class Kernel;
class Network;
class SimulatedEngine;

/// An operation that waits at a descriptor.
struct Slot {
  Operation* operation = nullptr;
  SimulatedEngine* engine = nullptr;
  explicit operator bool() const noexcept { return operation != nullptr; }
};

/// An open descriptor of a simulated process. What waits at it completes in the order in which it
/// is done; what happens at different descriptors may be told in any order.
struct Descriptor {
  int fd = -1;
  std::shared_ptr<Endpoint> endpoint;  // none: a spare descriptor, or one of signals
  std::uint64_t signals = 0;           // held; bit n - 1 is signal n
  std::uint64_t came = 0;              // of them, and not taken yet
  Slot accept;
  Slot receive;
  Slot send;
  std::vector<Slot> polls;
  TimePoint last_due{};
  std::uint64_t last_tie = 0;

  [[nodiscard]] bool awaited() const noexcept {
    return accept || receive || send || !polls.empty();
  }
};

/// The descriptors and signals of one simulated process.
class Process final : public Sockets, public weir::detail::SignalTable {
 public:
  Process(Network& network, Kernel& kernel, std::size_t limit)
      : network_(network), kernel_(kernel), limit_(limit) {}

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
  int hold(int fd, std::uint64_t signals) override;
  std::uint64_t take(int fd) override;
  void let_go(int fd) noexcept override;
  void raise(int number) noexcept override;

  /// True if somebody holds it.
  bool deliver_signal(int number);

  /// The world's time, or what an abandoned loop was waiting for: its deadlines pass at once.
  [[nodiscard]] TimePoint now() const noexcept;
  void pass(TimePoint deadline) noexcept { last_hour_ = std::max(last_hour_, deadline); }

  [[nodiscard]] Descriptor* find(int fd) const noexcept;
  void attach(Descriptor& descriptor, Operation& operation, SimulatedEngine& engine);
  /// False if it does not wait there any more.
  bool detach(Descriptor& descriptor, const Operation& operation) noexcept;
  /// Every operation of this engine that waits.
  [[nodiscard]] std::vector<Operation*> waiting_of(const SimulatedEngine& engine) const;
  void progress(Descriptor& descriptor);
  void set_limit(std::size_t limit) noexcept { limit_ = limit; }
  [[nodiscard]] std::size_t open_count() const noexcept { return open_; }
  [[nodiscard]] std::string describe_open() const;
  [[nodiscard]] std::string describe_waiting() const;
  [[nodiscard]] bool dead() const noexcept { return dead_; }
  /// The process ends: the kernel closes what it had open, or, with the machine, forgets it. Its
  /// code may still close its descriptors.
  void die(bool with_machine);
  [[nodiscard]] Kernel& kernel() const noexcept { return kernel_; }

 private:
  int new_descriptor(std::shared_ptr<Endpoint> endpoint);
  void refill_spare();
  [[nodiscard]] bool is_full() const noexcept { return open_ >= limit_; }
  int lack_of_resources();
  int take_client(Endpoint& listener);
  void try_accept(Descriptor& descriptor);
  void try_receive(Descriptor& descriptor);
  bool receive_piece(Descriptor& descriptor, Endpoint& endpoint, bool cut_short);
  void try_send(Descriptor& descriptor);
  void try_polls(Descriptor& descriptor);
  [[nodiscard]] std::uint32_t events(const Descriptor& descriptor) const noexcept;

  Network& network_;
  Kernel& kernel_;
  std::vector<std::unique_ptr<Descriptor>> descriptors_;
  std::size_t limit_;
  std::size_t open_ = 0;
  std::size_t spare_users_ = 0;
  int spare_ = -1;
  bool dead_ = false;
  TimePoint last_hour_{};
};

}  // namespace weir::sim::detail
