#pragma once

#include <weir/net/handshake.h>
#include <weir/net/tcp_connection.h>

#include <cstdint>
#include <exception>
#include <memory>

namespace weir::detail {

class Roster;
class ServerCore;
struct Traffic;

/// What a server's connections on one loop begin with, before their handler is called: a proxy's
/// header, a handshake. It outlives its tasks. Loop's thread only.
class Welcome {
 public:
  /// `received`: bytes that came for those whose handler was called.
  Welcome(ServerCore& core, const Roster& roster, Traffic& traffic, EventLoop& loop,
          const std::uint64_t& received) noexcept
      : core_(core), roster_(roster), traffic_(traffic), loop_(loop), received_(received) {}

  /// The whole of it, and the handler's task in the end; without any it is the handler's task.
  Task<> begin(TcpConnection connection, TimePoint accepted);

 private:
  Task<> serve_for_proxy(TcpConnection connection, TimePoint accepted);
  [[nodiscard]] bool admits(Connection& stream, const SocketAddress& client);
  Task<> serve_securely(TcpConnection connection, TimePoint accepted);
  void note_wait(TimePoint accepted) noexcept;
  void failed(std::uint64_t id) noexcept;

  ServerCore& core_;
  const Roster& roster_;
  Traffic& traffic_;
  EventLoop& loop_;
  const std::uint64_t& received_;
  std::unique_ptr<HandshakeGate> gate_;  // goes after the handlers
};

}  // namespace weir::detail
