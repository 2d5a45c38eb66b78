#pragma once

#include <weir/core/survey.h>
#include <weir/coro/mutex.h>
#include <weir/coro/task.h>
#include <weir/net/tcp_server.h>

#include <map>
#include <memory>
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
///
/// However many look, and however often, a loop has one question at a time: while it writes its
/// answer it serves nobody.
class Surveyor {
 public:
  /// Waits a tenth of a second at the most for those that are busy, after others that look.
  Task<Snapshot> look(Wanted wanted, bool servers);

 private:
  struct Question;

  Task<> ask_loops(Snapshot& snapshot, Wanted wanted);

  Mutex turn_;
  std::map<std::uint64_t, Metrics> last_;
  std::map<std::uint64_t, std::weak_ptr<Question>> asked_;  // by the loops' numbers
};

}  // namespace weir::detail
