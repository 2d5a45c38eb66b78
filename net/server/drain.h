#pragma once

#include <weir/core/event_loop.h>
#include <weir/net/tcp_server.h>

#include <memory>

namespace weir::detail {

class ServerCore;

/// Ends a server gently, and then by force. On the base loop. See `TcpServer::drain`.
[[nodiscard]] Task<DrainReport> drain(std::shared_ptr<ServerCore> core, Duration limit);

}  // namespace weir::detail
