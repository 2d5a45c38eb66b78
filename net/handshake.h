#pragma once

#include <weir/core/event_loop.h>
#include <weir/coro/list.h>
#include <weir/coro/semaphore.h>
#include <weir/coro/task.h>
#include <weir/net/tcp_connection.h>
#include <weir/net/transform.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace weir::detail {

/// So that those who begin do not slow down those who are being served: in a turn of the loop a
/// step of their work that takes long, or some that do not, once whoever was ready has been served;
/// steps that take longer than that on another thread, while somebody is served; and not too many
/// of them at the same time. Loop's thread.
class HandshakeGate final : public TurnEnd {
 public:
  /// `served` changes as somebody is served.
  explicit HandshakeGate(EventLoop& loop, const std::uint64_t* served = nullptr) noexcept
      : loop_(loop), served_(served) {}
  ~HandshakeGate() { call_off(); }

  [[nodiscard]] Task<Semaphore::Permit> enter();
  /// The step that began then was made. Where the turn has had enough of them, the next may follow
  /// in the next turn.
  void leave(Semaphore::Permit permit, TimePoint began);

  /// For who has entered: whether the step is to be made elsewhere.
  [[nodiscard]] bool sends_away(TimePoint now) noexcept;
  /// How much of a processor a step took.
  void note(Duration taken) noexcept;
  /// The same of one that was made elsewhere, and how long that was waited for.
  void note_errand(Duration taken, Duration waited) noexcept;

  /// One that is under way. With too many of them, the one that began first is cut off.
  class UnderWay {
   public:
    UnderWay(HandshakeGate& gate, Connection& connection);
    ~UnderWay();

   private:
    friend class HandshakeGate;
    friend struct Hook;

    Link link;
    HandshakeGate& gate_;
    Connection& connection_;
  };

 private:
  void end_turn() noexcept override;

  EventLoop& loop_;
  const std::uint64_t* served_;
  std::uint64_t seen_ = 0;            // of that
  std::optional<TimePoint> changed_;  // when it had changed last
  Duration longest_{};                // of the last steps
  TimePoint stays_until_{};           // no step is made elsewhere: others have the processors
  Semaphore step_{1};
  Semaphore::Permit kept_;  // until the turn's end
  Duration taken_{};        // by this turn's steps
  unsigned made_ = 0;       // of them
  List<UnderWay> under_way_;
  std::size_t count_ = 0;
};

/// Puts the handshake on the connection, and awaits that it is done, for `limit` (0: for ever).
/// Throws what went wrong. Dropping it, or the end of the time, breaks the connection off.
Task<> agree(Connection& connection, std::unique_ptr<Handshake> made,
             std::chrono::milliseconds limit, HandshakeGate* gate = nullptr);

/// The same with one of the factory's handshakes, for the time that the factory says. `peer`: the
/// other side's name.
Task<> secure(TcpConnection& connection, std::shared_ptr<HandshakeFactory> factory,
              std::string peer, HandshakeGate* gate = nullptr);

/// "example.org" of "example.org:443", without brackets; nothing of a Unix path.
[[nodiscard]] std::string_view host_of(std::string_view name) noexcept;

}  // namespace weir::detail
