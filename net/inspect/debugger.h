#pragma once

namespace weir::detail {

/// Has what a debugger needs to know linked into the program: where the parts of loops, tasks and
/// connections lie, for doctor/weir-gdb.py, and where that script is installed. Does nothing.
void keep_for_debuggers() noexcept;

}  // namespace weir::detail
