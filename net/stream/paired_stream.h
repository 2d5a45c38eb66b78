#pragma once

#include <weir/net/connection_options.h>
#include <weir/net/stream/byte_calls.h>
#include <weir/net/stream/byte_stream.h>

#include <cstddef>
#include <utility>

namespace weir {

namespace detail {
class StreamPair;
}

struct StreamEnds;

struct PairOptions {
  WaterMarks water_marks = {};
  std::size_t input_high = 512 << 10;
};

/// One end of a connection in memory between two coroutines of a loop. Move-only; what one end
/// sends the other reads, from the end of the same turn on, as far as its `input_high` lets it. A
/// close sends what is queued, then the end; what the other end still sends is thrown away.
class PairedStream : public detail::ByteCalls<PairedStream> {
 public:
  /// No stream: reads throw `errc::closed_here`, sends `std::errc::not_connected`.
  PairedStream() noexcept = default;
  PairedStream(PairedStream&& other) noexcept
      : pair_(std::exchange(other.pair_, nullptr)), end_(other.end_) {}
  PairedStream& operator=(PairedStream&& other) noexcept {
    if (this != &other) {
      reset();
      pair_ = std::exchange(other.pair_, nullptr);
      end_ = other.end_;
    }
    return *this;
  }
  /// Closes.
  ~PairedStream() { reset(); }

  explicit operator bool() const noexcept { return pair_ != nullptr; }

  /// Starts to end the stream: what was sent goes out, then the end. What is unread is gone.
  /// Waiting reads and sends resume with `errc::closed_here`.
  void close() noexcept;

 private:
  friend class detail::ByteCalls<PairedStream>;
  friend StreamEnds stream_pair(PairOptions options);

  PairedStream(detail::StreamPair& pair, int end) noexcept : pair_(&pair), end_(end) {}
  [[nodiscard]] detail::Inbox* inbox() const noexcept;
  [[nodiscard]] detail::Outbox* outbox() const noexcept;
  void reset() noexcept;

  detail::StreamPair* pair_ = nullptr;
  int end_ = 0;
};

/// What `stream_pair` gives.
struct StreamEnds {
  PairedStream a;
  PairedStream b;
};

/// `auto [a, b] = stream_pair();` gives two connected ends on the current loop: for protocol code
/// that is written to `ByteStream`, and is to be tested without a socket. Throws `std::logic_error`
/// where no loop runs, and `std::invalid_argument` for a bad option.
[[nodiscard]] StreamEnds stream_pair(PairOptions options = {});

static_assert(ByteStream<PairedStream>);

}  // namespace weir
