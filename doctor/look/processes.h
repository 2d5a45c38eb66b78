#pragma once

#include <string>
#include <vector>

namespace look {

/// A process, and where its inspector may answer.
struct Process {
  int pid = 0;
  std::string name;
  /// As `weir::connect` reads them, the likeliest first: where it listens.
  std::vector<std::string> addresses;
};

/// A process that is to have an inspector. Throws `std::runtime_error`, which says in one line what
/// is in the way: there is no such process, it is another user's, it has no inspector.
Process process_with_inspector(int pid);

/// All those that have one and may be looked into, but this process itself. `unseen`: how many
/// could not be looked into.
std::vector<Process> processes_with_inspectors(std::size_t& unseen);

}  // namespace look
