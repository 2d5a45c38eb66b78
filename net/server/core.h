#pragma once

#include <weir/core/histogram.h>
#include <weir/net/server/admission.h>
#include <weir/net/server/presence.h>
#include <weir/net/server/proxies.h>
#include <weir/net/tcp_server.h>
#include <weir/net/transform.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace weir::detail {

class Roster;
class Share;
struct Traffic;

/// What the user's handle and the loops have in common of a server. Each loop has a `Share`, which
/// is made, used and torn down on that loop. From any thread.
class ServerCore : public std::enable_shared_from_this<ServerCore> {
 public:
  ServerCore(ServerOptions given, std::shared_ptr<Mailbox> base_mailbox);

  /// Once it is shared: makes what is needed when there may be no memory.
  void prepare();

  const ServerOptions options;
  std::shared_ptr<const TcpServer::Handler> handler;
  const std::shared_ptr<Mailbox> base;  // the base loop's, which it outlives
  Admission admission;
  const std::shared_ptr<Presence> presence;

  /// A number for a connection that was admitted.
  [[nodiscard]] std::uint64_t next_id() noexcept { return ++accepted_; }
  [[nodiscard]] std::uint64_t accepted() const noexcept { return accepted_; }

  /// Logs what left the handler of a connection of the share, and counts it as a failure, unless it
  /// tells what the peer did, or may do at any time.
  void handler_failed(const std::exception_ptr& failure, const Roster& roster, std::uint64_t id,
                      bool peers_doing) noexcept;
  [[nodiscard]] std::uint64_t failures() const;

  /// Logs it at once, and wakes who waits for `broken` on the base loop.
  void listener_broke(std::error_code error, const SocketAddress& address);
  Event broken;
  std::exception_ptr what_broke;  // the first; on the base loop

  using Counter = std::shared_ptr<const std::atomic<std::uint64_t>>;
  /// What its connections begin with: those of proxies, then all; nullptr: nothing.
  const TrustedProxies proxies;
  const std::shared_ptr<HandshakeFactory> security;
  std::atomic<std::uint64_t> handshakes{0};
  std::atomic<std::uint64_t> failed_handshakes{0};
  void handshake_failed(const std::exception_ptr& failure, const Roster& roster,
                        std::uint64_t id) noexcept;

  /// Bytes of its connections, one for each loop.
  void add_traffic(std::shared_ptr<const Traffic> traffic);
  struct Bytes {
    std::uint64_t in = 0;
    std::uint64_t out = 0;
  };
  [[nodiscard]] Bytes traffic() const;
  /// From the accept of a connection to its handler: see `add_nanoseconds`.
  [[nodiscard]] Histogram waits() const;

  /// All of it, with the bytes that its loops have said last.
  [[nodiscard]] ServerMetrics metrics() const;

  void add_shed(Counter counter);
  [[nodiscard]] std::uint64_t shed() const;

  // The loops' shares: fixed between start and end, and asked for meanwhile.
  using Shares = std::vector<std::shared_ptr<Share>>;
  [[nodiscard]] Shares shares() const;
  void add_share(std::shared_ptr<Share> share);

  /// Tears them down, each on its loop, and gives them away: to be kept as long as their loops.
  [[nodiscard]] Shares tear_down() noexcept;

  /// In the child of a fork: whoever had its locks is not there.
  void become_parents() noexcept;

  /// Cuts everything off; whoever waits for `stopped` on the base loop is told. Once.
  void stop() noexcept;
  Event stopped;

  /// How many successors have the listeners, or may have. What has been set on the base loop before
  /// a share is asked for its listeners, that share knows.
  const std::shared_ptr<std::atomic<int>> successors = std::make_shared<std::atomic<int>>(0);

 private:
  std::atomic<std::uint64_t> accepted_{0};
  mutable std::mutex mutex_;
  Shares shares_;                      // the I/O loops' first
  std::unique_ptr<Posted> stop_note_;  // made beforehand
  bool stop_wanted_ = false;
  std::uint64_t failures_ = 0;
  std::vector<Counter> shed_;
  std::vector<std::shared_ptr<const Traffic>> traffic_;
};

}  // namespace weir::detail
