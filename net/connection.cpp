#include <weir/coro/owner.h>
#include <weir/net/connection.h>
#include <weir/net/connection_late.h>
#include <weir/net/sender_core.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <stdexcept>
#include <utility>

namespace weir::detail {
namespace {

/// How long a transform's last word may take to go where a close is to be at once.
constexpr auto kForLastWord = std::chrono::milliseconds(100);

}  // namespace

Connection::Connection(EventLoop& loop, Socket& socket, const ConnectionOptions& options,
                       ConnectionOwner* owner, std::uint64_t id, const SocketAddress& peer)
    : loop_(loop),
      identity_(owner, loop.uncounted(), id, peer),
      inbox_(*this, options.input_high),
      outbox_(*this, options.water_marks),
      transmitter_(outbox_.queue().front().slice, socket.fd()),
      linger_ms_(static_cast<std::uint32_t>(
          std::min<std::int64_t>(options.linger.count(), std::int64_t{1} << 31))),
      receiver_(socket.release(), peer.is_unix()) {}

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

Connection::Late& Connection::late() {
  if (late_ == nullptr) late_ = std::make_unique<Late>(*this);
  return *late_;
}

void Connection::set_transform(std::unique_ptr<Transform> transform) {
  transform_ = std::move(transform);
  outbox_.level().add(OutboxLevel::kTransformed);
  while (Chunk chunk = inbox_.take_some()) {
    const std::byte* data = chunk.data();
    const std::size_t size = chunk.size();
    transformed(transform_->receive(std::move(chunk).release_buffer(), data, size, inbox_));
  }
  if (receiver_.at_end()) peer_ended();
  receiver_.update();
}

void Connection::remove_transform() noexcept {
  transform_.reset();
  outbox_.level().remove(OutboxLevel::kTransformed);
  if (receiver_.at_end() && !inbox_.at_end()) inbox_.end();
  receiver_.update();
  if (outbox_.pending() > 0) {
    output_ready();
  } else if (outbox_.finished()) {
    send_fin();
  }
}

void Connection::transformed(Failure failure) noexcept {
  if (transform_->has_output()) {
    if (failure != 0 && !ending_.is_closing()) ending_.will_say_last();
    output_ready();
  }
  if (failure != 0) fail(failure);
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
  check_owner(loop_, "a TcpConnection", "a Sender (TcpConnection::sender)");
  receiver_.update();
}

void Connection::output_ready() noexcept {
  check_owner(loop_, "a TcpConnection", "a Sender (TcpConnection::sender)");
  if (transmitter_.may_start() || outbox_.tells_high_water()) loop_.at_turn_end(*this);
}

void Connection::end_turn() noexcept {
  transmitter_.start();
  const auto on_high_water = outbox_.take_high_water();
  const std::size_t pending = outbox_.pending();
  const bool has_user = !dropped_ && !ending_.is_broken();
  EventLoop& loop = loop_;
  conclude();  // without a user this may be gone
  if (!on_high_water || !has_user) return;
  try {
    on_high_water(pending);  // the user's, which may end this connection
  } catch (...) {
    loop.report_failure(std::current_exception(), "an on_high_water function");
  }
}

void Connection::peer_ended() noexcept {
  if (transform_ == nullptr || ending_.is_closing()) return inbox_.end();
  transformed(transform_->receive_end(inbox_));
}

bool Connection::doubts_end() const noexcept {
  return !ending_.is_closing() && !ending_.fin_is_out() &&
         (transmitter_.in_flight() || outbox_.pending() > 0);
}

void Connection::output_finished() noexcept {
  if (transform_ == nullptr) {
    send_fin();
  } else {
    output_ready();  // it has a last word
  }
}

void Connection::send_fin() noexcept {
  if (ending_ == Ending::flushing && (ending_.by_reset() || nobody_sends())) return abort();
  (void)loop_.sockets().shutdown_send(fd());  // if it is broken, reading shows it
  if (ending_ == Ending::flushing) {
    ending_ = Ending::lingering;
  } else if (ending_ == Ending::open) {
    ending_ = Ending::fin_sent;
  }
  if (!ending_.has_last_word()) return outbox_.ended();
  ending_.has_said_last();
}

// ---- ending -------------------------------------------------------------------------------------

/// With both directions done, closing is all that is left; and at the end of the loop the kernel
/// sees to the rest, unless unread bytes would turn the FIN into an RST.
bool Connection::nobody_sends() noexcept {
  return receiver_.at_end() || (loop_ending_ && loop_.sockets().unread_bytes(fd()) <= 0);
}

void Connection::fail(Failure failure) noexcept {
  if (ending_.is_broken()) return;
  if (failure == ETIMEDOUT) failure = kUnresponsive;
  if (failure == ECANCELED) failure = kClosedHere;
  if (ending_.is_closing()) return abort(failure);
  ending_ = Ending::broken;
  outbox_.fail(failure);
  inbox_.fail(failure, false);
  if (transform_ != nullptr) transform_->over(failure);
  if (ending_.says_last()) {
    // The peer learns from that that it has not got all.
    transmitter_.forget_plain();
    outbox_.clear();
    receiver_.discard();
    return;
  }
  ending_.set_reset(outbox_.pending() > 0 || !transmitter_.idle());
  if (!transmitter_.in_flight()) outbox_.clear();
  receiver_.stop();
}

void Connection::abort(Failure failure) noexcept {
  ending_ = Ending::aborting;
  ending_.say_nothing();
  outbox_.fail(failure);
  if (transform_ != nullptr) transform_->over(failure);
  ending_.set_reset(outbox_.pending() > 0 || !transmitter_.idle());
  receiver_.stop();
  transmitter_.stop();
}

void Connection::cut(Failure failure, bool with_reset) noexcept {
  if (ending_ == Ending::gone) return;
  check_owner(loop_, "a TcpConnection", "a Sender (TcpConnection::sender)");
  ending_.set_reset(with_reset);
  inbox_.fail(failure, true);
  abort(failure);
  conclude();
}

void Connection::end_with_reset() noexcept {
  if (outbox_.accepted() == 0 || ending_ == Ending::fin_sent) return;
  ending_.set_reset();
  if (ending_ != Ending::lingering) return;
  abort();
  conclude();
}

/// Of a transform, which goes in this turn of the loop if the socket takes anything.
bool Connection::only_lacks_last_word() const noexcept {
  return transform_ != nullptr && ending_ == Ending::open && outbox_.pending() == 0 &&
         transmitter_.idle();
}

void Connection::begin_close() noexcept {
  if (ending_ != Ending::gone) {  // else its loop may have gone as well
    check_owner(loop_, "a TcpConnection", "a Sender (TcpConnection::sender)");
  }
  // Whoever still waits in another coroutine has nothing to wait for any more.
  inbox_.close();
  if (ending_ == Ending::broken && ending_.has_last_word() && linger_ms_ > 0) {
    ending_ = ending_.says_last() ? Ending::flushing : Ending::lingering;
    return;
  }
  if (ending_ == Ending::broken) return abort();
  if (linger_ms_ == 0 && !ending_.is_closing() && !only_lacks_last_word()) return abort();
  if (ending_.is_closing()) return;
  ending_ = ending_ == Ending::fin_sent ? Ending::lingering : Ending::flushing;
  if (transform_ != nullptr) transform_->over(kClosedHere);
  receiver_.discard();
  outbox_.close();
}

void Connection::close() noexcept {
  begin_close();
  conclude();
}

void Connection::drop() noexcept {
  dropped_ = true;
  if (!pinned_) close();
}

void Connection::end_with_loop() noexcept {
  loop_ending_ = true;
  close();
}

bool Connection::finish_with_run() noexcept {
  if (!dropped_) return false;
  if (loop_ending_) return true;
  loop_ending_ = true;
  conclude();
  return true;
}

void Connection::linger() noexcept {
  if (ending_ == Ending::lingering && (linger_ms_ == 0 || nobody_sends())) return abort();
  try {
    Late& more = late();
    if (!more.linger.armed()) {
      const auto limit = linger_ms_ > 0 ? std::chrono::milliseconds(linger_ms_) : kForLastWord;
      more.linger.arm(loop_, loop_.deadline_in(limit));
    }
    if (ending_ == Ending::lingering && std::exchange(more.counts_unread, false)) {
      const int unread = std::max(0, loop_.sockets().unread_bytes(fd()));
      more.most_discarded = more.discarded + static_cast<std::size_t>(unread) + kDiscarded;
      receiver_.update();
    }
  } catch (...) {
    abort();
  }
}

/// While it flushes the peer is held back, so that it reads what it is being sent; after the FIN it
/// has been told, and is not listened to for ever.
void Connection::discard(std::size_t size) noexcept {
  if (late_ == nullptr) return;
  late_->discarded += size;
  if (may_discard()) return;
  if (ending_ == Ending::lingering) {
    ending_.set_reset();
    abort();
  } else {
    receiver_.update();
  }
}

bool Connection::may_discard() const noexcept {
  return late_ == nullptr || late_->discarded < late_->most_discarded;
}

void Connection::conclude() noexcept {
  if (ending_ == Ending::flushing || ending_ == Ending::lingering) linger();
  if (receiver_.in_flight() || transmitter_.in_flight()) return;
  if (ending_ == Ending::aborting) close_descriptor();
  if (ending_ == Ending::gone && dropped_ && !pinned_) delete this;
}

void Connection::close_descriptor() noexcept {
  ending_ = Ending::gone;
  if (!dropped_) identity_.keep_names();
  Sockets& sockets = loop_.sockets();
  if (ending_.by_reset()) (void)sockets.set(fd(), Sockets::Option::reset_on_close, 1);
  sockets.close(receiver_.release_fd());
  call_off();
  outbox_.clear();
  if (late_ != nullptr) late_->linger.disarm();
  if (ConnectionOwner* owner = identity_.leave_owner()) {
    owner->connection_closed(*this);
  } else {
    unlink();
  }
}

// ---- its owner
// -----------------------------------------------------------------------------------

void Connection::forget_owner() noexcept {
  if (!dropped_) identity_.keep_names();
  (void)identity_.leave_owner();
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
      return receiver_.at_end() || (transform_ != nullptr && inbox_.at_end())
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
