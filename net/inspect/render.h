#pragma once

#include <weir/net/inspect/snapshot.h>

#include <string>

namespace weir::detail {

/// As it is called everywhere.
std::string name_of(const LoopReport& loop);

// A snapshot as text for a terminal, as JSON (RFC 8259), or as a page.

std::string tasks_as_text(const Snapshot& snapshot);
std::string tasks_as_json(const Snapshot& snapshot);
std::string connections_as_text(const Snapshot& snapshot);
std::string connections_as_json(const Snapshot& snapshot);
/// The last of each loop, what its flight recorder has.
std::string events_as_text(const Snapshot& snapshot, std::size_t most);
std::string events_as_text(const Snapshot& snapshot);
std::string events_as_json(const Snapshot& snapshot);
std::string loops_as_text(const Snapshot& snapshot);
std::string loops_as_json(const Snapshot& snapshot);
/// Prometheus' text format, version 0.0.4.
std::string metrics_as_text(const Snapshot& snapshot);
/// One page, which loads itself anew every two seconds.
std::string page_as_html(const Snapshot& snapshot);

}  // namespace weir::detail
