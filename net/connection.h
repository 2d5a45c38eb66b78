#pragma once

#include <weir/core/event_loop.h>
#include <weir/net/connection_ending.h>
#include <weir/net/connection_identity.h>
#include <weir/net/connection_options.h>
#include <weir/net/receiver.h>
#include <weir/net/socket.h>
#include <weir/net/stream/inbox.h>
#include <weir/net/stream/outbox.h>
#include <weir/net/transform.h>
#include <weir/net/transmitter.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace weir {

enum class ConnectionState { connecting, connected, disconnecting, disconnected };

namespace detail {

/// The pinned part of a connection: the descriptor, an inbox that its receiver fills, an outbox
/// that its transmitter empties, and how all that ends. It belongs to its loop, from the adoption
/// of the socket until the kernel has let go of everything, the descriptor is closed and the user's
/// handle (`TcpConnection`) is gone. Loop's thread only.
///
///     kernel ─▶ Receiver ─[Transform]─▶ Inbox ─▶ read …
///     kernel ◀─ Transmitter ◀─[Transform]─ Outbox ◀─ send …
///
/// Its ending:
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
/// that is given up on the way is given up by RST.
class Connection final : public Outbox::Sink, public LoopResource, public FrameAllocated {
 public:
  /// While a function of the user's runs that may drop the handle: what that does comes after it.
  class Pin {
   public:
    explicit Pin(Connection& connection) noexcept
        : connection_(connection), outer_(connection.pinned_) {
      connection_.pinned_ = true;
    }
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;
    ~Pin() {
      connection_.pinned_ = outer_;
      if (connection_.dropped_) connection_.drop();
    }

   private:
    Connection& connection_;
    bool outer_;
  };

  /// Takes over a connected socket; if it throws, the socket is still the caller's. With an owner,
  /// which accepted it, the socket has the options of its listener. `peer` if it is known.
  static Connection* adopt(EventLoop& loop, Socket&& socket, const ConnectionOptions& options,
                           ConnectionOwner* owner = nullptr, std::uint64_t id = 0,
                           const SocketAddress& peer = {});

  [[nodiscard]] Inbox& inbox() noexcept { return inbox_; }
  [[nodiscard]] Outbox& outbox() noexcept { return outbox_; }
  /// What senders of other threads share; nobody asks for it unless somebody wants to send so.
  [[nodiscard]] std::shared_ptr<SenderCore> senders();
  /// From now on bytes go through it, those that are unread included. While nobody reads, and all
  /// that was sent has gone. Throws `std::bad_alloc`.
  void set_transform(std::unique_ptr<Transform> transform);
  /// The transform has done all that it was for: it goes, and bytes are the user's as they come.
  /// Nothing has gone through it to the wire.
  void remove_transform() noexcept;
  [[nodiscard]] Transform* transform() const noexcept { return transform_.get(); }

  // Ending.
  /// Of the user: flushes in the background.
  void close() noexcept;
  /// Ends it now, for its user, who is told the failure; with RST if that is asked for, or
  /// something was left to send.
  void cut(Failure failure, bool with_reset) noexcept;
  /// Its handler failed: what is queued still goes, and RST in place of FIN behind it, so that the
  /// peer does not take that for all. Not if nothing was sent, or the user has sent the FIN.
  void end_with_reset() noexcept;
  /// The user's handle is gone.
  void drop() noexcept;
  void end_with_loop() noexcept override;
  bool finish_with_run() noexcept override;
  void describe(LoopReport& report) const override;
  [[nodiscard]] const Ending& ending() const noexcept { return ending_; }
  [[nodiscard]] ConnectionState state() const noexcept;

  // For its receiver and its transmitter.
  [[nodiscard]] bool wants_input(bool paused) const noexcept {
    if (transform_ == nullptr) return inbox_.wants_input(paused);
    return inbox_.wants_input(paused, transform_->kept()) && !transform_->full();
  }
  /// The transform has worked: what it has for the wire is to be sent, and what it gives is why the
  /// connection breaks, once it has said so.
  void transformed(Failure failure) noexcept;
  [[nodiscard]] Receiver& receiver() noexcept { return receiver_; }
  [[nodiscard]] Transmitter& transmitter() noexcept { return transmitter_; }
  /// The peer's FIN came.
  void peer_ended() noexcept;
  /// An end that was read may be a reset that a send under way was told of: the kernel tells of it
  /// once.
  [[nodiscard]] bool doubts_end() const noexcept;
  /// Bytes came that nobody reads any more.
  void discard(std::size_t size) noexcept;
  [[nodiscard]] bool may_discard() const noexcept;
  void send_fin() noexcept;
  void fail(Failure failure) noexcept;
  void output_ready() noexcept override;
  /// The last thing of every entry: closes the descriptor when nothing needs it any more, and
  /// ends this object once its handle is gone too.
  void conclude() noexcept;

  // For its owner, which goes before the connection.
  void forget_owner() noexcept;
  /// How often this was asked since anything was read by the user or sent. A close is not idle.
  [[nodiscard]] unsigned idle_rounds() noexcept;
  /// How often this was asked since something was to be sent and nothing went.
  [[nodiscard]] unsigned stalled_rounds() noexcept;

  [[nodiscard]] EventLoop& loop() const noexcept { return loop_; }
  [[nodiscard]] int fd() const noexcept { return receiver_.fd(); }
  [[nodiscard]] ConnectionIdentity& identity() noexcept { return identity_; }

 private:
  friend class ConnectionIdentity;
  friend class Receiver;
  friend class Transmitter;

  struct Late;  // what it needs late, or never

  Connection(EventLoop& loop, Socket& socket, const ConnectionOptions& options,
             ConnectionOwner* owner, std::uint64_t id, const SocketAddress& peer);
  ~Connection();

  void input_wanted() noexcept override;
  void output_alone() noexcept override { transmitter_.start_alone(loop_.engine()); }
  void output_finished() noexcept override;
  void output_failed(Failure failure) noexcept override { fail(failure); }
  void end_turn() noexcept override;

  void begin_close() noexcept;
  void linger() noexcept;
  void abort(Failure failure = kClosedHere) noexcept;
  void close_descriptor() noexcept;
  [[nodiscard]] bool nobody_sends() noexcept;
  [[nodiscard]] bool only_lacks_last_word() const noexcept;
  void look_at_overdue_output() noexcept;
  Late& late();

  EventLoop& loop_;
  std::unique_ptr<Transform> transform_;
  std::unique_ptr<Late> late_;
  [[no_unique_address]] ConnectionIdentity identity_;  // what follows lies in its padding
  Ending ending_;
  bool dropped_ = false;  // the user's handle is gone
  Inbox inbox_;
  Outbox outbox_;
  [[no_unique_address]] Transmitter transmitter_;  // and here
  std::uint32_t linger_ms_;
  [[no_unique_address]] Receiver receiver_;  // and here
  bool pinned_ = false;
  bool loop_ending_ = false;
};

}  // namespace detail
}  // namespace weir
