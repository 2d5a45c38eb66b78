#pragma once

#include <source_location>
#include <string>
#include <vector>

namespace weir::detail {

/// What a thread of the process does, as far as another can tell. What is not known is empty.
struct ThreadView {
  std::string state;               // as the kernel says: "runs", "waits in clock_nanosleep"
  std::source_location task;       // where the task that it runs awaited last; a line of 0: unknown
  std::source_location spawned;    // who spawned that one; likewise
  std::vector<std::string> stack;  // the innermost first: "function (module+0x1f)"
};

}  // namespace weir::detail
