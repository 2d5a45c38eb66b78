#pragma once

#include <weir/core/survey.h>
#include <weir/coro/task.h>
#include <weir/net/tcp_server.h>

#include <map>
#include <string>
#include <vector>

namespace weir::detail {

struct ServerReport {
  std::string name;
  ServerMetrics metrics;
  Histogram waits;  // from accept to handler: see `add_nanoseconds`
};

/// What all loops and servers of the process told.
struct Snapshot {
  std::vector<LoopReport> loops;
  std::vector<ServerReport> servers;
};

/// Asks them, and remembers what each loop told last, for when it does not answer. Tasks are looked
/// at some hundred in a turn, so that each loop serves meanwhile. On one loop, which is none of
/// those.
class Surveyor {
 public:
  /// Waits a tenth of a second at the most for those that are busy, and two for those that have
  /// begun to answer.
  Task<Snapshot> look(Wanted wanted);

 private:
  void complete(std::vector<LoopReport>& loops);
  void take(LoopReport& report, LoopReport&& answer);

  struct Last {
    Metrics metrics;
    Histogram turn_ms_taken;
    Histogram lag;
  };
  std::map<std::uint64_t, Last> last_;
};

}  // namespace weir::detail
