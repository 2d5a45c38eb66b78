#pragma once

#include <weir/net/connection.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace weir::detail {

/// What a peer may send after our close, beyond what was unread when our FIN went.
inline constexpr std::size_t kDiscarded = 1 << 20;

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

}  // namespace weir::detail
