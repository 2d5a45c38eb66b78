#pragma once

#include <weir/coro/event.h>
#include <weir/net/stream/inbox.h>
#include <weir/net/stream/segment_queue.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace weir::detail {

/// Thrown by a transform that cannot go on.
struct Broken {
  Failure failure;
};

/// Stands between the wire and a connection's boxes: bytes of the wire on one side, bytes of the
/// user on the other. It owns neither; a connection without one has no indirection. Loop's thread.
class Transform {
 public:
  Transform() = default;
  Transform(const Transform&) = delete;
  Transform& operator=(const Transform&) = delete;
  virtual ~Transform() = default;

  /// Bytes came from the wire: pushes to the inbox what they mean, and may end it. Gives the
  /// failure that breaks the connection, or 0. Throws `std::bad_alloc`, which breaks it too.
  virtual Failure receive(BufferRef buffer, const std::byte* data, std::size_t size,
                          Inbox& inbox) = 0;
  /// The wire came to its end: ends the inbox, or gives the failure.
  virtual Failure receive_end(Inbox& inbox) = 0;

  /// Puts bytes for the wire into `wire`, which is empty: its own first, then what is to be sent of
  /// the user's, `plain`. Gives how many bytes of those they stand for: they count as gone when the
  /// wire's are. `ending`: the user sends no more, and what is to be said last (once) is due.
  /// Throws `std::bad_alloc`, or what breaks the connection.
  virtual std::size_t send(std::span<const Slice> plain, bool ending, SegmentQueue& wire) = 0;
  /// It has something of its own for the wire.
  [[nodiscard]] virtual bool has_output() const noexcept { return false; }
  /// Nothing more is to come from the wire before what has come was worked on.
  [[nodiscard]] virtual bool full() const noexcept { return false; }
  /// Bytes of the wire that it keeps until more come, at the most.
  [[nodiscard]] virtual std::size_t kept() const noexcept { return 0; }
  /// The connection broke or is being closed: nothing comes any more.
  virtual void over(Failure /*failure*/) noexcept {}
};

/// A step of a handshake that may be made on another thread, where others would have to wait.
class Errand {
 public:
  Errand() = default;
  Errand(const Errand&) = delete;
  Errand& operator=(const Errand&) = delete;
  virtual ~Errand() = default;

  /// Once, on any one thread.
  virtual void run() noexcept = 0;
};

/// A transform whose two sides have to agree first. What comes until then it keeps, and a coroutine
/// (`shake_hands`) has it work on that: it may be much work, and there may be many of them.
class Handshake : public Transform {
 public:
  /// Set when there may be work.
  Event news;

  [[nodiscard]] virtual bool done() const noexcept = 0;
  [[nodiscard]] virtual bool has_work() const noexcept = 0;
  /// Does it. Gives the failure that breaks the connection, or 0; of the handshake unless that is
  /// done. Throws `std::bad_alloc`.
  virtual Failure work(Inbox& inbox) = 0;
  /// The next step, if it can be made elsewhere, or nullptr. Once it has run, `work` is to be
  /// called, and takes it in; nobody else is, until then. Throws `std::bad_alloc`, with nothing
  /// done.
  virtual std::shared_ptr<Errand> errand() { return nullptr; }
  /// Throws `std::system_error` that says what failed.
  [[noreturn]] virtual void throw_failure() const = 0;
};

/// Makes one for each connection. From any thread.
class HandshakeFactory {
 public:
  HandshakeFactory() = default;
  HandshakeFactory(const HandshakeFactory&) = delete;
  HandshakeFactory& operator=(const HandshakeFactory&) = delete;
  virtual ~HandshakeFactory() = default;

  /// On the connection's loop, which is the current one. `peer`: the name of the other side, if it
  /// is known. Throws `std::invalid_argument` if that will not do, and what else hinders it.
  virtual std::unique_ptr<Handshake> make(std::string_view peer) = 0;
  [[nodiscard]] virtual std::chrono::milliseconds handshake_timeout() const noexcept = 0;
  /// Whether the other side has to be the one that begins.
  [[nodiscard]] virtual bool accepts() const noexcept = 0;

  /// What another process that serves in its place should know, so that clients do not notice; and
  /// takes that. What is not to be made out is left out.
  [[nodiscard]] virtual std::string secrets() const { return {}; }
  virtual void inherit(std::string_view /*secrets*/) noexcept {}
};

}  // namespace weir::detail
