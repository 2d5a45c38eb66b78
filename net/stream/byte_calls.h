#pragma once

#include <weir/net/stream/big_endian.h>
#include <weir/net/stream/reading.h>
#include <weir/net/stream/sending.h>

#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weir::detail {

/// The calls of a `ByteStream`, once for all who have an inbox and an outbox: `Derived` gives them,
/// or nullptr for no stream.
template <class Derived>
class ByteCalls {
 public:
  /// `co_await read()` gives some bytes, at least one; an empty chunk, whose `is_end()` is true,
  /// once the peer has sent FIN. Throws `std::system_error` if the connection broke
  /// (`std::errc::connection_reset`, `errc::unresponsive`, `errc::idle`, …) and
  /// `errc::closed_here` if it was closed from this side meanwhile; a second read
  /// while one waits throws `std::logic_error`. Dropping it loses nothing: what comes later is
  /// returned by the next read.
  Read read() noexcept { return Read(inbox()); }

  /// The same, of `max` bytes at the most; for 0 an empty chunk at once.
  ReadMostAwaiter read(std::size_t max) noexcept { return ReadMostAwaiter(inbox(), max); }

  /// `co_await read_exactly(n)` gives n bytes in one piece; the end (`is_end()`) only if it came
  /// before the first, and an empty chunk at once for 0. The end midway throws
  /// `std::errc::connection_aborted`, and the bytes stay unread.
  /// Memory grows with what comes in, not with n. Dropping it consumes nothing.
  ReadExactlyAwaiter read_exactly(std::size_t count) noexcept {
    return ReadExactlyAwaiter(inbox(), count);
  }

  /// `co_await read_big<std::uint32_t>()` gives an integer that came in network order, as
  /// `append_big` writes it. Any end before it is whole throws `std::errc::connection_aborted`: who
  /// has to tell a clean end looks with `peek(1)` first. Else as `read_exactly`.
  template <WireInteger T>
  ReadBigAwaiter<T> read_big() noexcept {
    return ReadBigAwaiter<T>(inbox());
  }

  /// `co_await read_until(delimiter, max)` gives all up to the delimiter and with it, `max` bytes
  /// at the most; else throws `std::errc::message_size`, with nothing consumed. The end as with
  /// `read_exactly`. Dropping it consumes nothing. Throws `std::invalid_argument` for an empty
  /// delimiter, or one longer than `max`.
  ReadUntilAwaiter read_until(std::string_view delimiter, std::size_t max) {
    return ReadUntilAwaiter(inbox(), delimiter, max);
  }

  /// `co_await peek(n)` gives the next n bytes in one piece, which stay unread; fewer only where
  /// the stream ends or broke before. The end (`is_end()`) and failures as with `read`; for 0 an
  /// empty chunk at once. Dropping it changes nothing.
  PeekAwaiter peek(std::size_t count) noexcept { return PeekAwaiter(inbox(), count); }

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
    return SendAwaiter(outbox(), bytes.data(), bytes.size());
  }
  SendAwaiter send(const char* text) noexcept { return send(std::string_view(text)); }
  SendAwaiter send(const std::string& bytes) noexcept { return send(std::string_view(bytes)); }
  SendAwaiter send(std::span<const std::byte> bytes) noexcept {
    return SendAwaiter(outbox(), bytes.data(), bytes.size());
  }
  /// One message of several parts, which are copied by the call.
  SendAwaiter send(std::span<const std::string_view> parts) {
    return SendAwaiter(outbox(), join(parts));
  }
  /// In braces, two literals would be a string of what lies between them; and GCC 12 keeps no array
  /// of a co_await's expression. A `std::array` is what takes parts.
  SendAwaiter send(std::initializer_list<std::string_view> parts) = delete;
  /// Moved: the bytes are sent from where they are, without a copy.
  SendAwaiter send(Chunk&& chunk) noexcept { return SendAwaiter(outbox(), std::move(chunk)); }
  SendAwaiter send(std::string&& bytes) { return SendAwaiter(outbox(), adopt(std::move(bytes))); }
  SendAwaiter send(std::vector<std::byte>&& bytes) {
    return SendAwaiter(outbox(), adopt(std::move(bytes)));
  }
  /// Kept, without a copy, until the kernel has them.
  SendAwaiter send(SharedBytes bytes) { return SendAwaiter(outbox(), adopt(std::move(bytes))); }

  /// `co_await flush()` resumes once all that was sent so far is with the kernel. Throws like
  /// `send`. Dropping it changes nothing.
  FlushAwaiter flush() noexcept { return FlushAwaiter(outbox(), false); }

  /// `co_await shutdown()` flushes, then sends FIN; no send is accepted from the call on. Reading
  /// goes on until the peer's FIN. Dropping it does not call the FIN off.
  FlushAwaiter shutdown() noexcept { return FlushAwaiter(outbox(), true); }

  /// Bytes accepted and not yet with the kernel.
  [[nodiscard]] std::size_t pending_bytes() const noexcept {
    const Outbox* box = static_cast<const Derived&>(*this).outbox();
    return box == nullptr ? 0 : box->pending();
  }

 protected:
  ByteCalls() noexcept = default;
  ~ByteCalls() = default;

 private:
  [[nodiscard]] Inbox* inbox() const noexcept { return static_cast<const Derived&>(*this).inbox(); }
  [[nodiscard]] Outbox* outbox() const noexcept {
    return static_cast<const Derived&>(*this).outbox();
  }
};

}  // namespace weir::detail
