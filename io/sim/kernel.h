#pragma once

#include <weir/core/engine.h>
#include <weir/io/sim/address.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace weir::sim::detail {

class Endpoint;
class Network;

/// The TCP of one simulated machine: addresses, ports, and connections without a process.
class Kernel {
 public:
  Kernel(Network& network, std::size_t host) : network_(network), host_(host) {}

  [[nodiscard]] std::size_t host() const noexcept { return host_; }
  [[nodiscard]] bool up() const noexcept { return up_; }
  void power(bool on);

  int bind(const std::shared_ptr<Endpoint>& endpoint, Address address);
  [[nodiscard]] bool is_in_use(const Endpoint& endpoint, const Address& address) const noexcept;
  void unbind(const Endpoint& endpoint);
  /// Gives a connecting endpoint an address and a port; 0 or -errno.
  int choose_local(Endpoint& endpoint, const Address& remote);
  void add_connection(const Address& local, const Address& remote);
  void end_connection(const Address& local, const Address& remote, bool time_wait);
  void adopt(std::shared_ptr<Endpoint> orphan) { orphans_.push_back(std::move(orphan)); }
  void drop(const Endpoint& orphan);
  [[nodiscard]] std::shared_ptr<Endpoint> find_listener(const Address& address,
                                                        const Address& from);
  [[nodiscard]] bool owns(const Address& address) const noexcept;

  std::vector<Address> addresses;

 private:
  using Pair = std::pair<Address, Address>;

  [[nodiscard]] bool port_is_bound(const Address& address) const noexcept;
  [[nodiscard]] bool pair_is_free(const Address& local, const Address& remote);
  [[nodiscard]] bool port_lingers(std::uint16_t port);

  Network& network_;
  std::size_t host_;
  bool up_ = true;
  std::vector<std::shared_ptr<Endpoint>> bound_;
  std::map<Pair, TimePoint> connections_;  // until when the pair is taken
  std::vector<std::shared_ptr<Endpoint>> orphans_;
};

}  // namespace weir::sim::detail
