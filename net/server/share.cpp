#include <weir/core/log_line.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/locals.h>
#include <weir/net/log_words.h>
#include <weir/net/server/handlers.h>
#include <weir/net/server/share.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

namespace weir::detail {
namespace {

/// The deadlines of connections are looked at this often while they run.
constexpr unsigned kRounds = 8;
/// Of a turn that resets connections.
constexpr auto kCutSlice = std::chrono::milliseconds(4);
/// When a drain begins the first request of a new connection may be under way: for that long.
constexpr auto kFirstRequest = std::chrono::seconds(1);

/// A connection's number as what its task keeps: by it a failure finds the connection's name. It
/// costs a connection nothing.
std::shared_ptr<const void> kept_with(std::uint64_t id, std::shared_ptr<const void> handler) {
  return {std::move(handler), reinterpret_cast<const void*>(static_cast<std::uintptr_t>(id))};
}

}  // namespace

Share::Share(std::shared_ptr<ServerCore> core, EventLoop& loop, ServerCore::Shares hand_out_to)
    : core_(std::move(core)),
      loop_(loop),
      mailbox_(loop.mailbox()),
      hands_out_(!hand_out_to.empty()),
      hand_out_to_(std::move(hand_out_to)),
      handlers_(std::make_unique<Handlers>(*this)),
      tasks_(std::in_place, loop) {
  core_->add_traffic(traffic_);
  loop.keep(*this);
  const ServerOptions& options = core_->options;
  if (options.idle_timeout.count() > 0) {
    begin(end_overdue(options.idle_timeout, &Connection::idle_rounds, kIdle, false));
  }
  if (options.write_timeout.count() > 0) {
    begin(end_overdue(options.write_timeout, &Connection::stalled_rounds, kUnresponsive, true));
  }
}

Share::~Share() = default;

/// What the task that calls `start` has set is not the handlers'.
void Share::begin(Task<> task) {
  const LocalsHere none{Locals()};
  const Scheduler::Inside nobody(loop_, nullptr);
  tasks_->spawn(std::move(task));
}

bool Share::post(std::unique_ptr<Posted> work) {
  const std::lock_guard lock(gate_);
  if (open_) mailbox_->push(std::move(work));
  return open_;
}

// ---------------------------------------------------------------------------------------------
// Accepting

void Share::accept_with(Acceptor acceptor) {
  if (cut_) return;
  core_->add_shed(acceptor.shed_counter());
  acceptors_.push_back(std::move(acceptor));
  begin(accept_all(shared_from_this(), acceptors_.size() - 1));
}

/// The same in a drain, until there is nobody left. A handler that runs at once may end the server.
Task<> Share::accept_all(std::shared_ptr<Share> self, std::size_t index) {
  const Present present(self->core_->presence);
  while (!self->closed_) {
    auto [error, socket] = co_await as_tuple(self->acceptors_[index].accept());
    if (error == std::errc::operation_canceled) co_return;
    if (error) {
      self->core_->listener_broke(error, self->acceptors_[index].address());
      co_return;
    }
    self->hand_out(std::move(socket));
  }
}

/// A connection on its way to its loop.
struct Share::InTransit final : Posted {
  explicit InTransit(std::shared_ptr<Share> share)
      : to(std::move(share)), present(to->core_->presence), place(*to) {}
  void run() override {
    if (!to->closed_) to->serve(std::move(socket), std::move(place), accepted);
  }

  std::shared_ptr<Share> to;
  Present present;
  Place place;
  Socket socket;
  TimePoint accepted;
};

/// Counts that others change meanwhile are as good: each was right a moment ago.
const std::shared_ptr<Share>& Share::next_to_serve() noexcept {
  const std::size_t count = hand_out_to_.size();
  std::size_t chosen = next_++ % count;
  if (core_->options.balance == Balance::least_connections) {
    const auto load = [&](std::size_t i) {
      return hand_out_to_[i]->load_.load(std::memory_order_relaxed);
    };
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

void Share::hand_out(Socket socket) {
  const TimePoint now = loop_.machine().now();
  if (!hands_out_) return serve(std::move(socket), Place(*this), now);
  try {
    auto sent = std::make_unique<InTransit>(next_to_serve());
    Share& to = *sent->to;
    sent->socket = std::move(socket);
    sent->accepted = now;
    (void)to.post(std::move(sent));
  } catch (...) {
    cannot_start(std::move(socket), std::current_exception());
  }
}

void Share::serve(Socket socket, Place place, TimePoint accepted) {
  if (cut_) return;
  Connection* stream = adopt(std::move(socket), std::move(place));
  if (stream == nullptr) return;
  core_->presence->enter();
  const Connection::Pin pin(*stream);
  const auto self = shared_from_this();  // a handler that runs at once may end the server
  try {
    handlers_->spawn(first_task(TcpConnection(*stream), accepted),
                     kept_with(stream->identity().id(), core_->handler));
  } catch (const std::bad_alloc&) {
    stream->cut(kClosedHere, true);  // it has not been served at all
    core_->handler_failed(std::current_exception(), *this, stream->identity().id(), false);
    core_->presence->leave();
  } catch (...) {
    handler_failed(std::current_exception(), stream->identity().id());
    core_->presence->leave();
  }
}

/// The frame may still have the connection, or is about to close it. What the peer got by then is
/// not to look like all.
void Share::handler_failed(const std::exception_ptr& failure, std::uint64_t id) noexcept {
  Connection* stream = streams_.front();
  while (stream != nullptr && stream->identity().id() != id) stream = streams_.after(*stream);
  // What broke may have been another connection of the handler's: to a server behind this one.
  const bool is_over = stream == nullptr || stream->ending().is_closing() ||
                       (tells_of_an_end(failure) && stream->receiver().at_end());
  const bool peers_doing = is_a_peers_doing(failure) && (is_over || !tells_of_a_break(failure));
  core_->handler_failed(failure, *this, id, peers_doing);
  if (!peers_doing && stream != nullptr) stream->end_with_reset();
}

/// Nothing if it was not admitted, or for want of memory.
Connection* Share::adopt(Socket socket, Place place) {
  Admission& admission = core_->admission;
  const bool asks = admission.by_peer() || !core_->proxies.none();
  const SocketAddress address = asks ? socket.peer_address() : SocketAddress();
  const bool of_proxy = asks && core_->proxies.contain(address);
  const std::uint64_t peer = admission.peer(address);
  if (!(of_proxy ? admission.admit_unknown() : admission.admit(peer))) return nullptr;
  try {
    Connection* stream = Connection::adopt(loop_, std::move(socket), core_->options.connection,
                                           this, core_->next_id(), address);
    stream->identity().set_of_proxy(of_proxy);
    core_->presence->enter();
    streams_.push_back(*stream);
    ++stream_count_;
    place.keep();
    return stream;
  } catch (...) {
    of_proxy ? admission.leave_unknown() : admission.leave(peer);
    cannot_start(std::move(socket), std::current_exception());
    return nullptr;
  }
}

/// Resets the connection: nothing of it was served.
void Share::cannot_start(Socket socket, const std::exception_ptr& failure) noexcept {
  (void)loop_.sockets().set(socket.fd(), Sockets::Option::reset_on_close, 1);
  loop_.report_failure(failure, "the start of a connection");
}

void Share::connection_closed(Connection& stream) noexcept {
  if (!cut_) ++finished_;
  forget(stream);
  ended_.push_back(stream);
}

void Share::write_name(LogLine& line, std::uint64_t id) const noexcept {
  for (const auto* list : {&streams_, &ended_}) {
    for (Connection* stream = list->front(); stream != nullptr; stream = list->after(*stream)) {
      if (stream->identity().id() != id) continue;
      try {
        line << std::string_view(stream->identity().name());
        return;
      } catch (const std::bad_alloc&) {
      }
    }
  }
  line << core_->options.name << "-#" << id;
}

void Share::met_tls(Connection& stream) noexcept {
  static constinit LogLimit limit("clients that speak TLS to a plain port");
  if (core_->security != nullptr || !limit.admits(logging::Level::info)) return;
  LogLine what;
  write_name(what, stream.identity().id());
  what << ": the client begins with TLS, and this server has none";
  logging::write(logging::Level::info, what);
}

void Share::forget(Connection& stream) noexcept {
  for (Walk* walk = walks_.front(); walk != nullptr; walk = walks_.after(*walk)) {
    if (walk->next_ == &stream) walk->next_ = streams_.after(stream);
  }
  stream.unlink();
  --stream_count_;
  sent_by_ended_ += stream.outbox().gone();
  Place::give_back(*this);
  Admission& admission = core_->admission;
  if (stream.identity().is_of_proxy()) {
    admission.leave_unknown();
  } else {
    admission.leave(
        admission.peer(admission.by_peer() ? stream.identity().peer_address() : SocketAddress()));
  }
  core_->presence->leave();
}

std::string_view Share::owner_name() const noexcept { return core_->options.name; }

Task<> Share::end_overdue(std::chrono::milliseconds limit, Rounds rounds, int error,
                          bool with_reset) {
  const auto period = to_duration(limit) / kRounds;
  for (;;) {
    co_await sleep(period);
    for (Connection* stream = streams_.front(); stream != nullptr;) {
      Connection* next = streams_.after(*stream);
      if ((stream->*rounds)() >= kRounds) stream->cut(error, with_reset);
      stream = next;
    }
  }
}

bool Share::visit(Walk& walk, TimePoint until) {
  if (closed_) return true;
  if (!std::exchange(walk.begun_, true)) {
    walks_.push_back(walk);
    walk.next_ = streams_.front();
    walk.last_ = core_->accepted();
  }
  const auto self = shared_from_this();  // the function may end the server
  while (Connection* stream = walk.next_) {
    if (stream->identity().id() > walk.last_) break;
    walk.next_ = streams_.after(*stream);
    const Connection::Pin pin(*stream);
    TcpConnection connection(*stream);
    struct Release {
      TcpConnection& connection;
      ~Release() { connection.connection_ = nullptr; }
    } const release{connection};
    walk.function_(connection);
    if (walk.next_ != nullptr && loop_.machine().now() >= until) return false;
  }
  walk.link.unlink();
  walk.begun_ = false;
  return true;
}

// ---------------------------------------------------------------------------------------------
// The end

void Share::begin_drain() noexcept {
  if (is_here()) {
    stop_listening();
  } else {
    send(drain_note_);
  }
}

void Share::stop_listening() noexcept {
  if (closed_) return;
  for (Acceptor& acceptor : acceptors_) acceptor.stop_listening();
  if (draining_.is_set()) return;
  draining_.set();
  try {
    begin(tell_unused());
  } catch (const std::bad_alloc&) {
    draining_unused_.set();
  }
}

Task<> Share::tell_unused() {
  co_await sleep(kFirstRequest);
  draining_unused_.set();
}

void Share::cut() noexcept {
  if (cut_) return;
  begin_cut();
  go_on_cutting();
}

void Share::begin_cut() noexcept {
  if (std::exchange(cut_, true)) return;
  forced_ += std::max(handlers_->size(), stream_count_);
  for (Acceptor& acceptor : acceptors_) acceptor.close();
  walks_.push_back(cutting_);
  cutting_.next_ = streams_.front();
}

void Share::go_on_cutting() noexcept {
  const auto self = shared_from_this();  // a handler's destructor may end the server
  cut_until(loop_.machine().now() + kCutSlice);
  if (closed_ || (handlers_->size() == 0 && cutting_.next_ == nullptr)) return;
  try {
    (void)post_function([self] {
      if (!self->closed_) self->go_on_cutting();
    });
  } catch (const std::bad_alloc&) {
    cut_until(TimePoint::max());
  }
}

void Share::cut_until(TimePoint until) noexcept {
  const auto self = shared_from_this();
  while (handlers_ != nullptr && handlers_->size() > 0) {
    // Before the handler goes: its connection would end as if all had been said.
    cut_connections(handlers_->first_id());
    if (handlers_ != nullptr) handlers_->cancel_first();
    if (loop_.machine().now() >= until) return;
  }
  cut_connections(std::numeric_limits<std::uint64_t>::max());
}

/// Those that have not been cut, up to this one: they stand in the order of their numbers.
void Share::cut_connections(std::uint64_t last) noexcept {
  while (Connection* stream = cutting_.next_) {
    if (stream->identity().id() > last) return;
    cutting_.next_ = streams_.after(*stream);
    stream->cut(kClosedHere, true);
  }
}

/// Weak: it may never be sent, and belongs to what it refers to.
void Share::prepare() {
  const auto note = [](auto function) -> std::unique_ptr<Posted> {
    return std::make_unique<PostedFunction<decltype(function)>>(std::move(function));
  };
  drain_note_ = note([weak = weak_from_this()] {
    if (const auto share = weak.lock()) share->stop_listening();
  });
  stop_note_ = note([weak = weak_from_this()] {
    const auto share = weak.lock();
    if (share != nullptr && !share->closed_) share->cut();
  });
}

void Share::stop() noexcept { send(stop_note_); }

/// Once.
void Share::send(std::unique_ptr<Posted>& note) noexcept {
  const std::lock_guard lock(gate_);
  if (open_ && note != nullptr) mailbox_->push(std::move(note));
}

void Share::tear_down() noexcept {
  {
    const std::lock_guard lock(gate_);
    if (!std::exchange(open_, false)) return;
  }
  const auto self = shared_from_this();
  unlink();
  closed_ = true;
  // What a handler sent before it ended still goes out: the loop sees to that.
  for (Connection* stream = streams_.front(); stream != nullptr;) {
    Connection* next = streams_.after(*stream);
    if (stream->ending().is_closing()) let_go(*stream);
    stream = next;
  }
  tasks_.reset();
  begin_cut();
  cut_until(TimePoint::max());
  while (Connection* stream = streams_.front()) let_go(*stream);
  while (Walk* walk = walks_.pop_front()) walk->next_ = nullptr;
  acceptors_.clear();
  hand_out_to_.clear();
  handlers_.reset();
  say_traffic();
  const std::lock_guard lock(gate_);
  gone_ = true;
}

/// The loop sees to it from now on.
void Share::let_go(Connection& stream) noexcept {
  forget(stream);
  stream.forget_owner();
  loop_.keep(stream);
  if (loop_ends_) stream.end_with_loop();
}

bool Share::finish_with_run() noexcept {
  bool busy = false;
  for (Connection* stream = streams_.front(); stream != nullptr;) {
    Connection* next = streams_.after(*stream);
    busy = stream->finish_with_run() || busy;
    stream = next;
  }
  return busy;
}

void Share::end_with_loop() noexcept {
  const auto core = core_;
  loop_ends_ = true;
  const bool base = mailbox_ == core->base;
  tear_down();
  if (base) core->stop();  // nobody could end what is on the others
}

// ---------------------------------------------------------------------------------------------
// Handing over, and asking from other threads

void Share::list_listeners(std::vector<int>& descriptors) const {
  for (const Acceptor& acceptor : acceptors_) {
    if (acceptor.fd() >= 0) descriptors.push_back(acceptor.fd());
  }
}

std::optional<bool> Share::runs_elsewhere() const {
  const std::lock_guard lock(gate_);
  if (!open_) return std::nullopt;
  return loop_.runs_elsewhere();
}

bool Share::gone() const {
  const std::lock_guard lock(gate_);
  return gone_;
}

}  // namespace weir::detail
