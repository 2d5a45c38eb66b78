#pragma once

#include <weir/net/acceptor.h>
#include <weir/net/tcp_server.h>

#include <cstddef>
#include <vector>

namespace weir::detail {

/// A socket that listens, until an acceptor takes it over.
struct Listener {
  Socket socket;
  bool inherited = false;  // from whoever started this process
};

/// The listening sockets of a server, from when they are opened, or found among those that this
/// process was given, until its loops take them over. On the thread that starts the server.
class Listeners {
 public:
  explicit Listeners(const ServerOptions& options) : options_(options) {
    addresses_.push_back(options.address);
  }

  /// One more address to listen on, before `open`.
  void add(const SocketAddress& address) { addresses_.push_back(address); }

  /// Throws `std::system_error` naming the address; what is open by then stays so.
  void open(Sockets& sockets);

  /// Has the service manager keep those that are this process's own.
  void store();
  /// Whether it does: then files of Unix paths, and those not inherited, are the next process's,
  /// too.
  [[nodiscard]] bool stored() const noexcept { return stored_; }

  /// The first address, with the real port once it is open.
  [[nodiscard]] const SocketAddress& address() const noexcept { return addresses_.front(); }
  [[nodiscard]] const std::vector<Listener>& all() const noexcept { return open_; }
  [[nodiscard]] std::vector<Listener> take() noexcept { return std::exchange(open_, {}); }

  /// The files of Unix paths are removed in the end: they belong to nobody else.
  [[nodiscard]] bool owns_files() const noexcept { return owns_files_; }

 private:
  /// Those of the process that fit the address, which gets its real port from them.
  std::size_t inherit(Sockets& sockets, SocketAddress& address);

  const ServerOptions& options_;
  std::vector<SocketAddress> addresses_;
  std::size_t opened_ = 0;  // of the addresses
  std::vector<Listener> open_;
  bool owns_files_ = true;
  bool stored_ = false;
};

}  // namespace weir::detail
