#pragma once

#include <weir/net/stream/failure.h>

#include <cstddef>
#include <cstdint>

namespace weir::detail {

class Connection;

/// How far a connection is on its way to its end: its states, and what goes with them.
class EndingState {
 public:
  enum State : std::uint8_t { open, fin_sent, flushing, lingering, broken, aborting, gone };

  operator State() const noexcept { return state_; }  // NOLINT(google-explicit-constructor)

  /// The user closed it, or it broke.
  [[nodiscard]] bool is_closing() const noexcept { return state_ >= flushing; }
  [[nodiscard]] bool is_broken() const noexcept { return state_ >= broken; }
  /// Whether hanging up is the peer's doing alone.
  [[nodiscard]] bool fin_is_out() const noexcept {
    return state_ == fin_sent || state_ == lingering;
  }

  /// It ends with RST.
  [[nodiscard]] bool by_reset() const noexcept { return reset_; }
  void set_reset(bool needed = true) noexcept { reset_ = reset_ || needed; }

  // The last word of the transform, when it broke.
  [[nodiscard]] bool says_last() const noexcept { return last_word_ == LastWord::due; }
  [[nodiscard]] bool has_last_word() const noexcept { return last_word_ != LastWord::none; }
  /// Broken, and the transform has nothing to say about it any more.
  [[nodiscard]] bool is_mute() const noexcept { return is_broken() && !says_last(); }
  void will_say_last() noexcept { last_word_ = LastWord::due; }
  void has_said_last() noexcept { last_word_ = LastWord::said; }
  void say_nothing() noexcept { last_word_ = LastWord::none; }

 protected:
  EndingState() noexcept = default;

  void go_on_to(State state) noexcept { state_ = state; }

 private:
  enum class LastWord : std::uint8_t { none, due, said };

  State state_ = open;
  LastWord last_word_ = LastWord::none;
  bool reset_ = false;
};

/// How a connection ends, as its `ending_`:
///
///     open ──shutdown──▶ open, the outbox wants its end ──all has gone──▶ fin_sent
///      │                                                                     │
///      ├──close──▶ flushing ──all has gone: FIN──▶ lingering ◀────close──────┘
///      │              │ linger is over               │ the peer's FIN, linger is over,
///      │              ▼                              ▼ or it sends without end
///      ├──cut──▶ aborting ◀──────────────────────────┘
///      │            ▲  │
///      │   close or cut└──the kernel has let go──▶ gone
///      │            │
///      └──it broke──▶ broken (the descriptor waits for the user's close)
///
/// It may break in `fin_sent` as well, and in `flushing` and `lingering` it aborts then. Output
/// that is given up on the way is given up by RST. Loop's thread.
class Ending : public EndingState {
 public:
  Ending() noexcept = default;
  Ending(const Ending&) = delete;
  Ending& operator=(const Ending&) = delete;

  // Of the user.
  /// Flushes in the background.
  void close() noexcept;
  /// Ends it now, for its user, who is told the failure; with RST if that is asked for, or
  /// something was left to send.
  void cut(Failure failure, bool with_reset) noexcept;
  /// Its handler failed: what is queued still goes, and RST in place of FIN behind it, so that the
  /// peer does not take that for all. Not if nothing was sent, or the user has sent the FIN.
  void end_with_reset() noexcept;
  /// The user's handle is gone.
  void drop() noexcept;
  /// Whether somebody is there to be told.
  [[nodiscard]] bool has_user() const noexcept { return !dropped_ && !is_broken(); }
  /// A function of the user's is about to run, or has run, that may drop the handle: what that does
  /// comes after it. Gives how it was before.
  bool pin(bool on) noexcept;

  // Of its loop.
  void end_with_loop() noexcept;
  bool finish_with_run() noexcept;

  // Of what is between the boxes and the kernel.
  void fail(Failure failure) noexcept;
  void send_fin() noexcept;
  /// An end that was read may be a reset that a send under way was told of: the kernel tells of it
  /// once.
  [[nodiscard]] bool doubts_end() const noexcept;
  /// Bytes came that nobody reads any more.
  void discard(std::size_t size) noexcept;
  [[nodiscard]] bool may_discard() const noexcept;
  /// The time for it is over.
  void abort(Failure failure = kClosedHere) noexcept;
  /// The last thing of every entry: closes the descriptor when nothing needs it any more, and
  /// ends the connection once its handle is gone too.
  void conclude() noexcept;

  /// The owner goes before the connection.
  void forget_owner() noexcept;

 private:
  void note_failure(Failure failure) const noexcept;
  void begin_close() noexcept;
  void linger() noexcept;
  void close_descriptor() noexcept;
  [[nodiscard]] bool nobody_sends() noexcept;
  [[nodiscard]] bool only_lacks_last_word() const noexcept;
  [[nodiscard]] Connection& connection() const noexcept;

  bool dropped_ : 1 = false;  // the user's handle is gone
  bool pinned_ : 1 = false;
  bool loop_ending_ : 1 = false;
};

}  // namespace weir::detail
