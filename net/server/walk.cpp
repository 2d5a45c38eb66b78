#include <weir/net/connection_access.h>
#include <weir/net/server/share.h>
#include <weir/net/server/walk.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace weir::detail {
namespace {

constexpr auto kSlice = std::chrono::milliseconds(4);

}  // namespace

void Walk::start(Function function, const Shares& shares) {
  Shares order = shares;
  std::shared_ptr<Walk> walk(new Walk(std::move(function), {}));
  if (EventLoop::current_or_null() != nullptr) {
    const auto here = std::find_if(order.begin(), order.end(),
                                   [](const auto& share) { return share->gate().is_here(); });
    if (here != order.end()) std::rotate(order.begin(), here, here + 1);
    walk->shares_ = std::move(order);
    if (walk->shares_.empty()) return;
    if (walk->shares_.front()->gate().is_here()) return go_on(walk);
    walk->at_ = static_cast<std::size_t>(-1);
    return go_to_next(walk);
  }
  // A loop that does not run can be used from here.
  std::erase_if(order, [&](const auto& share) {
    const auto running = share->gate().runs_elsewhere();
    const auto visit = [&] {
      const EventLoop::Entered entered(share->gate().loop());
      (void)walk->visit(*share, TimePoint::max());
    };
    return !running || (!*running && share->gate().loop().while_idle(visit));
  });
  walk->shares_ = std::move(order);
  walk->at_ = static_cast<std::size_t>(-1);
  // Beside the promise, so that the other thread has let go of the exception when we look at it.
  std::exception_ptr failure;
  walk->failure_ = &failure;
  std::future<void> done = walk->done_.emplace().get_future();
  go_to_next(walk);
  walk.reset();  // so that it breaks its promise if a loop ends before
  try {
    done.get();
  } catch (const std::future_error&) {  // and the connections have ended with their loop
  }
  if (failure != nullptr) std::rethrow_exception(std::move(failure));
}

bool Walk::visit(Share& share, TimePoint until) {
  if (share.is_closed()) return true;
  if (!std::exchange(begun_, true)) {
    share.roster().begin(walker_);
    last_ = share.core().accepted();
  }
  const auto keep = share.shared_from_this();  // the function may end the server
  while (Connection* stream = walker_.next) {
    if (stream->identity().id() > last_) break;
    walker_.next = share.roster().after(*stream);
    const Connection::Pin pin(*stream);
    TcpConnection connection(*stream);
    struct Release {
      TcpConnection& connection;
      ~Release() { ConnectionAccess::let_go(connection); }
    } const release{connection};
    function_(connection);
    if (walker_.next != nullptr && share.gate().loop().machine().now() >= until) return false;
  }
  walker_.link.unlink();
  begun_ = false;
  return true;
}

void Walk::go_on(const std::shared_ptr<Walk>& walk) {
  const auto share = walk->shares_[walk->at_];
  try {
    const TimePoint until = share->gate().loop().machine().now() + kSlice;
    if (!walk->visit(*share, until) && share->gate().post_function([walk] { go_on(walk); })) return;
  } catch (...) {
    walk->walker_.link.unlink();
    if (!walk->done_) throw;
    *walk->failure_ = std::current_exception();
  }
  if (walk->done_ && *walk->failure_ != nullptr) {
    walk->done_->set_value();
  } else {
    go_to_next(walk);
  }
}

void Walk::go_to_next(const std::shared_ptr<Walk>& walk) {
  while (++walk->at_ < walk->shares_.size()) {
    if (walk->shares_[walk->at_]->gate().post_function([walk] { go_on(walk); })) return;
  }
  if (walk->done_) walk->done_->set_value();
}

}  // namespace weir::detail
