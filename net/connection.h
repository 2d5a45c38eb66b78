#pragma once

#include <weir/core/event_loop.h>
#include <weir/net/connection_ending.h>
#include <weir/net/connection_identity.h>
#include <weir/net/connection_options.h>
#include <weir/net/receiver.h>
#include <weir/net/socket.h>
#include <weir/net/stream/inbox.h>
#include <weir/net/stream/outbox.h>
#include <weir/net/transforming.h>
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
class Connection final : public Outbox::Sink, public LoopResource, public FrameAllocated {
 public:
  /// While a function of the user's runs that may drop the handle: what that does comes after it.
  class Pin {
   public:
    explicit Pin(Connection& connection) noexcept
        : ending_(connection.ending_), outer_(ending_.pin(true)) {}
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;
    ~Pin() { ending_.pin(outer_); }

   private:
    Ending& ending_;
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
  /// What bytes go through.
  [[nodiscard]] Transforming& transforming() noexcept { return transforming_; }
  /// The same itself, or nullptr.
  [[nodiscard]] Transform* transform() const noexcept { return transforming_.get(); }
  [[nodiscard]] Ending& ending() noexcept { return ending_; }
  [[nodiscard]] const Ending& ending() const noexcept { return ending_; }
  [[nodiscard]] ConnectionState state() const noexcept;
  [[nodiscard]] ConnectionIdentity& identity() noexcept { return identity_; }
  [[nodiscard]] Receiver& receiver() noexcept { return receiver_; }
  [[nodiscard]] Transmitter& transmitter() noexcept { return transmitter_; }
  [[nodiscard]] EventLoop& loop() const noexcept { return loop_; }
  [[nodiscard]] int fd() const noexcept { return receiver_.fd(); }

  /// Whether its receiver is to give more to the inbox.
  [[nodiscard]] bool wants_input(bool paused) const noexcept {
    const Transform* transform = transforming_.get();
    if (transform == nullptr) return inbox_.wants_input(paused);
    return inbox_.wants_input(paused, transform->kept()) && !transform->full();
  }
  void output_ready() noexcept override;

  void end_with_loop() noexcept override { ending_.end_with_loop(); }
  bool finish_with_run() noexcept override { return ending_.finish_with_run(); }
  void describe(LoopReport& report) const override;

  // For its owner.
  /// How often this was asked since anything was read by the user or sent. A close is not idle.
  [[nodiscard]] unsigned idle_rounds() noexcept;
  /// How often this was asked since something was to be sent and nothing went.
  [[nodiscard]] unsigned stalled_rounds() noexcept;

 private:
  friend class ConnectionIdentity;
  friend class Ending;
  friend class Receiver;
  friend class Transforming;
  friend class Transmitter;

  struct Late;
  struct Extras;  // what it needs at times, or never

  Connection(EventLoop& loop, Socket& socket, const ConnectionOptions& options,
             ConnectionOwner* owner, std::uint64_t id, const SocketAddress& peer);
  ~Connection();

  void input_wanted() noexcept override;
  void output_alone() noexcept override { transmitter_.start_alone(loop_.engine()); }
  void check_thread() const noexcept override {
    check_owner(loop_, "a TcpConnection", "a Sender (TcpConnection::sender)");
  }
  [[nodiscard]] bool looks_again() const noexcept override { return transmitter_.may_start(); }
  void output_finished() noexcept override;
  void output_failed(Failure failure) noexcept override { ending_.fail(failure); }
  void end_turn() noexcept override;

  void look_at_overdue_output() noexcept;
  Extras& extras();
  Late& late();
  [[nodiscard]] Late* late_or_null() const noexcept;

  EventLoop& loop_;
  Transforming transforming_;
  std::unique_ptr<Extras> extras_;
  [[no_unique_address]] ConnectionIdentity identity_;  // what follows lies in its padding
  Ending ending_;
  Inbox inbox_;
  Outbox outbox_;
  [[no_unique_address]] Transmitter transmitter_;  // and here
  std::uint32_t linger_ms_;
  std::uint32_t opened_ms_;  // by the loop's clock
  Receiver receiver_;
};

}  // namespace detail
}  // namespace weir
