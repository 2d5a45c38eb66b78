#pragma once

#include <weir/core/engine.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace weir::detail {

class Connection;

/// A connection's one operation that receives, as its `receiver_`: into leased buffers as long as
/// they do not fill up, into one large buffer after another when they do (bulk); above the input
/// mark it only polls for the peer's end. Loop's thread.
class Receiver {
 public:
  Receiver(int fd, bool of_unix_socket) noexcept;

  /// Looks at what has to be received, and how, and starts it or ends what does something else.
  void update() noexcept;
  /// From now on what comes is thrown away.
  void discard() noexcept;
  /// Nothing is to be received any more.
  void stop() noexcept;
  [[nodiscard]] bool in_flight() const noexcept { return operation_.in_flight(); }
  /// The connection's descriptor; -1 once it was released.
  [[nodiscard]] int fd() const noexcept { return operation_.fd; }
  int release_fd() noexcept { return std::exchange(operation_.fd, -1); }
  /// The peer's FIN was read.
  [[nodiscard]] bool at_end() const noexcept { return mode_ == Mode::ended; }

  /// It receives nothing until somebody reads.
  [[nodiscard]] bool is_held() const noexcept {
    return mode_ == Mode::held || mode_ == Mode::held_at_end;
  }

 private:
  /// What becomes of the bytes that come:
  ///
  ///      first ──▶ flowing, or transformed    the first bytes may say that they are TLS
  ///
  ///     flowing ──▶ held ──▶ held_at_end      the inbox is at its mark; and the peer's end shows
  ///        │  ◀───────┴─────────┘
  ///        ├──▶ doubted ──▶ ended             an end while something is to be sent may be a reset
  ///        └──▶ discarding                    the connection was closed
  ///     stopped                               it is broken
  enum class Mode : std::uint8_t {
    first,
    flowing,
    transformed,  // the same, by way of the transform
    held,
    held_at_end,
    doubted,
    ended,
    discarding,
    stopped,
  };
  friend class Connection;
  struct Bulk;  // while it receives into a large buffer

  static void on_complete(Operation& operation, Completion completion) noexcept;
  [[gnu::noinline]] void completed(Completion completion) noexcept;
  void take_in(Completion completion) noexcept;
  void polled(int events) noexcept;
  void came_to_end() noexcept;
  void note_size(std::size_t size, std::size_t room) noexcept;
  void look_at_first(std::span<const std::byte> bytes) noexcept;
  void deliver(BufferRef buffer, std::size_t size) noexcept;
  [[nodiscard]] Mode next_mode() const noexcept;
  void start() noexcept;
  [[nodiscard]] bool prepare_bulk() noexcept;
  [[nodiscard]] Bulk* bulk() const noexcept;
  void end_bulk() noexcept;
  void end_idle_bulk() noexcept;
  [[nodiscard]] bool wants_bulk() const noexcept;
  [[nodiscard]] Connection& connection() const noexcept;

  [[no_unique_address]] Operation operation_;  // what follows lies in its padding
  Mode mode_ = Mode::first;
  std::uint8_t full_buffers_ = 0;  // receives in a row that were as large as they could be
};

}  // namespace weir::detail
