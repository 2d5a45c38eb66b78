#pragma once

#include <weir/core/survey.h>
#include <weir/coro/mutex.h>
#include <weir/coro/task.h>
#include <weir/net/inspect/servers.h>
#include <weir/net/tcp_server.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace weir::detail {

/// What all loops and servers of the process told.
struct Snapshot {
  std::vector<LoopReport> loops;
  std::vector<ServerReport> servers;
};

/// Asks them, and remembers what each loop told last, for when it does not answer. On one loop,
/// which is none of those.
///
/// However many look, and however often, a loop has one question at a time, and looks at some
/// hundred tasks in a turn, so that it serves meanwhile.
class Surveyor {
 public:
  /// Waits a tenth of a second at the most for those that are busy, and two for those that have
  /// begun to answer, after others that look.
  Task<Snapshot> look(Wanted wanted, bool servers);

 private:
  struct Question;
  struct Last {
    Metrics metrics;
    Histogram turn_ms_taken;
    Histogram lag;
  };

  Task<> ask_loops(std::vector<LoopReport>& loops, Wanted wanted);
  void complete(std::vector<LoopReport>& loops);
  void take(LoopReport& report, LoopReport&& answer);

  Mutex turn_;
  std::map<std::uint64_t, Last> last_;
  std::map<std::uint64_t, std::weak_ptr<Question>> asked_;  // by the loops' numbers
};

}  // namespace weir::detail
