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

void Walk::start(Function function, Shares shares) {
  if (EventLoop::current_or_null() == nullptr) {
    return Walk(std::move(function), std::move(shares)).go_from_outside();
  }
  const auto here = std::find_if(shares.begin(), shares.end(),
                                 [](const auto& share) { return share->gate().is_here(); });
  const bool begins_here = here != shares.end();
  if (begins_here) std::rotate(shares.begin(), here, here + 1);
  const std::shared_ptr<Walk> walk(new Walk(std::move(function), std::move(shares)));
  if (begins_here) return go_on(walk);
  walk->at_ = static_cast<std::size_t>(-1);
  go_to_next(walk);
}

void Walk::go_from_outside() {
  for (const auto& share : shares_) {
    for (bool through = false; !through;) {
      if (!share->gate().call([&] { through = visit(*share); })) break;
    }
  }
}

bool Walk::visit(Share& share) {
  if (share.is_closed()) return true;
  if (std::exchange(begun_, &share) != &share) {
    share.roster().begin(walker_);
    last_ = share.core().accepted();
  }
  struct End {
    Walk& walk;
    bool is_due = true;
    ~End() {
      if (!is_due) return;
      walk.walker_.link.unlink();
      walk.begun_ = nullptr;
    }
  } end{*this};
  const auto keep = share.shared_from_this();  // the function may end the server
  const TimePoint until = share.gate().loop().machine().now() + kSlice;
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
    if (walker_.next != nullptr && share.gate().loop().machine().now() >= until) {
      end.is_due = false;
      return false;
    }
  }
  return true;
}

void Walk::go_on(const std::shared_ptr<Walk>& walk) {
  const auto share = walk->shares_[walk->at_];
  if (walk->visit(*share) || !share->gate().post_function([walk] { go_on(walk); })) {
    go_to_next(walk);
  }
}

void Walk::go_to_next(const std::shared_ptr<Walk>& walk) {
  while (++walk->at_ < walk->shares_.size()) {
    if (walk->shares_[walk->at_]->gate().post_function([walk] { go_on(walk); })) return;
  }
}

}  // namespace weir::detail
