#include <weir/io/sim/endpoint.h>
#include <weir/io/sim/kernel.h>
#include <weir/io/sim/network.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

namespace weir::sim::detail {
namespace {

using namespace std::chrono_literals;

constexpr auto kKeepAlive = 120s;

}  // namespace

Network::Network(const WorldOptions& options)
    : journal(now_, options.history),
      chance(options.seed, options.faults, now_, journal),
      links(options.faults),
      options_(options) {}

Network::~Network() = default;

void Network::schedule(TimePoint at, std::function<void()> event) {
  events_.push_back({std::max(at, now_), sequence_++, std::move(event)});
  std::push_heap(events_.begin(), events_.end());
}

bool Network::step() {
  if (events_.empty()) return false;
  std::pop_heap(events_.begin(), events_.end());
  const Event event = std::move(events_.back());
  events_.pop_back();
  now_ = event.at;
  event.run();
  return true;
}

TimePoint Network::next() const noexcept {
  return events_.empty() ? TimePoint::max() : events_.front().at;
}

void Network::watch(const std::shared_ptr<Endpoint>& endpoint) {
  if (endpoints_.size() >= most_endpoints_) {
    std::erase_if(endpoints_, [](const auto& one) { return one.expired(); });
    most_endpoints_ = std::max<std::size_t>(64, endpoints_.size() * 2);
  }
  endpoints_.push_back(endpoint);
}

std::size_t Network::add_machine() {
  const std::size_t host = kernels_.size();
  kernels_.push_back(std::make_unique<Kernel>(*this, host));
  journal.add_host();
  return host;
}

Kernel* Network::find_machine(const Address& address) noexcept {
  for (const auto& kernel : kernels_) {
    for (const Address& own : kernel->addresses) {
      if (own.ip == address.ip && own.v6 == address.v6) return kernel.get();
    }
  }
  return nullptr;
}

bool Network::is_taken(const Address& address) const noexcept {
  return std::any_of(kernels_.begin(), kernels_.end(), [&](const auto& kernel) {
    return std::any_of(kernel->addresses.begin(), kernel->addresses.end(), [&](const Address& own) {
      return own.ip == address.ip && own.v6 == address.v6;
    });
  });
}

void Network::cut(std::size_t from, std::size_t to) {
  links.cut(from, to, true);
  journal.note(from, "cut off", "to host " + std::to_string(to));
  probe_later(from);
}

void Network::mend(std::size_t from, std::size_t to) {
  links.cut(from, to, false);
  journal.note(from, "reached again", "host " + std::to_string(to));
}

void Network::stop_faults() {
  chance.stop_faults();
  links.lose_nothing();
}

bool Network::reaches(std::size_t from, std::size_t to) noexcept {
  return kernels_[to]->up() && !links.is_cut(from, to);
}

void Network::probe_later(std::size_t host) {
  for (const auto& one : endpoints_) {
    const auto endpoint = one.lock();
    if (endpoint == nullptr || endpoint->gone || endpoint->state != Endpoint::State::open ||
        !endpoint->keep_alive) {
      continue;
    }
    if (endpoint->remote_host != host && endpoint->kernel.host() != host) continue;
    schedule(after(now_, kKeepAlive), [this, one] {
      const auto asked = one.lock();
      if (asked == nullptr || asked->gone || asked->state != Endpoint::State::open) return;
      const std::size_t here = asked->kernel.host();
      const std::size_t there = asked->remote_host;
      if (!reaches(here, there) || !reaches(there, here)) {
        asked->fail(ETIMEDOUT);
      } else if (const auto peer = asked->peer.lock(); peer == nullptr || peer->gone) {
        asked->fail(ECONNRESET);
      }
    });
  }
}

}  // namespace weir::sim::detail
