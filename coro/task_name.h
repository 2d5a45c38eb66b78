#pragma once

#include <string_view>

namespace weir {

/// Names the task that runs now, for the tree that an `Inspector` shows: "serve "request 42" at …".
/// The task is what was spawned, a server's call of its handler, or an operand of `when_all` or
/// `when_any`; what it spawns has no name. Empty: none any more. Up to 128 bytes, what is above is
/// cut off; control characters become '?'. Who never names a task pays nothing. On the task's own
/// thread. Throws `std::logic_error` where no task runs, and `std::bad_alloc`.
void task_name(std::string_view name);

}  // namespace weir

namespace weir::detail {

class Scope;

/// What that task has named itself; empty: nothing.
[[nodiscard]] std::string_view name_of_task(const Scope& task) noexcept;

}  // namespace weir::detail
