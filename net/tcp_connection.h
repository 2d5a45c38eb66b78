#pragma once

#include <weir/net/sender.h>
#include <weir/net/stream.h>

#include <cerrno>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace weir {

namespace detail {

[[noreturn]] void throw_system_error(int error);
inline std::error_code code_of(int error) noexcept { return {error, std::generic_category()}; }

/// What the three forms of reading share: they wait in the stream and look at what is unread.
template <class Derived>
class ReadBase : public Stream::Reader {
 public:
  using Reader::Reader;

  static bool has_enough(Reader& reader) noexcept { return static_cast<Derived&>(reader).enough(); }

  bool await_ready() {
    if (stream == nullptr) return true;
    if (stream->has_reader()) return false;  // its bytes; waiting throws
    return static_cast<Derived&>(*this).enough() || stream->at_end();
  }
  void await_suspend(std::coroutine_handle<> handle) {
    waiter.suspend(handle);
    stream->wait_for_input(*this);
  }
  Chunk await_resume() {
    leave();
    int error = 0;
    Chunk chunk = static_cast<Derived&>(*this).take(error);
    if (error != 0) throw_system_error(error);
    return chunk;
  }
  Outcome<Chunk> outcome() {
    leave();
    int error = 0;
    Chunk chunk = static_cast<Derived&>(*this).take(error);
    return {code_of(error), std::move(chunk)};
  }

 protected:
  /// The end came before there was enough: gives the error, 0 for a clean end.
  int ended_early() noexcept {
    if (stream == nullptr) return ECANCELED;
    if (const int error = stream->take_error(); error != 0) return error;
    if (stream->closing()) return ECANCELED;
    return stream->unread() == 0 ? 0 : ECONNABORTED;
  }
};

}  // namespace detail

/// A TCP (or Unix) connection: reading with back-pressure, sending with marks. Move-only handle;
/// the connection lives on the loop where it was made, and is used there only, `sender` apart.
///
/// At any time one coroutine may read and any number may send. An error of the connection reaches
/// the next read, send or flush, once; after that reads give the end of the stream, and sends
/// throw `std::errc::broken_pipe`.
class TcpConnection {
 public:
  using State = ConnectionState;

  class [[nodiscard("co_await it")]] ReadAwaiter final : public detail::ReadBase<ReadAwaiter> {
   public:
    explicit ReadAwaiter(Stream* of) noexcept : ReadBase(of) {}
    bool await_ready() const noexcept {
      if (stream == nullptr) return true;
      // With another reader there they are its bytes; waiting throws.
      return (stream->unread() > 0 || stream->at_end()) && !stream->has_reader();
    }
    [[gnu::always_inline]] Chunk await_resume() {
      leave();
      if (stream == nullptr || stream->unread() == 0) [[unlikely]]
        return ReadBase::await_resume();
      Chunk chunk = stream->take_some();
      stream = nullptr;  // nothing is left for the destructor to do
      return chunk;
    }
    [[nodiscard]] bool enough() const noexcept { return stream->unread() > 0; }

   private:
    friend class detail::ReadBase<ReadAwaiter>;
    Chunk take(int& error) noexcept {
      if (stream != nullptr && stream->unread() > 0) return stream->take_some();
      error = ended_early();
      return {};
    }
  };

  class [[nodiscard("co_await it")]] ReadExactlyAwaiter final
      : public detail::ReadBase<ReadExactlyAwaiter> {
   public:
    ReadExactlyAwaiter(Stream* of, std::size_t count) noexcept
        : ReadBase(of, &has_enough), count_(count) {}
    [[nodiscard]] bool enough() const noexcept { return stream->unread() >= count_; }

   private:
    friend class detail::ReadBase<ReadExactlyAwaiter>;
    Chunk take(int& error) {
      if (stream != nullptr && enough()) return stream->take_exactly(count_);
      error = ended_early();
      return {};
    }

    std::size_t count_;
  };

  class [[nodiscard("co_await it")]] ReadUntilAwaiter final
      : public detail::ReadBase<ReadUntilAwaiter> {
   public:
    ReadUntilAwaiter(Stream* of, std::string_view delimiter, std::size_t most)
        : ReadBase(of, &has_enough), delimiter_(delimiter), most_(most) {}
    bool enough() noexcept {
      if (found_ == 0) found_ = stream->find(delimiter_, most_, scanned_);
      return found_ > 0 || stream->unread() >= most_;
    }

   private:
    friend class detail::ReadBase<ReadUntilAwaiter>;
    Chunk take(int& error) {
      if (stream == nullptr || !enough()) {
        error = ended_early();
      } else if (found_ == 0) {
        error = EMSGSIZE;
      } else {
        return stream->take_exactly(found_);
      }
      return {};
    }

    std::string delimiter_;
    std::size_t most_;
    std::size_t scanned_ = 0;
    std::size_t found_ = 0;
  };

  class [[nodiscard("co_await it")]] SendAwaiter {
   public:
    SendAwaiter(Stream* of, const void* bytes, std::size_t count) noexcept
        : message{{}, static_cast<const std::byte*>(bytes), count, of} {}
    SendAwaiter(Stream* of, Chunk&& chunk) noexcept : message{{}, chunk.data(), chunk.size(), of} {
      message.buffer = std::move(chunk).release_buffer();
    }
    SendAwaiter(Stream* of, BufferRef file, std::size_t count) noexcept
        : message{std::move(file), nullptr, count, of} {}
    /// Moves only before it is awaited.
    SendAwaiter(SendAwaiter&& other) noexcept : message(std::move(other.message)) {}
    SendAwaiter& operator=(SendAwaiter&&) = delete;
    ~SendAwaiter() {
      if (tried_) [[unlikely]] {
        end_send();
      } else {
        message.~Message();
      }
    }

    [[gnu::always_inline]] bool await_ready() {
      if (message.stream != nullptr &&
          message.stream->try_send_plain(message.buffer, message.data, message.size)) [[likely]] {
        return true;
      }
      return try_send();
    }
    void await_suspend(std::coroutine_handle<> handle) {
      waiting.suspend(handle);
      waiting.stream->wait_to_send(waiting);
    }
    void await_resume() const {
      if (tried_ && waiting.error != 0) [[unlikely]]
        detail::throw_system_error(waiting.error);
    }
    [[nodiscard]] Outcome<void> outcome() const {
      return {detail::code_of(tried_ ? waiting.error : 0), {}};
    }

   private:
    struct Message {
      BufferRef buffer;
      const std::byte* data;
      std::size_t size;
      Stream* stream;
    };

    bool try_send();  // makes the message a send that can wait
    void end_send() noexcept;

    union {
      Message message;
      Stream::Send waiting;  // once `tried_`
    };
    bool tried_ = false;
  };

  class [[nodiscard("co_await it")]] FlushAwaiter : private Stream::Flush {
   public:
    FlushAwaiter(Stream* of, bool fin) noexcept : Flush(of), fin_(fin) {}
    FlushAwaiter(FlushAwaiter&&) noexcept = default;

    bool await_ready() noexcept {
      if (stream == nullptr) {
        error = ENOTCONN;
        return true;
      }
      return fin_ ? stream->try_shutdown(*this) : stream->try_flush(*this);
    }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
      suspend(handle);
      stream->wait_to_flush(*this);
    }
    void await_resume() const {
      if (error != 0) detail::throw_system_error(error);
    }
    [[nodiscard]] Outcome<void> outcome() const { return {detail::code_of(error), {}}; }

   private:
    bool fin_;
  };

  /// No connection: reads throw `std::errc::operation_canceled`, sends `std::errc::not_connected`.
  TcpConnection() noexcept = default;

  /// Takes over a connected socket on the current loop. Throws `std::invalid_argument` for a bad
  /// option (naming it and its value) or a socket that is not open, `std::logic_error` where no
  /// loop runs.
  explicit TcpConnection(Socket socket, ConnectionOptions options = {})
      : TcpConnection(EventLoop::current(), std::move(socket), options) {}
  TcpConnection(EventLoop& loop, Socket socket, ConnectionOptions options = {});
  explicit TcpConnection(Stream& stream) noexcept : stream_(&stream) {}

  TcpConnection(TcpConnection&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  TcpConnection& operator=(TcpConnection&& other) noexcept {
    if (this != &other) {
      reset();
      stream_ = std::exchange(other.stream_, nullptr);
    }
    return *this;
  }
  /// Closes, as `close` does.
  ~TcpConnection() { reset(); }

  /// False for a handle that was moved from or never connected.
  explicit operator bool() const noexcept { return stream_ != nullptr; }

  /// `co_await read()` gives some bytes, at least one; an empty chunk once the peer has sent FIN.
  /// Throws `std::system_error` if the connection broke (`std::errc::connection_reset`, …) and
  /// `std::errc::operation_canceled` if it was closed from this side meanwhile; a second read
  /// while one waits throws `std::logic_error`. Dropping it loses nothing: what comes later is
  /// returned by the next read.
  ReadAwaiter read() noexcept { return ReadAwaiter(stream_); }

  /// `co_await read_exactly(n)` gives n bytes in one piece; empty only if the end came before the
  /// first. The end midway throws `std::errc::connection_aborted`, and the bytes stay unread.
  /// Memory grows with what comes in, not with n. Dropping it consumes nothing.
  ReadExactlyAwaiter read_exactly(std::size_t count) noexcept {
    return ReadExactlyAwaiter(stream_, count);
  }

  /// `co_await read_until(delimiter, max)` gives all up to the delimiter and with it, `max` bytes
  /// at the most; else throws `std::errc::message_size`, with nothing consumed. The end as with
  /// `read_exactly`. Dropping it consumes nothing. Throws `std::invalid_argument` for an empty
  /// delimiter, or one longer than `max`.
  ReadUntilAwaiter read_until(std::string_view delimiter, std::size_t max);

  /// `co_await send(bytes)` queues a message; all that is queued in a turn of the loop leaves with
  /// one system call. Below the high mark it does not suspend; at or above it, it resumes once
  /// the queue is down to the low one. A message is accepted only while the queue is below the
  /// high mark, then whole, and messages leave in the order of the calls, whoever sends. Returning
  /// does not mean that the peer has it.
  ///
  /// Views and spans are copied before it suspends, but not before it is awaited. Throws the error
  /// that broke the connection, once, then `std::errc::broken_pipe`. Dropping it while it waits
  /// takes back the message if it was not accepted yet; an accepted one goes out whole.
  SendAwaiter send(std::string_view bytes) noexcept {
    return SendAwaiter(stream_, bytes.data(), bytes.size());
  }
  SendAwaiter send(const char* text) noexcept { return send(std::string_view(text)); }
  SendAwaiter send(const std::string& bytes) noexcept { return send(std::string_view(bytes)); }
  SendAwaiter send(std::span<const std::byte> bytes) noexcept {
    return SendAwaiter(stream_, bytes.data(), bytes.size());
  }
  /// Moved: the bytes are sent from where they are, without a copy.
  SendAwaiter send(Chunk&& chunk) noexcept { return SendAwaiter(stream_, std::move(chunk)); }
  SendAwaiter send(std::string&& bytes);
  SendAwaiter send(std::vector<std::byte>&& bytes);

  /// `co_await send_file(fd, offset, length)` sends a part of a file, in call order with the
  /// sends, and waits like them. The descriptor is duplicated: it may be closed after the call.
  /// A file that turns out shorter breaks the connection (`std::errc::io_error`), because the
  /// peer was promised more.
  SendAwaiter send_file(int file, std::uint64_t offset, std::size_t length);

  /// `co_await flush()` resumes once all that was sent so far is with the kernel. Throws like
  /// `send`. Dropping it changes nothing.
  FlushAwaiter flush() noexcept { return FlushAwaiter(stream_, false); }

  /// `co_await shutdown()` flushes, then sends FIN; no send is accepted from the call on. Reading
  /// goes on until the peer's FIN. Dropping it does not call the FIN off.
  FlushAwaiter shutdown() noexcept { return FlushAwaiter(stream_, true); }

  /// Starts to end the connection in the background, within `ConnectionOptions::linger`: flushes,
  /// sends FIN, then reads and discards until the peer's FIN. What is unread is gone. Waiting
  /// reads and sends resume with `std::errc::operation_canceled`.
  void close() noexcept {
    if (stream_ != nullptr) stream_->close_and_conclude();
  }

  /// Ends the connection now, with RST; queued output is lost.
  void force_close() noexcept {
    if (stream_ != nullptr) stream_->force_close();
  }

  /// A handle for sending from any thread. Throws `std::logic_error` without a connection.
  [[nodiscard]] Sender sender() { return Sender(stream().sender_core()); }

  /// Throws `std::invalid_argument` for a low mark above the high one, or a high mark of zero.
  void set_water_marks(WaterMarks marks) { stream().set_water_marks(marks); }

  /// Bytes accepted and not yet with the kernel.
  [[nodiscard]] std::size_t pending_bytes() const noexcept {
    return stream_ == nullptr ? 0 : stream_->pending();
  }

  /// Called with `pending_bytes` at the end of each turn of the loop in which the queue reached
  /// the high mark from below.
  void on_high_water(std::function<void(std::size_t)> function) {
    stream().on_high_water(std::move(function));
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
    return Event::WaitAwaiter(stream_ == nullptr ? nullptr : stream_->draining());
  }
  /// Whether it drains by now: so that an answer can say that it is the last.
  [[nodiscard]] bool is_draining() const noexcept {
    return stream_ != nullptr && stream_->is_draining();
  }

  /// Unique within its server, from 1 on; 0 for a connection without one.
  [[nodiscard]] std::uint64_t id() const noexcept { return stream_ == nullptr ? 0 : stream_->id(); }
  /// Server's name, peer and sequence number: "echo-127.0.0.1:53124#17".
  [[nodiscard]] std::string name() const {
    return stream_ == nullptr ? std::string() : stream_->name();
  }
  /// The unknown address where the system did not say: the peer was gone before the accept.
  [[nodiscard]] SocketAddress peer_address() const {
    return stream_ == nullptr ? SocketAddress() : stream_->peer_address();
  }
  [[nodiscard]] SocketAddress local_address() const {
    return stream_ == nullptr ? SocketAddress() : stream_->local_address();
  }
  [[nodiscard]] ConnectionState state() const noexcept {
    return stream_ == nullptr ? ConnectionState::disconnected : stream_->state();
  }
  [[nodiscard]] EventLoop& loop() const { return stream().loop(); }

  /// Throw `std::system_error` where the kernel refuses.
  void set_no_delay(bool on = true);
  void set_keep_alive(bool on = true);

 private:
  friend class TcpServer;

  [[nodiscard]] Stream& stream() const {
    if (stream_ == nullptr) throw std::logic_error("weir: this TcpConnection is not connected");
    return *stream_;
  }
  void set_option(Sockets::Option option, bool on, const char* what);
  void reset() noexcept {
    if (Stream* stream = std::exchange(stream_, nullptr)) stream->drop();
  }

  Stream* stream_ = nullptr;
};

}  // namespace weir
