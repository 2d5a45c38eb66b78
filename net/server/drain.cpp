#include <weir/coro/as_tuple.h>
#include <weir/coro/timeout.h>
#include <weir/net/server/core.h>
#include <weir/net/server/drain.h>
#include <weir/net/server/share.h>

namespace weir::detail {
Task<DrainReport> drain(std::shared_ptr<ServerCore> core, Duration limit) {
  const ServerCore::Shares shares = core->shares();
  Share::Tally before;
  for (const auto& share : shares) {
    before += share->tally();
    share->begin_drain();
  }
  const auto ended = co_await as_tuple(timeout(limit, Presence::all_gone(core->presence)));
  if (ended.error) {
    for (const auto& share : shares) share->stop();
    co_await Presence::all_gone(core->presence);
  }
  Share::Tally after;
  for (const auto& share : shares) after += share->tally();
  co_return DrainReport{after.finished - before.finished, after.forced - before.forced};
}

}  // namespace weir::detail
