#include <weir/io/sim/endpoint.h>
#include <weir/io/sim/kernel.h>
#include <weir/io/sim/network.h>

#include <algorithm>
#include <cerrno>

namespace weir::sim::detail {

void Kernel::power(bool on) {
  up_ = on;
  if (on) return;
  for (const auto& orphan : orphans_) orphan->vanish();
  orphans_.clear();
  for (const auto& endpoint : bound_) {
    for (const auto& client : endpoint->waiting) client->vanish();
    endpoint->waiting.clear();
  }
  bound_.clear();
  connections_.clear();
}

bool Kernel::owns(const Address& address) const noexcept {
  if (address.is_loopback()) return true;
  return std::any_of(addresses.begin(), addresses.end(),
                     [&](const Address& own) { return own.ip == address.ip; });
}

bool Kernel::port_is_bound(const Address& address) const noexcept {
  return std::any_of(bound_.begin(), bound_.end(),
                     [&](const auto& other) { return other->local.port == address.port; });
}

bool Kernel::port_lingers(std::uint16_t port) {
  const TimePoint now = network_.now();
  return std::any_of(connections_.begin(), connections_.end(), [&](const auto& entry) {
    return entry.first.first.port == port && entry.second > now;
  });
}

bool Kernel::pair_is_free(const Address& local, const Address& remote) {
  const auto found = connections_.find({local, remote});
  if (found == connections_.end()) return true;
  if (found->second > network_.now()) return false;
  connections_.erase(found);
  return true;
}

/// By one with which the endpoint may not share it: SO_REUSEADDR lets those share that do not
/// listen, SO_REUSEPORT all.
bool Kernel::is_in_use(const Endpoint& endpoint, const Address& address) const noexcept {
  return std::any_of(bound_.begin(), bound_.end(), [&](const auto& other) {
    if (other.get() == &endpoint || other->local.port != address.port) return false;
    const bool apart =
        other->v6 != endpoint.v6
            ? (other->v6 ? other->v6_only : endpoint.v6_only) || other->v6_only
            : !other->local.is_any() && !address.is_any() && other->local.ip != address.ip;
    const bool shared = (other->reuse_port && endpoint.reuse_port) ||
                        (other->reuse_address && endpoint.reuse_address &&
                         other->state != Endpoint::State::listening);
    return !apart && !shared;
  });
}

int Kernel::bind(const std::shared_ptr<Endpoint>& endpoint, Address address) {
  if (!address.is_any() && !owns(address)) return -EADDRNOTAVAIL;
  if (endpoint->bound) return -EINVAL;
  if (address.port == 0) {
    const WorldOptions& options = network_.options();
    const std::uint64_t ports = std::uint64_t{options.last_port} - options.first_port + 1;
    const std::uint64_t start = network_.chance.port(host_, ports);
    for (std::uint64_t i = 0; i < ports && address.port == 0; ++i) {
      const auto port = static_cast<std::uint16_t>(options.first_port + (start + i) % ports);
      if (!port_is_bound(address.with_port(port)) && !port_lingers(port)) address.port = port;
    }
    if (address.port == 0) return -EADDRINUSE;
  }
  if (is_in_use(*endpoint, address)) return -EADDRINUSE;
  if (!endpoint->reuse_address && port_lingers(address.port)) return -EADDRINUSE;
  endpoint->local = address;
  endpoint->bound = true;
  bound_.push_back(endpoint);
  return 0;
}

void Kernel::unbind(const Endpoint& endpoint) {
  std::erase_if(bound_, [&](const auto& other) { return other.get() == &endpoint; });
}

int Kernel::choose_local(Endpoint& endpoint, const Address& remote) {
  if (endpoint.bound && endpoint.local.port != 0 && !endpoint.local.is_any()) {
    return pair_is_free(endpoint.local, remote) ? 0 : -EADDRNOTAVAIL;
  }
  Address local;
  local.v6 = remote.v6;
  if (remote.is_loopback() || owns(remote)) {
    local.ip = remote.ip;
  } else {
    const auto own = std::find_if(addresses.begin(), addresses.end(),
                                  [&](const Address& address) { return address.v6 == remote.v6; });
    if (own == addresses.end()) return -ENETUNREACH;
    local.ip = own->ip;
  }
  const WorldOptions& options = network_.options();
  const std::uint64_t ports = std::uint64_t{options.last_port} - options.first_port + 1;
  const std::uint64_t start = network_.chance.port(host_, ports);
  for (std::uint64_t i = 0; i < ports; ++i) {
    local.port = static_cast<std::uint16_t>(options.first_port + (start + i) % ports);
    if (!port_is_bound(local) && pair_is_free(local, remote)) {
      endpoint.local = local;
      return 0;
    }
  }
  return -EADDRNOTAVAIL;
}

void Kernel::add_connection(const Address& local, const Address& remote) {
  connections_[{local, remote}] = TimePoint::max();
}

void Kernel::end_connection(const Address& local, const Address& remote, bool time_wait) {
  if (time_wait) {
    connections_[{local, remote}] = after(network_.now(), kTimeWait);
  } else {
    connections_.erase({local, remote});
  }
}

void Kernel::drop(const Endpoint& orphan) {
  std::erase_if(orphans_, [&](const auto& other) { return other.get() == &orphan; });
}

std::shared_ptr<Endpoint> Kernel::find_listener(const Address& address, const Address& from) {
  std::vector<std::shared_ptr<Endpoint>> found;
  for (const auto& endpoint : bound_) {
    if (endpoint->state != Endpoint::State::listening || endpoint->local.port != address.port) {
      continue;
    }
    const bool same = endpoint->v6 == address.v6 && endpoint->local.ip == address.ip;
    const bool any = endpoint->local.is_any() &&
                     (endpoint->v6 == address.v6 || (endpoint->v6 && !endpoint->v6_only));
    if (same || any) found.push_back(endpoint);
  }
  if (found.empty()) return nullptr;
  // By the client's address, as SO_REUSEPORT does: the same for each look at one SYN.
  return found[from.port % found.size()];
}

}  // namespace weir::sim::detail
