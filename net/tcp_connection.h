#pragma once

#include <weir/net/connection.h>
#include <weir/net/sender.h>
#include <weir/net/stream/byte_calls.h>
#include <weir/net/stream/byte_stream.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace weir {

namespace detail {
class Share;
struct ConnectionAccess;
}  // namespace detail

/// A TCP (or Unix) connection: reading with back-pressure, sending with marks. Move-only handle;
/// the connection lives on the loop where it was made, and is used there only, `sender` apart.
///
/// At any time one coroutine may read and any number may send. What broke the connection is told
/// once to each side: to the sends and flushes that wait, or else the next one, and to the next
/// read, behind the bytes that came before it. After that reads give the end of the stream, and
/// sends throw `std::errc::broken_pipe`.
class TcpConnection : public detail::ByteCalls<TcpConnection> {
 public:
  using State = ConnectionState;

  /// No connection: reads throw `errc::closed_here`, sends `std::errc::not_connected`.
  TcpConnection() noexcept = default;

  /// Takes over a connected socket on the current loop. Throws `std::invalid_argument` for a bad
  /// option (naming it and its value) or a socket that is not open, `std::logic_error` where no
  /// loop runs.
  explicit TcpConnection(Socket socket, ConnectionOptions options = {})
      : TcpConnection(EventLoop::current(), std::move(socket), options) {}
  TcpConnection(EventLoop& loop, Socket socket, ConnectionOptions options = {});
  explicit TcpConnection(detail::Connection& connection) noexcept : connection_(&connection) {}

  TcpConnection(TcpConnection&& other) noexcept
      : connection_(std::exchange(other.connection_, nullptr)) {}
  TcpConnection& operator=(TcpConnection&& other) noexcept {
    if (this != &other) {
      reset();
      connection_ = std::exchange(other.connection_, nullptr);
    }
    return *this;
  }
  /// Closes, as `close` does.
  ~TcpConnection() { reset(); }

  /// False for a handle that was moved from or never connected.
  explicit operator bool() const noexcept { return connection_ != nullptr; }

  /// `co_await send_file(fd, offset, length)` sends a part of a file, in call order with the
  /// sends, and waits like them. The descriptor is duplicated: it may be closed after the call,
  /// before this is awaited. Of the file no more is in memory than the socket takes just now. A
  /// file that turns out shorter breaks the connection (`std::errc::io_error`), because the
  /// peer was promised more. The call itself, also where it stands in `as_tuple`, throws
  /// `std::errc::invalid_seek` for what is neither a regular file nor a block device (nobody knows
  /// when it has its bytes), the error of dup(2) for want of descriptors, and
  /// `std::invalid_argument` for a number that is none of a descriptor or an end beyond 2^63 - 1,
  /// which no file has.
  detail::SendAwaiter send_file(int file, std::uint64_t offset, std::size_t length);

  /// Starts to end the connection in the background, within `ConnectionOptions::linger`: flushes,
  /// sends FIN, then reads and discards until the peer's FIN, but no more than what was there
  /// by then and a mebibyte: a peer that goes on sending is reset. So it is whenever output is
  /// given up: a part is never taken for the whole. What is unread is gone. Waiting reads and
  /// sends resume with `errc::closed_here`.
  void close() noexcept {
    if (connection_ != nullptr) connection_->ending().close();
  }

  /// Ends the connection now, with RST; queued output is lost.
  void force_close() noexcept {
    if (connection_ != nullptr) connection_->ending().cut(detail::kClosedHere, true);
  }

  /// A handle for sending from any thread. Throws `std::logic_error` without a connection.
  [[nodiscard]] Sender sender() { return Sender(connection().senders()); }

  /// Throws `std::invalid_argument` for a low mark above the high one, or a high mark of zero.
  void set_water_marks(WaterMarks marks);

  /// Called with `pending_bytes` at the end of each turn of the loop in which the queue reached
  /// the high mark from below.
  void on_high_water(std::function<void(std::size_t)> function) {
    connection().outbox().on_high_water(std::move(function));
  }
  template <class Function>
    requires(std::is_invocable_v<Function&> && !std::is_invocable_v<Function&, std::size_t>)
  void on_high_water(Function function) {
    on_high_water([call = std::move(function)](std::size_t) mutable { call(); });
  }

  /// `co_await draining()` resumes once the connection's server drains (`TcpServer::drain`, or
  /// SIGTERM in `TcpServer::run`), at once if it does by now: whoever waits for a next request ends
  /// then, as in `when_any(conn.read(), conn.draining())`, instead of being cut off at the drain's
  /// limit. A connection on which nothing has been sent when this is called is told a second later:
  /// its first request may be under way. Without a server it never resumes. Dropping it changes
  /// nothing.
  [[nodiscard("co_await it")]] Event::WaitAwaiter draining() const noexcept {
    return Event::WaitAwaiter(connection_ == nullptr ? nullptr
                                                     : connection_->identity().draining());
  }
  /// Whether it drains by now: so that an answer can say that it is the last.
  [[nodiscard]] bool is_draining() const noexcept {
    return connection_ != nullptr && connection_->identity().is_draining();
  }

  /// Unique within its server, from 1 on; 0 for a connection without one.
  [[nodiscard]] std::uint64_t id() const noexcept {
    return connection_ == nullptr ? 0 : connection_->identity().id();
  }
  /// Server's name, peer and sequence number: "echo-127.0.0.1:53124#17".
  [[nodiscard]] std::string name() const {
    return connection_ == nullptr ? std::string() : connection_->identity().name();
  }
  /// The unknown address where the system did not say: the peer was gone before the accept.
  [[nodiscard]] SocketAddress peer_address() const {
    return connection_ == nullptr ? SocketAddress() : connection_->identity().peer_address();
  }
  [[nodiscard]] SocketAddress local_address() const {
    return connection_ == nullptr ? SocketAddress() : connection_->identity().local_address();
  }
  [[nodiscard]] ConnectionState state() const noexcept {
    return connection_ == nullptr ? ConnectionState::disconnected : connection_->state();
  }
  [[nodiscard]] EventLoop& loop() const { return connection().loop(); }

  /// The descriptor, for getsockopt(2) and its like; it stays the connection's. -1 in the
  /// simulation, and where there is none any more.
  [[nodiscard]] int native_handle() const noexcept {
    if (connection_ == nullptr || connection_->fd() < 0) return -1;  // its loop may have gone
    return connection_->loop().sockets().native(connection_->fd());
  }

  /// Throw `std::system_error` where the kernel refuses.
  void set_no_delay(bool on = true);
  void set_keep_alive(bool on = true);

 private:
  friend struct detail::ConnectionAccess;
  friend class detail::ByteCalls<TcpConnection>;

  [[nodiscard]] detail::Inbox* inbox() const noexcept {
    return connection_ == nullptr ? nullptr : &connection_->inbox();
  }
  [[nodiscard]] detail::Outbox* outbox() const noexcept {
    return connection_ == nullptr ? nullptr : &connection_->outbox();
  }
  [[nodiscard]] detail::Connection& connection() const {
    if (connection_ == nullptr) {
      throw std::logic_error("weir: this TcpConnection is not connected");
    }
    return *connection_;
  }
  void set_option(detail::Sockets::Option option, bool on, const char* what);
  void reset() noexcept {
    if (detail::Connection* gone = std::exchange(connection_, nullptr)) gone->ending().drop();
  }

  detail::Connection* connection_ = nullptr;
};

static_assert(ByteStream<TcpConnection>);

}  // namespace weir
