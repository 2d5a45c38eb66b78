#pragma once

#include <weir/core/engine.h>
#include <weir/io/sim/descriptors.h>
#include <weir/io/sim/endpoint.h>
#include <weir/io/sim/signals.h>
#include <weir/io/sim/sockets.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace weir::sim::detail {

class Kernel;
class Network;
class SimulatedEngine;

/// One simulated process: what it has open, and what waits there.
class Process final {
 public:
  Process(Network& network, Kernel& kernel, std::size_t limit)
      : descriptors(limit), sockets(*this), signals(*this), network_(network), kernel_(kernel) {}

  [[nodiscard]] Network& network() const noexcept { return network_; }
  [[nodiscard]] Kernel& kernel() const noexcept { return kernel_; }
  [[nodiscard]] bool dead() const noexcept { return dead_; }
  /// The process ends: the kernel closes what it had open, or, with the machine, forgets it. Its
  /// code may still close its descriptors.
  void die(bool with_machine);

  /// The world's time, or what an abandoned loop was waiting for: its deadlines pass at once.
  [[nodiscard]] TimePoint now() const noexcept;
  void pass(TimePoint deadline) noexcept { last_hour_ = std::max(last_hour_, deadline); }

  /// A new descriptor, of an endpoint or of none.
  int open(std::shared_ptr<Endpoint> endpoint);
  void close(int fd) noexcept;
  /// 0, or the -errno of what is short just now.
  int lack_of_resources();
  /// The first of the backlog as a descriptor, or -errno.
  int take_client(Endpoint& listener);

  void attach(Descriptor& descriptor, Operation& operation, SimulatedEngine& engine);
  /// False if it does not wait there any more.
  bool detach(Descriptor& descriptor, const Operation& operation) noexcept;
  /// Every operation of this engine that waits.
  [[nodiscard]] std::vector<Operation*> waiting_of(const SimulatedEngine& engine) const;
  void progress(Descriptor& descriptor);

  DescriptorTable descriptors;
  SimulatedSockets sockets;
  SimulatedSignals signals;

 private:
  void try_accept(Descriptor& descriptor);
  void try_receive(Descriptor& descriptor);
  bool receive_piece(Descriptor& descriptor, Endpoint& endpoint, bool cut_short);
  void try_send(Descriptor& descriptor);
  void try_polls(Descriptor& descriptor);

  Network& network_;
  Kernel& kernel_;
  bool dead_ = false;
  TimePoint last_hour_{};
};

}  // namespace weir::sim::detail
