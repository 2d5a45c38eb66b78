#pragma once

#include <span>
#include <string>
#include <vector>

namespace weir {

/// The listening descriptors that this process was given (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS,
/// from descriptor 3 on). They are non-blocking and close-on-exec from then on. Each call gives
/// them; who takes one over owns it.
std::vector<int> inherited_descriptors();

/// Whether the sockets are handed on by a predecessor to whom the files of Unix paths belonged, and
/// who leaves those to us; of systemd's they are systemd's.
bool inherited_files() noexcept;

/// Starts a program that inherits the descriptors by the same protocol, with this process's
/// environment; `command` is its path and arguments. Gives its process id; the caller waits for
/// it. Throws `std::system_error` if it cannot be started. `with_files`: see `inherited_files`.
int start_with_descriptors(const std::vector<std::string>& command,
                           std::span<const int> descriptors, bool with_files);

}  // namespace weir
