#pragma once

#include <weir/core/sockets.h>
#include <weir/net/socket_address.h>

#include <sys/types.h>

#include <string>

namespace weir::detail {

/// Which file a path leads to: it may be somebody else's by now.
struct SocketFile {
  explicit SocketFile(const std::string& path);
  friend bool operator==(const SocketFile&, const SocketFile&) = default;

  dev_t device = 0;
  ino_t number = 0;
};

/// Removes a socket file of ours that nobody has bound: a crashed process's leftover. Not a link:
/// it leads to somebody's file. The probe, of another type, never reaches a listener (EPROTOTYPE).
void remove_stale(Sockets& sockets, const SocketAddress& address);

/// Between bind and listen, when nobody can connect yet. By the file itself, which in a directory
/// of many may not be what the path leads to by now: through /proc, or by fchmodat2(2) (Linux 6.6)
/// where that is not mounted. 0 or -errno; 0 for what has no file.
int set_mode(const SocketAddress& address, unsigned mode);

}  // namespace weir::detail
