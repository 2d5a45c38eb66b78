#pragma once

#include <weir/net/connection.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace weir::detail {

/// What a peer may send after our close, beyond what was unread when our FIN went.
inline constexpr std::size_t kDiscarded = 1 << 20;

/// What it needs late, or for an answer that few ask for.
struct Connection::Late : FrameAllocated {
  struct Linger : Timer {
    explicit Linger(Connection& of)
        : Timer([](Timer& timer) noexcept {
            Ending& ending = static_cast<Linger&>(timer).connection.ending();
            ending.abort();
            ending.conclude();
          }),
          connection(of) {}
    Connection& connection;
  };

  explicit Late(Connection& of) : linger(of) {}

  Linger linger;
  std::size_t discarded = 0;
  std::size_t most_discarded = kDiscarded;
  bool counts_unread = true;  // when the FIN has gone
  std::string name;           // for a user who still has the connection when it has gone
  SocketAddress address;
  std::unique_ptr<const SocketAddress> peer;  // that is neither the socket's nor an IP address
  std::uint64_t acknowledged = 0;             // of what was sent, when that was last asked
};

/// Segments of one send. More would seldom make a larger one: small messages are copied together.
inline constexpr std::uint32_t kSegmentsPerSend = 64;
/// A block of a file at the least; larger where the socket takes more at once.
inline constexpr std::size_t kFileBlock = 64 << 10;

/// For a send of what is not one message in memory.
struct Transmitter::Work : FrameAllocated {
  Work() noexcept {}  // NOLINT(modernize-use-equals-default): the slices need no values

  Slice slices[kSegmentsPerSend];
  BufferRef block;  // what was read of a file, and is being sent
  Slice block_slice{nullptr, 0};
  Operation::FilePart part{nullptr, 0, 0};  // of the file that is being read
  std::size_t block_size = kFileBlock;
  bool file_waits = false;     // for the socket to take something
  SegmentQueue wire;           // what the transform made
  std::size_t stands_for = 0;  // bytes of the outbox
};

/// For a receive into a large buffer.
struct Receiver::Bulk : FrameAllocated {
  struct Idle : Timer {
    explicit Idle(Receiver& of)
        : Timer([](Timer& timer) noexcept { static_cast<Idle&>(timer).receiver.end_idle_bulk(); }),
          receiver(of) {}
    Receiver& receiver;
  };

  explicit Bulk(Receiver& of) : idle(of) {}

  Idle idle;
  BufferRef buffer;
};

/// Each is made when it is needed first; the work and the bulk go when they are not any more.
struct Connection::Extras : FrameAllocated {
  std::unique_ptr<Late> late;
  std::unique_ptr<Transmitter::Work> work;
  std::unique_ptr<Receiver::Bulk> bulk;
};

}  // namespace weir::detail
