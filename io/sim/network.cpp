#include <weir/io/sim/network.h>
#include <weir/io/sim/simulated_engine.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace weir::sim {
namespace {

using namespace std::chrono_literals;

/// Numbers far from the process's own descriptors, so that a mix-up is an EBADF.
constexpr int kFirstDescriptor = 1 << 20;

constexpr std::size_t kMostInSegment = 16 << 10;

// As Linux has them by default.
constexpr auto kFirstRetry = 200ms;
constexpr auto kMostRetry = 120s;
constexpr auto kFirstSynRetry = 1s;
constexpr auto kSynTimeout = 127s;
constexpr auto kDataTimeout = 924s;
constexpr auto kTimeWait = 60s;
constexpr auto kNoRoute = 3s;
constexpr auto kKeepAlive = 120s;

constexpr std::uint32_t kReadHangUp = 0x2000;  // POLLRDHUP
constexpr std::uint32_t kAlways = POLLERR | POLLHUP;

constexpr std::uint32_t kBroken = POLLIN | POLLOUT | POLLERR | POLLHUP | kReadHangUp;

TimePoint later(TimePoint now, Duration by) noexcept { return after(now, by); }

}  // namespace

// ---- addresses ----------------------------------------------------------------------------------

std::optional<Address> Address::from(const RawAddress& raw) noexcept {
  sa_family_t family = 0;
  if (raw.size < sizeof family) return std::nullopt;
  std::memcpy(&family, raw.bytes, sizeof family);
  Address address;
  if (family == AF_INET && raw.size >= sizeof(sockaddr_in)) {
    sockaddr_in in{};
    std::memcpy(&in, raw.bytes, sizeof in);
    std::memcpy(address.ip.data(), &in.sin_addr, 4);
    address.port = ntohs(in.sin_port);
    return address;
  }
  if (family == AF_INET6 && raw.size >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in{};
    std::memcpy(&in, raw.bytes, sizeof in);
    std::memcpy(address.ip.data(), &in.sin6_addr, 16);
    address.v6 = true;
    address.port = ntohs(in.sin6_port);
    return address;
  }
  return std::nullopt;
}

std::optional<Address> Address::parse(std::string_view text) {
  Address address;
  const std::string copy(text);
  if (::inet_pton(AF_INET, copy.c_str(), address.ip.data()) == 1) return address;
  address.v6 = true;
  if (::inet_pton(AF_INET6, copy.c_str(), address.ip.data()) == 1) return address;
  return std::nullopt;
}

RawAddress Address::raw() const noexcept {
  RawAddress raw;
  if (v6) {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(port);
    std::memcpy(&in.sin6_addr, ip.data(), 16);
    std::memcpy(raw.bytes, &in, sizeof in);
    raw.size = sizeof in;
  } else {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    std::memcpy(&in.sin_addr, ip.data(), 4);
    std::memcpy(raw.bytes, &in, sizeof in);
    raw.size = sizeof in;
  }
  return raw;
}

std::string Address::text() const {
  char shown[INET6_ADDRSTRLEN] = {};
  ::inet_ntop(v6 ? AF_INET6 : AF_INET, ip.data(), shown, sizeof shown);
  std::string text = v6 ? "[" + std::string(shown) + "]" : std::string(shown);
  return port == 0 ? text : text + ":" + std::to_string(port);
}

bool Address::is_loopback() const noexcept {
  if (!v6) return ip[0] == 127;
  return std::all_of(ip.begin(), ip.end() - 1, [](auto byte) { return byte == 0; }) && ip[15] == 1;
}

Address Address::with_port(std::uint16_t other) const noexcept {
  Address address = *this;
  address.port = other;
  return address;
}

// ---- endpoints ----------------------------------------------------------------------------------

Endpoint::Endpoint(Network& network, Kernel& on, bool is_v6)
    : v6(is_v6),
      send_capacity(network.options().send_buffer),
      receive_capacity(network.options().receive_buffer),
      kernel(on),
      network_(network) {
  local.v6 = remote.v6 = is_v6;
}

std::size_t Endpoint::room() const noexcept {
  const std::size_t queued = output_.size() - output_head_;
  return queued >= send_capacity ? 0 : send_capacity - queued;
}

std::uint64_t Endpoint::window_edge() const noexcept {
  const std::size_t queued = unread();
  return received_ + (queued >= receive_capacity ? 0 : receive_capacity - queued);
}

void Endpoint::progress() {
  if (descriptor != nullptr) process->progress(*descriptor);
}

void Endpoint::read(std::byte* into, std::size_t count) {
  std::memcpy(into, input_.data() + input_head_, count);
  input_head_ += count;
  if (input_head_ == input_.size()) {
    input_.clear();
    input_head_ = 0;
  }
  // A window that opens is told once that is worth a segment.
  if (state == State::open && window_edge() >= advertised_ + receive_capacity / 4) acknowledge();
}

void Endpoint::write(const std::byte* from, std::size_t count) {
  output_.append(reinterpret_cast<const char*>(from), count);
}

void Endpoint::pump() {
  if (state != State::open) return;
  const std::uint64_t end = acked_ + (output_.size() - output_head_);
  while (sent_ < end && sent_ < edge_) {
    const auto size = static_cast<std::size_t>(
        std::min<std::uint64_t>({end - sent_, edge_ - sent_, kMostInSegment}));
    const auto begin = output_head_ + static_cast<std::size_t>(sent_ - acked_);
    sent_ += size;
    transmit(SegmentKind::data, output_.substr(begin, size));
  }
  if (fin_queued && !fin_sent_ && sent_ == end) {
    fin_sent_ = true;
    closed_first_ = !fin_received;
    transmit(SegmentKind::fin);
  }
}

void Endpoint::shutdown_send() {
  fin_queued = true;
  pump();
}

void Endpoint::stop_listening() {
  if (state != State::listening) return;
  state = State::fresh;
  while (!waiting.empty()) {
    const auto client = std::move(waiting.front());
    waiting.pop_front();
    client->close(true);
  }
}

void Endpoint::close(bool with_reset) {
  descriptor = nullptr;
  process = nullptr;
  switch (state) {
    case State::listening:
      stop_listening();
      [[fallthrough]];
    case State::fresh:
      if (bound) kernel.unbind(*this);
      gone = true;
      return;
    case State::connecting:
      end_quietly();
      state = State::broken;
      return;
    case State::broken:
      return;
    case State::open:
      break;
  }
  if (with_reset || reset_on_close || unread() > 0) {
    transmit(SegmentKind::reset);
    end_with_reset();
    return;
  }
  orphan = true;
  kernel.adopt(shared_from_this());
  fin_queued = true;
  pump();
  settle_close();
}

void Endpoint::end_with_reset() {
  const auto self = shared_from_this();
  state = State::broken;
  end_quietly();
}

/// The kernel lets go; what still comes from the peer is answered with a reset.
void Endpoint::end_quietly() {
  if (std::exchange(gone, true)) return;
  if (bound) kernel.unbind(*this);
  const bool waits = state == State::open && closed_first_;
  kernel.end_connection(local, remote, waits);
  if (orphan) kernel.drop(*this);
}

/// An orphan goes when both directions are over.
void Endpoint::settle_close() {
  if (!orphan || gone || !fin_acked_) return;
  if (fin_received) {
    end_quietly();
    return;
  }
  // The peer may never close: the kernel waits for a minute (tcp_fin_timeout).
  network_.schedule(later(network_.now(), kTimeWait), [self = weak_from_this()] {
    if (const auto endpoint = self.lock(); endpoint != nullptr && !endpoint->gone) {
      endpoint->end_quietly();
    }
  });
}

std::uint32_t Endpoint::events() const noexcept {
  switch (state) {
    case State::fresh:
      return POLLOUT | POLLHUP;
    case State::listening:
      return waiting.empty() ? 0U : std::uint32_t{POLLIN};
    case State::connecting:
      return 0;
    case State::broken:
      return kBroken;
    case State::open:
      break;
  }
  std::uint32_t held = 0;
  if (unread() > 0 || fin_received) held |= POLLIN;
  if (fin_received) held |= kReadHangUp;
  if (fin_received && fin_queued) held |= POLLHUP;
  if (room() > 0) held |= POLLOUT;
  return held;
}

void Endpoint::send_syn(bool to_somebody) {
  if (to_somebody) {
    transmit(SegmentKind::syn);
    return;
  }
  network_.schedule(later(network_.now(), kNoRoute), [self = shared_from_this()] {
    if (self->state == State::connecting) self->refuse(EHOSTUNREACH);
  });
}

void Endpoint::refuse(int why) {
  if (state != State::connecting) return;
  end_quietly();
  state = State::broken;
  error = why;
  wire_.clear();
  progress();
}

void Endpoint::fail(int why) {
  if (state == State::connecting) {
    refuse(why);
    return;
  }
  if (state != State::open) return;
  network_.trace(kernel.host(), "connection broken", descriptor != nullptr ? descriptor->fd : -1,
                 why);
  state = State::broken;
  error = why;
  output_.clear();
  output_head_ = 0;
  wire_.clear();
  const auto self = shared_from_this();  // an orphan goes with this
  end_quietly();
  progress();
}

void Endpoint::reset_both() {
  const auto other = peer.lock();
  fail(ECONNRESET);
  if (other != nullptr && !other->gone) {
    network_.schedule(network_.arrival(kernel.host(), remote_host, 0),
                      [other] { other->fail(ECONNRESET); });
  }
}

void Endpoint::vanish() noexcept {
  state = State::broken;
  gone = true;
  wire_.clear();
}

void Endpoint::transmit(SegmentKind kind, std::string bytes) {
  Segment segment{.kind = kind, .bytes = std::move(bytes)};
  segment.acked = received_;
  segment.edge = window_edge();
  segment.fin_received = fin_received;
  // The peer takes its word for it from these only.
  if (kind != SegmentKind::data && kind != SegmentKind::fin) advertised_ = segment.edge;
  // Nothing overtakes what the connection sent before.
  last_arrival_ =
      std::max(last_arrival_, network_.arrival(kernel.host(), remote_host, segment.bytes.size()));
  segment.arrival = last_arrival_;
  wire_.push_back(std::move(segment));
  if (!delivery_arranged_) arrange_delivery(last_arrival_);
}

void Endpoint::arrange_delivery(TimePoint at) {
  delivery_arranged_ = true;
  network_.schedule(at, [self = shared_from_this()] { self->deliver_front(); });
}

void Endpoint::deliver_front() {
  delivery_arranged_ = false;
  if (wire_.empty() || !kernel.up()) return;
  const SegmentKind kind = wire_.front().kind;
  const bool is_syn = kind == SegmentKind::syn;
  const auto retry_later = [&] {
    const TimePoint now = network_.now();
    if (retry_ == Duration::zero()) {
      failing_since_ = now;
      retry_ = is_syn ? Duration(kFirstSynRetry) : Duration(kFirstRetry);
    }
    Duration limit = is_syn ? Duration(kSynTimeout) : Duration(kDataTimeout);
    if (user_timeout.count() > 0 && !is_syn) limit = user_timeout;
    if (now - failing_since_ >= limit) {
      fail(ETIMEDOUT);
      return;
    }
    arrange_delivery(std::min(later(now, retry_), later(failing_since_, limit)));
    retry_ = std::min<Duration>(retry_ * 2, kMostRetry);
  };
  if (!network_.reaches(kernel.host(), remote_host)) {
    retry_later();
    return;
  }
  if (is_syn) {
    const auto listener = network_.kernel(remote_host).find_listener(remote, local);
    const bool full = listener != nullptr && listener->waiting.size() > listener->backlog;
    if (full) {
      retry_later();
      return;
    }
  }
  retry_ = {};
  const Segment segment = std::move(wire_.front());
  wire_.pop_front();
  const auto self = shared_from_this();
  if (is_syn) {
    answer_syn(segment);
  } else {
    const auto to = peer.lock();
    const std::size_t there = remote_host;
    network_.trace(there, name_of(segment.kind), remote.port,
                   static_cast<std::int64_t>(segment.bytes.size()),
                   std::as_bytes(std::span(segment.bytes)));
    if (to != nullptr && !to->gone) {
      to->receive(segment);
    } else if (segment.kind == SegmentKind::data || segment.kind == SegmentKind::fin ||
               segment.kind == SegmentKind::syn_ack) {
      network_.schedule(network_.arrival(there, kernel.host(), 0),
                        [self] { self->fail(ECONNRESET); });
    }
  }
  if (!wire_.empty() && !delivery_arranged_) {
    arrange_delivery(std::max(network_.now(), wire_.front().arrival));
  }
}

/// At the other machine: what becomes of our SYN.
void Endpoint::answer_syn(const Segment& segment) {
  Kernel& there = network_.kernel(remote_host);
  const auto self = shared_from_this();
  network_.trace(there.host(), "syn", remote.port, local.port);
  const bool lost = network_.hit(Fault::connection_lost, there.host());
  const bool refused = network_.hit(Fault::connection_refused, there.host());
  if (lost) {
    network_.schedule(later(network_.now(), kSynTimeout), [self] { self->refuse(ETIMEDOUT); });
    return;
  }
  const auto listener = there.find_listener(remote, local);
  if (refused || listener == nullptr) {
    if (!refused && local == remote) {  // it met itself (RFC 9293, simultaneous open)
      peer = weak_from_this();
      edge_ = window_edge();
      state = State::open;
      progress();
      return;
    }
    network_.schedule(network_.arrival(there.host(), kernel.host(), 0),
                      [self] { self->refuse(ECONNREFUSED); });
    return;
  }
  const auto client = std::make_shared<Endpoint>(network_, there, v6);
  client->state = State::open;
  client->local = remote;
  client->remote = local;
  client->remote_host = kernel.host();
  client->peer = weak_from_this();
  client->send_capacity = listener->send_capacity;
  client->receive_capacity = listener->receive_capacity;
  client->keep_alive = listener->keep_alive;
  client->edge_ = segment.edge;
  peer = client;
  there.add_connection(client->local, client->remote);
  network_.watch(client);
  client->transmit(SegmentKind::syn_ack);
  listener->waiting.push_back(client);
  listener->progress();
}

void Endpoint::receive(const Segment& segment) {
  switch (segment.kind) {
    case SegmentKind::syn:
      break;
    case SegmentKind::syn_ack:
      take_syn_ack(segment);
      break;
    case SegmentKind::data:
      take_data(segment);
      break;
    case SegmentKind::ack:
      take_ack(segment);
      break;
    case SegmentKind::fin:
      if (state != State::open) break;
      fin_received = true;
      acknowledge();
      progress();
      settle_close();
      break;
    case SegmentKind::reset:
      fail(ECONNRESET);
      break;
  }
}

void Endpoint::take_syn_ack(const Segment& segment) {
  if (state != State::connecting) {
    if (const auto other = peer.lock()) other->fail(ECONNRESET);
    return;
  }
  state = State::open;
  edge_ = segment.edge;
  progress();
}

void Endpoint::take_data(const Segment& segment) {
  if (orphan) {
    // Nobody will read it: the sender is told.
    transmit(SegmentKind::reset);
    end_with_reset();
    return;
  }
  if (state != State::open) return;
  received_ += segment.bytes.size();
  WEIR_ASSERT(unread() + segment.bytes.size() <= receive_capacity);
  input_.append(segment.bytes);
  progress();
  if (state == State::open) acknowledge();
}

void Endpoint::acknowledge() { transmit(SegmentKind::ack); }

void Endpoint::take_ack(const Segment& segment) {
  if (state != State::open) return;
  if (segment.acked > acked_) {
    output_head_ += static_cast<std::size_t>(segment.acked - acked_);
    acked_ = segment.acked;
    if (output_head_ == output_.size()) {
      output_.clear();
      output_head_ = 0;
    } else if (output_head_ > (std::size_t{64} << 10)) {
      output_.erase(0, output_head_);
      output_head_ = 0;
    }
  }
  edge_ = std::max(edge_, segment.edge);
  if (segment.fin_received && fin_sent_) fin_acked_ = true;
  pump();
  progress();
  settle_close();
}

// ---- processes ----------------------------------------------------------------------------------

int Process::new_descriptor(std::shared_ptr<Endpoint> endpoint) {
  std::size_t index = 0;
  while (index < descriptors_.size() && descriptors_[index] != nullptr) ++index;
  if (index == descriptors_.size()) descriptors_.emplace_back();
  descriptors_[index] = std::make_unique<Descriptor>();
  Descriptor& descriptor = *descriptors_[index];
  descriptor.fd = kFirstDescriptor + static_cast<int>(index);
  if (endpoint != nullptr) {
    endpoint->descriptor = &descriptor;
    endpoint->process = this;
    descriptor.endpoint = std::move(endpoint);
  }
  ++open_;
  return descriptor.fd;
}

Descriptor* Process::find(int fd) const noexcept {
  const auto index = static_cast<std::size_t>(static_cast<std::int64_t>(fd) - kFirstDescriptor);
  if (fd < kFirstDescriptor || index >= descriptors_.size()) return nullptr;
  return descriptors_[index].get();
}

int Process::lack_of_resources() {
  if (is_full()) return -EMFILE;
  const std::size_t host = kernel_.host();
  const bool no_descriptor = network_.hit(Fault::no_descriptor, host);
  const bool system_full = network_.hit(Fault::system_full, host);
  const bool no_memory = network_.hit(Fault::no_memory, host);
  if (no_descriptor) return -EMFILE;
  if (system_full) return -ENFILE;
  return no_memory ? -ENOMEM : 0;
}

int Process::open(int family) {
  if (dead_) return -EBADF;
  if (family != AF_INET && family != AF_INET6) return -EAFNOSUPPORT;  // not modelled
  if (const int lack = lack_of_resources(); lack < 0) return lack;
  auto endpoint = std::make_shared<Endpoint>(network_, kernel_, family == AF_INET6);
  network_.watch(endpoint);
  return new_descriptor(std::move(endpoint));
}

int Process::bind(int fd, const RawAddress& address) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  const auto wanted = Address::from(address);
  if (!wanted || wanted->v6 != descriptor->endpoint->v6) return -EINVAL;
  return kernel_.bind(descriptor->endpoint, *wanted);
}

int Process::listen(int fd, int backlog) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  Endpoint& endpoint = *descriptor->endpoint;
  const bool again = endpoint.state == Endpoint::State::listening;  // with another backlog
  if (!again && (endpoint.state != Endpoint::State::fresh || !endpoint.bound)) return -EINVAL;
  if (!again && kernel_.is_in_use(endpoint, endpoint.local)) return -EADDRINUSE;
  endpoint.state = Endpoint::State::listening;
  endpoint.backlog = static_cast<std::size_t>(std::clamp(backlog, 0, 4096));
  network_.trace(kernel_.host(), "listen", fd, endpoint.local.port);
  return 0;
}

int Process::connect(int fd, const RawAddress& address) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  auto to = Address::from(address);
  Endpoint& endpoint = *descriptor->endpoint;
  if (!to || to->v6 != endpoint.v6) return -EAFNOSUPPORT;
  if (endpoint.state != Endpoint::State::fresh) return -EISCONN;
  if (to->is_any()) to->ip = Address::parse(to->v6 ? "::1" : "127.0.0.1")->ip;
  if (const int result = kernel_.choose_local(endpoint, *to); result < 0) return result;
  endpoint.state = Endpoint::State::connecting;
  endpoint.remote = *to;
  Kernel* machine = kernel_.owns(*to) ? &kernel_ : network_.find_machine(*to);
  endpoint.remote_host = machine != nullptr ? machine->host() : kernel_.host();
  kernel_.add_connection(endpoint.local, endpoint.remote);
  network_.trace(kernel_.host(), "connect", fd, to->port);
  endpoint.send_syn(machine != nullptr);
  return -EINPROGRESS;
}

/// The first of the backlog as a descriptor, or -errno.
int Process::take_client(Endpoint& listener) {
  if (listener.state != Endpoint::State::listening) return -EINVAL;
  if (is_full()) return -EMFILE;
  if (listener.waiting.empty()) return -EAGAIN;
  const bool aborted = network_.hit(Fault::connection_aborted, kernel_.host());
  const bool no_buffers = network_.hit(Fault::no_buffers, kernel_.host());
  const bool interrupted = network_.hit(Fault::interrupted, kernel_.host());
  if (const int lack = lack_of_resources(); lack < 0) return lack;
  if (no_buffers) return -ENOBUFS;
  if (interrupted) return -EINTR;
  std::shared_ptr<Endpoint> client = std::move(listener.waiting.front());
  listener.waiting.pop_front();
  if (aborted) {
    client->close(true);
    return -ECONNABORTED;
  }
  const int fd = new_descriptor(std::move(client));
  network_.trace(kernel_.host(), "accepted", fd, listener.local.port);
  return fd;
}

int Process::accept(int listener) {
  Descriptor* descriptor = find(listener);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  return take_client(*descriptor->endpoint);
}

int Process::set(int fd, Option option, int value) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  Endpoint& endpoint = *descriptor->endpoint;
  switch (option) {
    case Option::no_delay:
      break;  // nothing is delayed
    case Option::keep_alive:
      endpoint.keep_alive = value != 0;
      break;
    case Option::reuse_address:
      endpoint.reuse_address = value != 0;
      break;
    case Option::reuse_port:
      endpoint.reuse_port = value != 0;
      break;
    case Option::v6_only:
      endpoint.v6_only = value != 0;
      break;
    case Option::user_timeout_ms:
      endpoint.user_timeout = std::chrono::milliseconds(value);
      break;
    case Option::reset_on_close:
      endpoint.reset_on_close = value != 0;
      break;
    case Option::receive_buffer:
      // A window that was granted is not taken back.
      if (endpoint.state == Endpoint::State::fresh ||
          endpoint.state == Endpoint::State::listening) {
        endpoint.receive_capacity = static_cast<std::size_t>(std::max(value, 1024));
      }
      break;
    case Option::send_buffer:
      endpoint.send_capacity = static_cast<std::size_t>(std::max(value, 1024));
      break;
  }
  return 0;
}

int Process::take_error(int fd) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  return std::exchange(descriptor->endpoint->error, 0);
}

int Process::local_address(int fd, RawAddress& address) {
  Descriptor* descriptor = find(fd);
  if (descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  address = descriptor->endpoint->local.raw();
  return 0;
}

int Process::peer_address(int fd, RawAddress& address) {
  Descriptor* descriptor = find(fd);
  if (descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  if (descriptor->endpoint->state != Endpoint::State::open) return -ENOTCONN;
  address = descriptor->endpoint->remote.raw();
  return 0;
}

int Process::shutdown_send(int fd) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  if (descriptor->endpoint->state != Endpoint::State::open) return -ENOTCONN;
  descriptor->endpoint->shutdown_send();
  return 0;
}

void Process::stop_listening(int fd) noexcept {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return;
  network_.trace(kernel_.host(), "stop listening", fd, descriptor->endpoint->local.port);
  descriptor->endpoint->stop_listening();
}

int Process::unread_bytes(int fd) {
  Descriptor* descriptor = find(fd);
  if (descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  return static_cast<int>(descriptor->endpoint->unread());
}

void Process::close(int fd) noexcept {
  Descriptor* descriptor = find(fd);
  WEIR_ASSERT(descriptor != nullptr);   // closed twice
  WEIR_ASSERT(!descriptor->awaited());  // an operation still needs it
  const std::shared_ptr<Endpoint> endpoint = std::move(descriptor->endpoint);
  descriptors_[static_cast<std::size_t>(fd - kFirstDescriptor)].reset();
  --open_;
  if (dead_) return;
  network_.trace(kernel_.host(), "close", fd, 0);
  if (endpoint != nullptr) endpoint->close(false);
}

int Process::open_spare() {
  if (dead_) return -EBADF;
  return is_full() ? -EMFILE : new_descriptor(nullptr);
}

int Process::open_signals(std::span<const int> signals) {
  if (dead_) return -EBADF;
  if (is_full()) return -EMFILE;
  const int fd = new_descriptor(nullptr);
  find(fd)->signals.assign(signals.begin(), signals.end());
  return fd;
}

int Process::take_signal(int fd) {
  const Descriptor* descriptor = find(fd);
  if (descriptor == nullptr) return -EBADF;
  for (const int number : descriptor->signals) {
    const auto found = std::find(pending_signals_.begin(), pending_signals_.end(), number);
    if (found == pending_signals_.end()) continue;
    pending_signals_.erase(found);
    return number;
  }
  return -EAGAIN;
}

void Process::close_signals(int fd) noexcept { close(fd); }

void Process::raise_signal(int number) noexcept { (void)deliver_signal(number); }

bool Process::deliver_signal(int number) {
  bool wanted = false;
  for (const auto& descriptor : descriptors_) {
    if (descriptor == nullptr) continue;
    const auto& signals = descriptor->signals;
    wanted = wanted || std::find(signals.begin(), signals.end(), number) != signals.end();
  }
  if (!wanted || dead_) return false;
  // A second one, while the first has not been taken, adds nothing (signal(7)).
  if (std::find(pending_signals_.begin(), pending_signals_.end(), number) ==
      pending_signals_.end()) {
    pending_signals_.push_back(number);
  }
  for (std::size_t i = 0; i < descriptors_.size(); ++i) {
    if (descriptors_[i] != nullptr && !descriptors_[i]->signals.empty()) progress(*descriptors_[i]);
  }
  return true;
}

void Process::die(bool with_machine) {
  if (std::exchange(dead_, true)) return;
  for (const auto& descriptor : descriptors_) {
    if (descriptor == nullptr || descriptor->endpoint == nullptr) continue;
    Endpoint& endpoint = *descriptor->endpoint;
    if (with_machine) {
      endpoint.vanish();
    } else {
      endpoint.close(false);
    }
    endpoint.descriptor = nullptr;
    endpoint.process = nullptr;
  }
}

std::string Process::describe_open() const {
  std::string text;
  for (const auto& descriptor : descriptors_) {
    if (descriptor == nullptr) continue;
    text += text.empty() ? "" : ", ";
    text += std::to_string(descriptor->fd);
    if (const Endpoint* endpoint = descriptor->endpoint.get()) {
      text += " (" + endpoint->local.text() + " to " + endpoint->remote.text() + ")";
    }
  }
  return text;
}

std::string Process::describe_waiting() const {
  std::string text;
  const auto add = [&text](const char* what, const Descriptor& descriptor) {
    text += text.empty() ? "" : ", ";
    text += what;
    if (const Endpoint* endpoint = descriptor.endpoint.get()) {
      text += " at " + endpoint->local.text();
      if (endpoint->remote.port != 0) text += " from " + endpoint->remote.text();
    }
  };
  for (const auto& descriptor : descriptors_) {
    if (descriptor == nullptr) continue;
    if (descriptor->accept) add("accept", *descriptor);
    if (descriptor->receive) add("receive", *descriptor);
    if (descriptor->send) add("send", *descriptor);
    if (!descriptor->polls.empty()) {
      add(descriptor->signals.empty() ? "readiness" : "a signal", *descriptor);
    }
  }
  return text;
}

std::uint32_t Process::events(const Descriptor& descriptor) const noexcept {
  if (descriptor.endpoint != nullptr) return descriptor.endpoint->events();
  for (const int number : descriptor.signals) {
    if (std::find(pending_signals_.begin(), pending_signals_.end(), number) !=
        pending_signals_.end()) {
      return POLLIN;
    }
  }
  return 0;
}

void Process::attach(Descriptor& descriptor, Operation& operation, SimulatedEngine& engine) {
  const Slot slot{&operation, &engine};
  const auto put = [&](Slot& place) {
    WEIR_ASSERT(!place);  // one at a time
    place = slot;
  };
  switch (operation.kind) {
    case OperationKind::accept:
      put(descriptor.accept);
      break;
    case OperationKind::receive:
    case OperationKind::receive_into:
      put(descriptor.receive);
      break;
    case OperationKind::send:
      put(descriptor.send);
      break;
    case OperationKind::poll:
      descriptor.polls.push_back(slot);
      break;
    case OperationKind::read_file:
      break;
  }
}

bool Process::detach(Descriptor& descriptor, const Operation& operation) noexcept {
  for (Slot* slot : {&descriptor.accept, &descriptor.receive, &descriptor.send}) {
    if (slot->operation != &operation) continue;
    *slot = {};
    return true;
  }
  return std::erase_if(descriptor.polls,
                       [&](const Slot& slot) { return slot.operation == &operation; }) > 0;
}

std::vector<Operation*> Process::waiting_of(const SimulatedEngine& engine) const {
  std::vector<Operation*> found;
  const auto look = [&](const Slot& slot) {
    if (slot && slot.engine == &engine) found.push_back(slot.operation);
  };
  for (const auto& descriptor : descriptors_) {
    if (descriptor == nullptr) continue;
    look(descriptor->accept);
    look(descriptor->receive);
    look(descriptor->send);
    for (const Slot& slot : descriptor->polls) look(slot);
  }
  return found;
}

void Process::progress(Descriptor& descriptor) {
  if (dead_) return;
  if (descriptor.accept) try_accept(descriptor);
  if (descriptor.receive) try_receive(descriptor);
  if (descriptor.send) try_send(descriptor);
  if (!descriptor.polls.empty()) try_polls(descriptor);
}

void Process::try_accept(Descriptor& descriptor) {
  const Slot slot = descriptor.accept;
  for (;;) {
    const int fd = descriptor.endpoint == nullptr ? -ENOTSOCK : take_client(*descriptor.endpoint);
    if (fd == -EAGAIN) return;
    const bool more = fd >= 0 && !network_.hit(Fault::queue_overflow, kernel_.host());
    if (!more) descriptor.accept = {};
    slot.engine->complete(*slot.operation, descriptor, fd, more);
    if (!more) return;
  }
}

void Process::try_receive(Descriptor& descriptor) {
  const Slot slot = descriptor.receive;
  Operation& operation = *slot.operation;
  const std::size_t host = kernel_.host();
  const auto finish = [&](int result) {
    descriptor.receive = {};
    slot.engine->complete(operation, descriptor, result, false);
  };
  if (descriptor.endpoint == nullptr) {
    finish(-ENOTSOCK);
    return;
  }
  // It may end the connection, and our hold on it.
  const std::shared_ptr<Endpoint> endpoint = descriptor.endpoint;
  while (descriptor.receive) {
    if (endpoint->state != Endpoint::State::open && endpoint->state != Endpoint::State::broken) {
      finish(-ENOTCONN);
      return;
    }
    if (endpoint->unread() == 0) {
      if (endpoint->error != 0) {
        finish(-std::exchange(endpoint->error, 0));
      } else if (endpoint->fin_received || endpoint->state == Endpoint::State::broken) {
        finish(0);
      }
      return;
    }
    const bool reset = network_.hit(Fault::reset, host);
    const bool no_memory = network_.hit(Fault::no_memory, host);
    const bool interrupted = network_.hit(Fault::interrupted, host);
    const bool cut_short = network_.hit(Fault::short_receive, host);
    if (reset && endpoint->state == Endpoint::State::open) {
      endpoint->reset_both();
      continue;
    }
    if (no_memory || interrupted) {
      finish(no_memory ? -ENOMEM : -EINTR);
      return;
    }
    const bool many = operation.kind == OperationKind::receive;
    const std::size_t most = many ? slot.engine->buffer_size() : operation.size;
    std::size_t count = std::min(endpoint->unread(), most);
    const std::size_t part = 1 + network_.shapes().below(count);
    if (cut_short) count = part;
    if (!many) {
      check_lent(operation.data, operation.size);
      endpoint->read(operation.data, count);
      finish(static_cast<int>(count));
      return;
    }
    if (network_.hit(Fault::no_buffers, host) || !slot.engine->has_buffer()) {
      slot.engine->starve(operation, descriptor);
      return;
    }
    const std::uint32_t buffer = slot.engine->take_buffer();
    endpoint->read(slot.engine->data_of(buffer), count);
    const bool more = !network_.hit(Fault::queue_overflow, host);
    if (!more) descriptor.receive = {};
    slot.engine->complete(operation, descriptor, static_cast<int>(count), more, buffer);
  }
}

void Process::try_send(Descriptor& descriptor) {
  const Slot slot = descriptor.send;
  const Operation& operation = *slot.operation;
  const std::size_t host = kernel_.host();
  const auto finish = [&](int result) {
    descriptor.send = {};
    slot.engine->complete(*slot.operation, descriptor, result, false);
  };
  const std::shared_ptr<Endpoint> endpoint = descriptor.endpoint;
  if (endpoint == nullptr) {
    finish(-ENOTSOCK);
    return;
  }
  if (endpoint->state == Endpoint::State::connecting) return;
  if (endpoint->state == Endpoint::State::broken) {
    const int why = std::exchange(endpoint->error, 0);
    finish(why != 0 ? -why : -EPIPE);
    return;
  }
  if (endpoint->state != Endpoint::State::open || endpoint->fin_queued) {
    finish(-EPIPE);
    return;
  }
  const std::size_t room = endpoint->room();
  if (room == 0) return;
  const bool reset = network_.hit(Fault::reset, host);
  const bool no_memory = network_.hit(Fault::no_memory, host);
  const bool interrupted = network_.hit(Fault::interrupted, host);
  const bool cut_short = network_.hit(Fault::short_send, host);
  if (reset) {
    endpoint->reset_both();  // which comes back here, for the error
    return;
  }
  if (no_memory || interrupted) {
    finish(no_memory ? -ENOMEM : -EINTR);
    return;
  }
  const std::span<const Slice> slices(operation.slices, operation.size);
  std::size_t total = 0;
  for (const Slice& slice : slices) total += slice.size;
  std::size_t left = std::min(total, room);
  const std::size_t part = 1 + network_.shapes().below(left);
  if (cut_short && left > 0) left = part;
  const auto taken = static_cast<int>(left);
  for (const Slice& slice : slices) {
    const std::size_t count = std::min(slice.size, left);
    check_lent(slice.data, slice.size);
    endpoint->write(static_cast<const std::byte*>(slice.data), count);
    left -= count;
  }
  finish(taken);
  endpoint->pump();
}

void Process::try_polls(Descriptor& descriptor) {
  const std::uint32_t held = events(descriptor);
  if (held == 0) return;
  std::vector<Slot> waiting;
  waiting.swap(descriptor.polls);
  for (const Slot& slot : waiting) {
    const std::uint32_t ready = held & (slot.operation->events | kAlways);
    if (ready == 0) {
      descriptor.polls.push_back(slot);
      continue;
    }
    slot.engine->complete(*slot.operation, descriptor, static_cast<int>(ready), false);
  }
}

// ---- kernels ------------------------------------------------------------------------------------

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
    const std::uint64_t start = network_.ports().below(ports);
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
  const std::uint64_t start = network_.ports().below(ports);
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
    connections_[{local, remote}] = later(network_.now(), kTimeWait);
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

// ---- the network --------------------------------------------------------------------------------

const char* name_of(OperationKind kind) noexcept {
  switch (kind) {
    case OperationKind::accept:
      return "accept gave";
    case OperationKind::receive:
      return "receive gave";
    case OperationKind::receive_into:
      return "receive into gave";
    case OperationKind::send:
      return "send gave";
    case OperationKind::poll:
      return "poll gave";
    case OperationKind::read_file:
      return "read file gave";
  }
  return "";
}

const char* name_of(SegmentKind kind) noexcept {
  switch (kind) {
    case SegmentKind::syn:
      return "syn";
    case SegmentKind::syn_ack:
      return "syn ack";
    case SegmentKind::data:
      return "data";
    case SegmentKind::ack:
      return "ack";
    case SegmentKind::fin:
      return "fin";
    case SegmentKind::reset:
      return "reset";
  }
  return "";
}

Network::Network(const WorldOptions& options)
    : options_(options),
      now_(std::chrono::hours(1)),
      delays_(seed_of(1)),
      losses_(seed_of(2)),
      faults_(seed_of(3)),
      shapes_(seed_of(4)),
      scheduling_(seed_of(5)),
      ports_(seed_of(6)) {
  default_link_ = {.latency = options.faults.latency,
                   .jitter = options.faults.jitter,
                   .bandwidth = options.faults.bandwidth,
                   .loss = options.faults.loss};
}

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
    schedule(later(now_, kKeepAlive), [this, one] {
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
  if (from == to) return later(now_, 10us);  // loopback
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
    delay += Duration(
        static_cast<std::int64_t>(drawn % static_cast<std::uint64_t>(way.link.jitter.count() + 1)));
  }
  for (Duration retry = kFirstRetry; losses_.chance(way.link.loss) && retry < kMostRetry;
       retry *= 2) {
    delay += retry;
  }
  return later(leaves, delay);
}

bool Network::hit(Fault fault, std::size_t host) {
  const double probability = options_.faults.probability(fault);
  bool hits = faults_.chance(probability);
  if (!injected_.empty()) {
    const auto ordered = injected_.find({host, static_cast<std::size_t>(fault)});
    if (ordered != injected_.end()) {
      hits = true;
      if (--ordered->second == 0) injected_.erase(ordered);
    }
  }
  if (hits) {
    ++hits_[static_cast<std::size_t>(fault)];
    trace(host, name_of(fault), -1, 0);
  }
  return hits;
}

void Network::inject(Fault fault, std::size_t host, std::size_t times) {
  if (times > 0) injected_[{host, static_cast<std::size_t>(fault)}] += times;
}

void Network::mix(std::uint64_t value) noexcept {
  hash_ = (hash_ ^ value) * 0x9e3779b97f4a7c15;
  hash_ ^= hash_ >> 29;
}

void Network::trace(std::size_t host, const char* what, int fd, std::int64_t value,
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
  remember(host, {now_, what, fd, value, {}});
}

void Network::note(std::size_t host, const char* what, std::string text) {
  remember(host, {now_, what, -1, 0, std::move(text)});
}

void Network::remember(std::size_t host, Record record) {
  if (options_.history == 0) return;
  std::deque<Record>& history = histories_[host];
  if (history.size() >= options_.history) history.pop_front();
  history.push_back(std::move(record));
}

}  // namespace weir::sim
