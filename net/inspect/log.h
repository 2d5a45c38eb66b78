#pragma once

#include <weir/net/inspect/snapshot.h>

namespace weir::detail {

/// Writes what `/loops`, `/connections` and `/tasks` show to the log, as warnings that begin with
/// "SIGQUIT: ", each part up to some thousand lines. In slices, between which the log's queue is
/// waited for, so that it loses none of its own or others' lines; a logger that takes nothing for
/// a second gets no more. Blocks the thread meanwhile.
void log_snapshot(const Snapshot& snapshot);

}  // namespace weir::detail
