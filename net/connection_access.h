#pragma once

#include <weir/net/tcp_connection.h>

namespace weir::detail {

/// What a user's handle stands for, for weir's other parts.
struct ConnectionAccess {
  /// nullptr: nothing.
  [[nodiscard]] static Connection* of(const TcpConnection& connection) noexcept {
    return connection.connection_;
  }
  /// The handle has nothing any more, and the connection goes on.
  static void let_go(TcpConnection& connection) noexcept { connection.connection_ = nullptr; }
};

}  // namespace weir::detail
