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
constexpr std::uint64_t kMostLosses = 10;  // of a segment: the last pause is `kMostRetry` or less
static_assert(kFirstRetry * (1 << (kMostLosses - 1)) < kMostRetry);
static_assert(kFirstRetry * (1 << kMostLosses) >= kMostRetry);

}  // namespace

Network::Network(const WorldOptions& options)
    : options_(options),
      now_(std::chrono::hours(1)),
      delays_(seed_of(1)),
      losses_(seed_of(2)),
      faults_(seed_of(3)),
      shapes_(seed_of(4)),
      scheduling_(seed_of(5)),
      ports_(seed_of(6)),
      quirks_(seed_of(8)) {
  default_link_ = {.latency = options.faults.latency,
                   .jitter = options.faults.jitter,
                   .bandwidth = options.faults.bandwidth,
                   .loss = options.faults.loss};
}

Network::~Network() = default;

std::uint64_t Network::seed_of(std::uint64_t stream) const noexcept {
  Random mixer(options_.seed ^ (stream * 0xd1342543de82ef95));
  return mixer.next();
}

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
  histories_.emplace_back();
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

Network::Wire& Network::wire(std::size_t from, std::size_t to) {
  return wires_.try_emplace({from, to}, Wire{.link = default_link_}).first->second;
}

void Network::set_link(std::size_t from, std::size_t to, const Link& link) {
  wire(from, to).link = link;
}

const Link& Network::link(std::size_t from, std::size_t to) const {
  const auto found = wires_.find({from, to});
  return found != wires_.end() ? found->second.link : default_link_;
}

void Network::cut(std::size_t from, std::size_t to) {
  wire(from, to).is_cut = true;
  note(from, "cut off", "to host " + std::to_string(to));
  probe_later(from);
}

void Network::mend(std::size_t from, std::size_t to) {
  wire(from, to).is_cut = false;
  note(from, "reached again", "host " + std::to_string(to));
}

bool Network::is_cut(std::size_t from, std::size_t to) const {
  const auto found = wires_.find({from, to});
  return found != wires_.end() && found->second.is_cut;
}

bool Network::reaches(std::size_t from, std::size_t to) noexcept {
  return kernels_[to]->up() && !is_cut(from, to);
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

TimePoint Network::arrival(std::size_t from, std::size_t to, std::size_t bytes) {
  const std::uint64_t drawn = delays_.next();
  if (from == to) return after(now_, 10us);  // loopback
  Wire& way = wire(from, to);
  TimePoint leaves = now_;
  if (way.link.bandwidth > 0) {
    leaves = std::max(leaves, way.busy_until);
    const auto seconds = std::chrono::nanoseconds(
        static_cast<std::int64_t>(bytes * 1'000'000'000 / way.link.bandwidth));
    leaves += seconds;
    way.busy_until = leaves;
  }
  Duration delay = way.link.latency;
  if (way.link.jitter > Duration::zero()) {
    const std::uint64_t late = drawn % static_cast<std::uint64_t>(way.link.jitter.count() + 1);
    delay += Duration(static_cast<std::int64_t>(choose(ChoiceKind::delay, from, to, late, 0)));
  }
  std::uint64_t losses = 0;
  while (losses_.chance(way.link.loss) && losses < kMostLosses) ++losses;
  losses = std::min(choose(ChoiceKind::loss, from, to, losses, 0), kMostLosses);
  delay += kFirstRetry * ((1 << losses) - 1);  // each pause is twice the one before
  return after(leaves, delay);
}

bool Network::hit(Fault fault, std::size_t host) {
  const double probability = options_.faults.probability(fault);
  bool hits = faults_.chance(probability);
  bool is_ordered = false;
  if (!injected_.empty()) {
    const auto ordered = injected_.find({host, static_cast<std::size_t>(fault)});
    if (ordered != injected_.end()) {
      hits = is_ordered = true;
      if (--ordered->second == 0) injected_.erase(ordered);
    }
  }
  if (tape_ != nullptr && !faults_stopped_) [[unlikely]]
    hits = tape_->choose_fault(fault, host, hits, is_ordered, now_);
  if (hits) {
    ++hits_[static_cast<std::size_t>(fault)];
    trace(host, name_of(fault), -1, 0);
  }
  return hits;
}

void Network::inject(Fault fault, std::size_t host, std::size_t times) {
  if (times > 0 && !faults_stopped_) injected_[{host, static_cast<std::size_t>(fault)}] += times;
}

bool Network::buggify(double probability, std::size_t host) {
  const bool drawn = quirks_.chance(probability);
  const bool is_true = choose(ChoiceKind::buggify, host, 0, drawn ? 1 : 0, 0) != 0;
  if (is_true) trace(host, "buggify", -1, 0);
  return is_true;
}

void Network::stop_faults() {
  faults_stopped_ = true;
  injected_.clear();
  options_.faults = Faults::none();
  default_link_.loss = 0;
  for (auto& [hosts, wire] : wires_) wire.link.loss = 0;
}

void Network::mix(std::uint64_t value) noexcept {
  hash_ = (hash_ ^ value) * 0x9e3779b97f4a7c15;
  hash_ ^= hash_ >> 29;
}

void Network::mix_event(std::size_t host, const char* what, int fd, std::int64_t value,
                        std::span<const std::byte> bytes) {
  mix(static_cast<std::uint64_t>(now_.time_since_epoch().count()));
  mix(host);
  for (const char* c = what; *c != '\0'; ++c) mix(static_cast<unsigned char>(*c));
  mix(static_cast<std::uint64_t>(fd));
  mix(static_cast<std::uint64_t>(value));
  while (bytes.size() >= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data(), 8);
    mix(word);
    bytes = bytes.subspan(8);
  }
  for (const std::byte byte : bytes) mix(static_cast<std::uint64_t>(byte));
  if (counts_ != nullptr) ++(*counts_)[{host, what}];
}

void Network::trace(std::size_t host, const char* what, int fd, std::int64_t value) {
  mix_event(host, what, fd, value, {});
  remember(host, {.at = now_, .what = what, .fd = fd, .value = value, .loop = loop_});
}

void Network::trace_segment(std::size_t host, const char* what, int port, std::int64_t value,
                            std::span<const std::byte> bytes, std::size_t from, TimePoint sent) {
  mix_event(host, what, port, value, bytes);
  remember(host, {.at = now_,
                  .what = what,
                  .fd = port,
                  .value = value,
                  .from = static_cast<std::uint32_t>(from),
                  .sent = sent});
}

void Network::note(std::size_t host, const char* what, std::string text) {
  remember(host, {.at = now_, .what = what, .text = std::move(text), .loop = loop_});
}

const Log& Network::keep_log() {
  if (log_ != nullptr) return *log_;
  log_ = std::make_unique<Log>();
  std::multimap<TimePoint, std::pair<std::size_t, Record>> in_order;
  for (std::size_t host = 0; host < histories_.size(); ++host) {
    for (const Record& record : histories_[host])
      in_order.emplace(record.at, std::pair(host, record));
  }
  log_->reserve(in_order.size());
  for (auto& [at, record] : in_order) log_->push_back(std::move(record));
  return *log_;
}

void Network::remember(std::size_t host, Record&& record) {
  if (log_ != nullptr) [[unlikely]]
    log_->emplace_back(host, record);
  if (options_.history == 0) return;
  std::deque<Record>& history = histories_[host];
  if (history.size() >= options_.history) history.pop_front();
  history.push_back(std::move(record));
}

}  // namespace weir::sim::detail
