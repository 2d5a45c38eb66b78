#pragma once

#include <weir/coro/list.h>
#include <weir/net/tcp_server.h>

#include <functional>
#include <mutex>

namespace weir::detail {

/// A server's entry in the list of all.
struct ServerEntry {
  ServerEntry(const TcpServer& of, const ServerCore& with) noexcept : server(of), core(with) {}

  Link link;
  const TcpServer& server;
  const ServerCore& core;
};

/// The servers of the process that run on the kernel. From any thread.
class AllServers {
 public:
  /// Never destroyed.
  static AllServers& instance();

  void add(ServerEntry& entry) noexcept;
  /// Waits for whoever looks at it.
  void remove(ServerEntry& entry) noexcept;
  void hide(const TcpServer& server) noexcept;
  /// None of them can go meanwhile.
  void for_each(const std::function<void(const ServerEntry&)>& function);

 private:
  std::mutex mutex_;
  List<ServerEntry> entries_;
};

}  // namespace weir::detail
