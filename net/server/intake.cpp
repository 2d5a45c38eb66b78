#include <weir/coro/as_tuple.h>
#include <weir/net/server/intake.h>
#include <weir/net/server/share.h>

#include <system_error>
#include <utility>

namespace weir::detail {

Intake::Intake(Share& share, ServerCore::Shares hand_out_to) noexcept
    : share_(share), hands_out_(!hand_out_to.empty()), hand_out_to_(std::move(hand_out_to)) {}

void Intake::accept_with(Acceptor acceptor) {
  if (closed_) return;
  share_.core().add_shed(acceptor.shed_counter());
  acceptors_.push_back(std::move(acceptor));
  share_.begin(accept_all(share_.shared_from_this(), acceptors_.size() - 1));
}

/// The same in a drain, until there is nobody left. A handler that runs at once may end the server.
Task<> Intake::accept_all(std::shared_ptr<Share> share, std::size_t index) {
  Intake& intake = share->intake();
  const Present present(share->core().presence);
  while (!share->is_closed()) {
    auto [error, socket] = co_await as_tuple(intake.acceptors_[index].accept());
    if (error == std::errc::operation_canceled) co_return;
    if (error) {
      share->core().listener_broke(error, intake.acceptors_[index].address());
      co_return;
    }
    intake.hand_out(std::move(socket));
  }
}

/// A connection on its way to its loop.
struct Intake::InTransit final : Posted {
  explicit InTransit(std::shared_ptr<Share> share)
      : to(std::move(share)), present(to->core().presence), place(*to) {}
  void run() override {
    if (!to->is_closed()) to->serve(std::move(socket), std::move(place), accepted);
  }

  std::shared_ptr<Share> to;
  Present present;
  Share::Place place;
  Socket socket;
  TimePoint accepted;
};

/// Counts that others change meanwhile are as good: each was right a moment ago.
const std::shared_ptr<Share>& Intake::next_to_serve() noexcept {
  const std::size_t count = hand_out_to_.size();
  std::size_t chosen = next_++ % count;
  if (share_.core().options.balance == Balance::least_connections) {
    const auto load = [&](std::size_t i) { return hand_out_to_[i]->load(); };
    std::size_t least = load(chosen);
    for (std::size_t i = 1, at = chosen; i < count && least > 0; ++i) {
      at = at + 1 == count ? 0 : at + 1;
      if (const std::size_t here = load(at); here < least) {
        least = here;
        chosen = at;
      }
    }
  }
  return hand_out_to_[chosen];
}

void Intake::hand_out(Socket socket) {
  const TimePoint now = share_.gate().loop().machine().now();
  if (!hands_out_) return share_.serve(std::move(socket), Share::Place(share_), now);
  try {
    const std::shared_ptr<Share>& next = next_to_serve();
    // A loop that is stuck would have everybody's descriptors wait for it.
    if (share_.core().admission.refuse_beyond(next->load())) return;
    auto sent = std::make_unique<InTransit>(next);
    Share& to = *sent->to;
    sent->socket = std::move(socket);
    sent->accepted = now;
    (void)to.gate().post(std::move(sent));
  } catch (...) {
    cannot_start(share_.gate().loop(), std::move(socket), std::current_exception());
  }
}

void cannot_start(EventLoop& loop, Socket socket, const std::exception_ptr& failure) noexcept {
  (void)loop.sockets().set(socket.fd(), Sockets::Option::reset_on_close, 1);
  loop.report_failure(failure, "the start of a connection");
}

void Intake::stop_listening() noexcept {
  for (Acceptor& acceptor : acceptors_) acceptor.stop_listening();
}

void Intake::close() noexcept {
  closed_ = true;
  for (Acceptor& acceptor : acceptors_) acceptor.close();
}

void Intake::clear() noexcept {
  acceptors_.clear();
  hand_out_to_.clear();
}

void Intake::list_listeners(std::vector<int>& descriptors) const {
  for (const Acceptor& acceptor : acceptors_) {
    if (acceptor.fd() >= 0) descriptors.push_back(acceptor.fd());
  }
}

}  // namespace weir::detail
