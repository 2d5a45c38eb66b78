#pragma once

#include <weir/core/histogram.h>
#include <weir/coro/list.h>
#include <weir/net/tcp_server.h>

#include <mutex>
#include <string>
#include <vector>

namespace weir::detail {

class ServerCore;

struct ServerReport {
  std::string name;
  ServerMetrics metrics;
  Histogram waits;  // from accept to handler: see `add_nanoseconds`
};

/// A server's entry in the list of all.
struct ServerEntry {
  ServerEntry(const TcpServer& of, ServerCore& with) noexcept : server(of), core(with) {}

  Link link;
  const TcpServer& server;
  ServerCore& core;
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
  /// Of each with its name. Waits for loops that are busy, all of them together as long as
  /// `metrics` of one server does; servers come and go meanwhile.
  [[nodiscard]] std::vector<ServerReport> look();

 private:
  std::mutex mutex_;
  List<ServerEntry> entries_;
};

}  // namespace weir::detail
