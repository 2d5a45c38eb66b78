#pragma once

#include <weir/core/survey.h>
#include <weir/coro/task.h>
#include <weir/net/tcp_server.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace weir::detail {

/// What all loops and servers of the process told.
struct Snapshot {
  std::vector<LoopReport> loops;
  std::vector<std::pair<std::string, ServerMetrics>> servers;
};

/// Asks them, and remembers what each loop told last, for when it does not answer. On one loop,
/// which is none of those.
class Surveyor {
 public:
  /// Waits a tenth of a second at the most for those that are busy.
  Task<Snapshot> look(Wanted wanted);

 private:
  std::map<std::uint64_t, Metrics> last_;
};

}  // namespace weir::detail
