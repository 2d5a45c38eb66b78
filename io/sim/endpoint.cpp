#include <weir/core/assert.h>
#include <weir/io/sim/endpoint.h>
#include <weir/io/sim/kernel.h>
#include <weir/io/sim/network.h>
#include <weir/io/sim/process.h>

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

namespace weir::sim::detail {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMostInSegment = 16 << 10;
constexpr auto kFirstSynRetry = 1s;
constexpr auto kSynTimeout = 127s;
constexpr auto kDataTimeout = 924s;
constexpr auto kNoRoute = 3s;

constexpr std::uint32_t kReadHangUp = 0x2000;  // POLLRDHUP
constexpr std::uint32_t kBroken = POLLIN | POLLOUT | POLLHUP | kReadHangUp;

}  // namespace

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

Endpoint::Endpoint(Network& network, Kernel& on, bool is_v6)
    : v6(is_v6),
      send_capacity(network.options().send_buffer),
      receive_capacity(network.options().receive_buffer),
      kernel(on),
      network_(network) {
  local.v6 = remote.v6 = is_v6;
}

std::size_t Endpoint::room() const noexcept {
  const std::size_t queued = unacknowledged();
  return queued >= send_capacity ? 0 : send_capacity - queued;
}

/// sk_stream_is_writeable: a sender is woken for what is worth it.
bool Endpoint::has_much_room() const noexcept {
  return room() > 0 && room() >= unacknowledged() / 2;
}

std::size_t Endpoint::room_for_send() noexcept {
  full_ = full_ ? !has_much_room() : room() == 0;
  return full_ ? 0 : room();
}

std::uint64_t Endpoint::window_edge() const noexcept {
  const std::size_t queued = unread();
  return received_ + (queued >= receive_capacity ? 0 : receive_capacity - queued);
}

void Endpoint::progress() {
  if (descriptor != nullptr) process->progress(*descriptor);
}

void Endpoint::read(std::byte* into, std::size_t count) {
  std::memcpy(into, input_.view().data(), count);
  input_.remove(count);
  // A window that opens is told once that is worth a segment.
  if (state == State::open && window_edge() >= advertised_ + receive_capacity / 4) {
    transmit(SegmentKind::ack);
  }
}

void Endpoint::write(const std::byte* from, std::size_t count) {
  output_.append({reinterpret_cast<const char*>(from), count});
}

void Endpoint::pump() {
  if (state != State::open) return;
  const std::uint64_t end = acked_ + unacknowledged();
  while (sent_ < end && sent_ < edge_) {
    const auto size = static_cast<std::size_t>(
        std::min<std::uint64_t>({end - sent_, edge_ - sent_, kMostInSegment}));
    const auto begin = static_cast<std::size_t>(sent_ - acked_);
    sent_ += size;
    transmit(SegmentKind::data, std::string(output_.view().substr(begin, size)));
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
  if ((with_reset || reset_on_close || unread() > 0) && !is_over()) {
    transmit(SegmentKind::reset);
    const auto self = shared_from_this();
    state = State::broken;
    end_quietly();
    return;
  }
  orphan = true;
  kernel.adopt(shared_from_this());
  fin_queued = true;
  pump();
  settle_close();
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
  network_.schedule(after(network_.now(), kTimeWait), [self = weak_from_this()] {
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
      return kBroken | (error != 0 ? std::uint32_t{POLLERR} : 0U);
    case State::open:
      break;
  }
  std::uint32_t held = 0;
  if (unread() > 0 || fin_received) held |= POLLIN;
  if (fin_received) held |= kReadHangUp;
  if (fin_received && fin_queued) held |= POLLHUP;
  if (has_much_room() || fin_queued) held |= POLLOUT;
  return held;
}

bool Endpoint::is_over() const noexcept {
  return state == State::open && fin_received && fin_acked_;
}

/// The end goes before an error that came behind it (SOCK_DONE).
int Endpoint::end_of_input() noexcept {
  if (fin_received) return 0;
  if (error != 0) return -std::exchange(error, 0);
  return state == State::broken ? 0 : -EAGAIN;
}

void Endpoint::send_syn(bool to_somebody) {
  if (to_somebody) {
    transmit(SegmentKind::syn);
    return;
  }
  network_.schedule(after(network_.now(), kNoRoute), [self = shared_from_this()] {
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
  network_.journal.trace(kernel.host(), "connection broken",
                         descriptor != nullptr ? descriptor->fd : -1, why);
  state = State::broken;
  error = why;
  output_.clear();
  wire_.clear();
  const auto self = shared_from_this();  // an orphan goes with this
  end_quietly();
  progress();
}

/// As tcp_reset has it: who was sent the end, and has not sent one, hears of a broken pipe.
void Endpoint::take_reset() {
  if (is_over()) return;
  fail(fin_received && !fin_queued ? EPIPE : ECONNRESET);
}

void Endpoint::reset_both() {
  const auto other = peer.lock();
  take_reset();
  if (other != nullptr && !other->gone) {
    network_.schedule(network_.arrival(kernel.host(), remote_host, 0),
                      [other] { other->take_reset(); });
  }
}

void Endpoint::vanish() noexcept {
  state = State::broken;
  gone = true;
  wire_.clear();
}

void Endpoint::transmit(SegmentKind kind, std::string bytes) {
  Segment segment{.kind = kind, .bytes = std::move(bytes)};
  segment.sent = network_.now();
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
    arrange_delivery(std::min(after(now, retry_), after(failing_since_, limit)));
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
    network_.journal.trace_segment(
        there, name_of(segment.kind), remote.port, static_cast<std::int64_t>(segment.bytes.size()),
        std::as_bytes(std::span(segment.bytes)), kernel.host(), segment.sent);
    if (to != nullptr && !to->gone) {
      to->receive(segment);
    } else if (segment.kind == SegmentKind::data || segment.kind == SegmentKind::fin ||
               segment.kind == SegmentKind::syn_ack) {
      network_.schedule(network_.arrival(there, kernel.host(), 0), [self] { self->take_reset(); });
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
  network_.journal.trace_segment(there.host(), name_of(segment.kind), remote.port, local.port, {},
                                 kernel.host(), segment.sent);
  const bool lost = network_.chance.hit(Fault::connection_lost, there.host());
  const bool refused = network_.chance.hit(Fault::connection_refused, there.host());
  if (lost) {
    network_.schedule(after(network_.now(), kSynTimeout), [self] { self->refuse(ETIMEDOUT); });
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
      transmit(SegmentKind::ack);
      progress();
      settle_close();
      break;
    case SegmentKind::reset:
      take_reset();
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
    close(true);  // nobody will read it: the sender is told
    return;
  }
  if (state != State::open) return;
  received_ += segment.bytes.size();
  WEIR_ASSERT(unread() + segment.bytes.size() <= receive_capacity);
  input_.append(segment.bytes);
  progress();
  if (state == State::open) transmit(SegmentKind::ack);
}

void Endpoint::take_ack(const Segment& segment) {
  if (state != State::open) return;
  if (segment.acked > acked_) {
    output_.remove(static_cast<std::size_t>(segment.acked - acked_));
    acked_ = segment.acked;
  }
  edge_ = std::max(edge_, segment.edge);
  if (segment.fin_received && fin_sent_) fin_acked_ = true;
  pump();
  progress();
  settle_close();
}

}  // namespace weir::sim::detail
