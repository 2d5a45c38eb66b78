#pragma once

#include <weir/core/machine.h>
#include <weir/coro/task.h>

#include <string>
#include <vector>

namespace weir::detail {

/// The listening descriptors that this process was given (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS,
/// from descriptor 3 on), without those that were taken. They are non-blocking and close-on-exec
/// from then on. From any thread.
std::vector<int> inherited_descriptors();

/// Whoever gets true for one of these owns it, for ever: when it has closed it, its number may be
/// anybody's. From any thread.
[[nodiscard]] bool take_inherited_descriptor(int fd);

/// Whether the sockets are handed on by a predecessor to whom the files of Unix paths belonged, and
/// who leaves those to us; of systemd's they are systemd's.
bool inherited_files() noexcept;

/// Whether this process has been started by a hand-over.
bool has_predecessor() noexcept;

/// What the predecessor told, for who asks first; empty for others, and without one. From any
/// thread.
std::string take_inherited_secrets();

/// Tells the predecessor, once, that this process serves: a byte to the descriptor of
/// WEIR_READY_FD. False if that has given it up by now, and serves on; true also without one.
bool report_ready() noexcept;

}  // namespace weir::detail

namespace weir::detail {

/// Starts a program that inherits the descriptors by these protocols, with this process's
/// environment, no signal blocked. True once it has reported that it serves. False, and logged, if
/// it cannot be started, ended before or was not ready in time; it is killed then, and has not been
/// allowed to serve. Dropped: the same.
Task<bool> start_successor(SuccessorCommand command);

}  // namespace weir::detail
