#include <weir/coro/owner.h>
#include <weir/coro/probes.h>
#include <weir/net/connection.h>
#include <weir/net/connection_extras.h>
#include <weir/net/sender_core.h>
#include <weir/net/stream/reading.h>
#include <weir/net/stream/sending.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <stdexcept>
#include <utility>

namespace weir::detail {

// With its handler's task (104 bytes) and frame (the echo's: 248) that is what one costs that does
// nothing.
static_assert(sizeof(Connection) <= 376);
static_assert(sizeof(ReadAwaiter) <= 48 && sizeof(SendAwaiter) <= 80);
static_assert(sizeof(TaskPromise<void>) <= 32);

Connection::Connection(EventLoop& loop, Socket& socket, const ConnectionOptions& options,
                       ConnectionOwner* owner, std::uint64_t id, const SocketAddress& peer)
    : loop_(loop),
      identity_(owner, loop.uncounted(), id, peer),
      inbox_(*this, options.input_high),
      outbox_(*this, options.water_marks),
      transmitter_(outbox_.queue().alone(), socket.fd()),
      linger_ms_(static_cast<std::uint32_t>(
          std::min<std::int64_t>(options.linger.count(), std::int64_t{1} << 31))),
      opened_ms_(loop.clock_ms()),
      receiver_(socket.release(), peer.is_unix()) {
  loop.flight.note(FlightRecorder::Kind::opened, id);
  WEIR_PROBE2(opened, id, receiver_.fd());
}

// Of an idle one hardly more is there.
static_assert(sizeof(Connection) <= 408);

Connection::~Connection() {
  if (const auto core = outbox_.others()) core->forget_connection();
}

Connection* Connection::adopt(EventLoop& loop, Socket&& socket, const ConnectionOptions& options,
                              ConnectionOwner* owner, std::uint64_t id, const SocketAddress& peer) {
  if (!socket) throw std::invalid_argument("weir: TcpConnection: the socket is not open");
  if (owner == nullptr) {
    Sockets& sockets = loop.sockets();
    // Neither means anything on a Unix socket; a connection that broke meanwhile shows in a read.
    (void)sockets.set(socket.fd(), Sockets::Option::no_delay, options.no_delay ? 1 : 0);
    if (options.keep_alive) (void)sockets.set(socket.fd(), Sockets::Option::keep_alive, 1);
  }
  const SocketAddress known = peer ? peer : socket.peer_address();
  auto* connection = new Connection(loop, socket, options, owner, id, known);
  loop.keep(*connection);
  connection->receiver_.update();
  connection->inbox_.set_flowing(false);  // the first read asks, and shows on which thread it is
  return connection;
}

Connection::Extras& Connection::extras() {
  if (extras_ == nullptr) extras_ = std::make_unique<Extras>();
  return *extras_;
}

Connection::Late& Connection::late() {
  auto& late = extras().late;
  if (late == nullptr) late = std::make_unique<Late>(*this);
  return *late;
}

Connection::Late* Connection::late_or_null() const noexcept {
  return extras_ == nullptr ? nullptr : extras_->late.get();
}

std::shared_ptr<SenderCore> Connection::senders() {
  auto core = outbox_.others();
  if (core == nullptr) {
    core = std::make_shared<SenderCore>(*this, outbox_);
    outbox_.set_others(core);
  }
  return core;
}

// ---- between the boxes and the kernel -----------------------------------------------------------

void Connection::input_wanted() noexcept {
  check_thread();
  receiver_.update();
}

void Connection::output_ready() noexcept {
  check_thread();
  const HighWater* high_water = outbox_.high_water();
  if (transmitter_.may_start() || (high_water != nullptr && high_water->tells())) {
    loop_.at_turn_end(*this);
  }
}

void Connection::end_turn() noexcept {
  transmitter_.start();
  HighWater* const high_water = outbox_.high_water();
  const auto on_high_water =
      high_water != nullptr ? high_water->take() : std::function<void(std::size_t)>();
  const std::size_t pending = outbox_.pending();
  const bool has_user = ending_.has_user();
  EventLoop& loop = loop_;
  ending_.conclude();  // without a user this may be gone
  if (!on_high_water || !has_user) return;
  try {
    on_high_water(pending);  // the user's, which may end this connection
  } catch (...) {
    loop.report_failure(std::current_exception(), "an on_high_water function");
  }
}

void Connection::output_finished() noexcept {
  if (transform() == nullptr) {
    ending_.send_fin();
  } else {
    output_ready();  // it has a last word
  }
}

/// A peer that reads may be slow to make the room for which the kernel lets a send go on: what it
/// acknowledges meanwhile counts as well.
void Connection::look_at_overdue_output() noexcept {
  if (outbox_.pending() == 0 || !outbox_.rounds().any()) return;
  const int under_way = loop_.sockets().unacknowledged_bytes(fd());
  if (under_way < 0) return;
  const std::uint64_t acknowledged = outbox_.gone() - static_cast<unsigned>(under_way);
  try {
    if (std::exchange(late().acknowledged, acknowledged) != acknowledged) outbox_.rounds().reset();
  } catch (const std::bad_alloc&) {
    // Then only what goes counts.
  }
}

unsigned Connection::stalled_rounds() noexcept {
  look_at_overdue_output();
  return outbox_.rounds().stalled(outbox_.pending() > 0);
}

unsigned Connection::idle_rounds() noexcept {
  look_at_overdue_output();
  const unsigned unread = inbox_.idle_rounds();
  const unsigned unsent = outbox_.rounds().idle();
  return ending_.is_closing() ? 0U : std::min(unread, unsent);
}

ConnectionState Connection::state() const noexcept {
  const Ending::State state = ending_;
  switch (state) {
    case Ending::open:
      return outbox_.open() ? ConnectionState::connected : ConnectionState::disconnecting;
    case Ending::fin_sent:  // over, though its descriptor stays until the user closes it
      return receiver_.at_end() || (transform() != nullptr && inbox_.at_end())
                 ? ConnectionState::disconnected
                 : ConnectionState::disconnecting;
    case Ending::flushing:
    case Ending::lingering:
    case Ending::aborting:
      return ConnectionState::disconnecting;
    case Ending::broken:
    case Ending::gone:
      break;
  }
  return ConnectionState::disconnected;
}

}  // namespace weir::detail
