#include <weir/coro/owner.h>
#include <weir/coro/probes.h>
#include <weir/net/connection.h>
#include <weir/net/connection_ending.h>
#include <weir/net/connection_extras.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

namespace weir::detail {
namespace {

/// How long a transform's last word may take to go where a close is to be at once.
constexpr auto kForLastWord = std::chrono::milliseconds(100);

}  // namespace

inline Connection& Ending::connection() const noexcept {
  return *whole_of(const_cast<Ending&>(*this), &Connection::ending_);
}

void Ending::close() noexcept {
  begin_close();
  conclude();
}

void Ending::begin_close() noexcept {
  Connection& of = connection();
  if (*this != gone) of.check_thread();  // else its loop may have gone as well
  // Whoever still waits in another coroutine has nothing to wait for any more.
  of.inbox_.close();
  if (*this == broken && has_last_word() && of.linger_ms_ > 0) {
    go_on_to(says_last() ? flushing : lingering);
    return;
  }
  if (*this == broken) return abort();
  if (of.linger_ms_ == 0 && !is_closing() && !only_lacks_last_word()) return abort();
  if (is_closing()) return;
  go_on_to(*this == fin_sent ? lingering : flushing);
  of.transforming_.over(kClosedHere);
  of.receiver_.discard();
  of.outbox_.close();
}

void Ending::drop() noexcept {
  dropped_ = true;
  if (!pinned_) close();
}

bool Ending::pin(bool on) noexcept {
  const bool before = pinned_;
  pinned_ = on;
  if (!on && dropped_) drop();
  return before;
}

void Ending::end_with_loop() noexcept {
  loop_ending_ = true;
  close();
}

bool Ending::finish_with_run() noexcept {
  if (!dropped_) return false;
  if (loop_ending_) return true;
  loop_ending_ = true;
  conclude();
  return true;
}

void Ending::cut(Failure failure, bool with_reset) noexcept {
  Connection& of = connection();
  if (*this == gone) return;
  of.check_thread();
  set_reset(with_reset);
  note_failure(failure);
  of.inbox_.fail(failure, true);
  abort(failure);
  conclude();
}

void Ending::end_with_reset() noexcept {
  Connection& of = connection();
  if (of.outbox_.accepted() == 0 || *this == fin_sent) return;
  set_reset();
  if (*this != lingering) return;
  abort();
  conclude();
}

/// Of a transform, which goes in this turn of the loop if the socket takes anything.
bool Ending::only_lacks_last_word() const noexcept {
  Connection& of = connection();
  return of.transform() != nullptr && *this == open && of.outbox_.pending() == 0 &&
         of.transmitter_.idle();
}

void Ending::fail(Failure failure) noexcept {
  Connection& of = connection();
  if (is_broken()) return;
  if (failure == ETIMEDOUT) failure = kUnresponsive;
  if (failure == ECANCELED) failure = kClosedHere;
  note_failure(failure);
  if (is_closing()) return abort(failure);
  go_on_to(broken);
  of.outbox_.fail(failure);
  of.inbox_.fail(failure, false);
  of.transforming_.over(failure);
  if (says_last()) {
    // The peer learns from that that it has not got all.
    of.transmitter_.forget_plain();
    of.outbox_.clear();
    of.receiver_.discard();
    return;
  }
  set_reset(of.outbox_.pending() > 0 || !of.transmitter_.idle());
  if (!of.transmitter_.in_flight()) of.outbox_.clear();
  of.receiver_.stop();
}

void Ending::note_failure(Failure failure) const noexcept {
  Connection& of = connection();
  // Whatever a transform found wrong, which may have more than 24 bits, is told alike.
  of.loop_.flight.note(FlightRecorder::Kind::broke, of.identity_.id(),
                       static_cast<std::uint32_t>(std::max(failure, kTransformFailure)));
  WEIR_PROBE2(broke, of.identity_.id(), failure);
}

void Ending::abort(Failure failure) noexcept {
  Connection& of = connection();
  go_on_to(aborting);
  say_nothing();
  of.outbox_.fail(failure);
  of.transforming_.over(failure);
  set_reset(of.outbox_.pending() > 0 || !of.transmitter_.idle());
  of.receiver_.stop();
  of.transmitter_.stop();
}

void Ending::send_fin() noexcept {
  Connection& of = connection();
  if (*this == flushing && (by_reset() || nobody_sends())) return abort();
  // If it is broken, reading shows it.
  if (!of.loop_.is_of_parent()) (void)of.loop_.sockets().shutdown_send(of.fd());
  if (*this == flushing) {
    go_on_to(lingering);
  } else if (*this == open) {
    go_on_to(fin_sent);
  }
  if (!has_last_word()) return of.outbox_.ended();
  has_said_last();
}

/// With both directions done, closing is all that is left; and at the end of the loop the kernel
/// sees to the rest, unless unread bytes would turn the FIN into an RST.
bool Ending::nobody_sends() noexcept {
  Connection& of = connection();
  return of.receiver_.at_end() || (loop_ending_ && of.loop_.sockets().unread_bytes(of.fd()) <= 0);
}

bool Ending::doubts_end() const noexcept {
  Connection& of = connection();
  return !is_closing() && !fin_is_out() &&
         (of.transmitter_.in_flight() || of.outbox_.pending() > 0);
}

void Ending::linger() noexcept {
  Connection& of = connection();
  if (*this == lingering && (of.linger_ms_ == 0 || nobody_sends())) return abort();
  try {
    Connection::Late& more = of.late();
    if (!more.linger.armed()) {
      const auto limit =
          of.linger_ms_ > 0 ? std::chrono::milliseconds(of.linger_ms_) : kForLastWord;
      more.linger.arm(of.loop_, of.loop_.deadline_in(limit));
    }
    if (*this == lingering && std::exchange(more.counts_unread, false)) {
      const int unread = std::max(0, of.loop_.sockets().unread_bytes(of.fd()));
      more.most_discarded = more.discarded + static_cast<std::size_t>(unread) + kDiscarded;
      of.receiver_.update();
    }
  } catch (...) {
    abort();
  }
}

/// While it flushes the peer is held back, so that it reads what it is being sent; after the FIN it
/// has been told, and is not listened to for ever.
void Ending::discard(std::size_t size) noexcept {
  Connection& of = connection();
  Connection::Late* const late = of.late_or_null();
  if (late == nullptr) return;
  late->discarded += size;
  if (may_discard()) return;
  if (*this == lingering) {
    set_reset();
    abort();
  } else {
    of.receiver_.update();
  }
}

bool Ending::may_discard() const noexcept {
  const Connection::Late* const late = connection().late_or_null();
  return late == nullptr || late->discarded < late->most_discarded;
}

void Ending::conclude() noexcept {
  Connection& of = connection();
  if (*this == flushing || *this == lingering) linger();
  if (of.receiver_.in_flight() || of.transmitter_.in_flight()) return;
  if (*this == aborting) close_descriptor();
  if (*this == gone && dropped_ && !pinned_) delete &of;
}

void Ending::close_descriptor() noexcept {
  Connection& of = connection();
  go_on_to(gone);
  if (!dropped_) of.identity_.keep_names();
  Sockets& sockets = of.loop_.sockets();
  of.loop_.flight.note(FlightRecorder::Kind::closed, of.identity_.id(), by_reset() ? 1 : 0);
  WEIR_PROBE2(closed, of.identity_.id(), by_reset());
  const bool resets = by_reset() && !of.loop_.is_of_parent();
  if (resets) (void)sockets.set(of.fd(), Sockets::Option::reset_on_close, 1);
  sockets.close(of.receiver_.release_fd());
  of.call_off();
  of.outbox_.clear();
  if (Connection::Late* const late = of.late_or_null()) late->linger.disarm();
  if (ConnectionOwner* owner = of.identity_.leave_owner()) {
    owner->connection_closed(of);
  } else {
    of.unlink();
  }
}

void Ending::forget_owner() noexcept {
  Connection& of = connection();
  if (!dropped_) of.identity_.keep_names();
  (void)of.identity_.leave_owner();
}

}  // namespace weir::detail
