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

/// Of a turn that resets connections.
constexpr auto kCutSlice = std::chrono::milliseconds(4);
/// When a drain begins the first request of a new connection may be under way: for that long.
constexpr auto kFirstRequest = std::chrono::seconds(1);

/// A connection's number as what its task keeps: by it a failure finds the connection's name. It
/// costs a connection nothing.
std::shared_ptr<const void> kept_with(std::uint64_t id, std::shared_ptr<const void> handler) {
  return {std::move(handler), reinterpret_cast<const void*>(static_cast<std::uintptr_t>(id))};
}

Task<> tell_later(Event& unused) {
  co_await sleep(kFirstRequest);
  unused.set();
}

}  // namespace

Share::Share(std::shared_ptr<ServerCore> core, EventLoop& loop, ServerCore::Shares hand_out_to)
    : core_(std::move(core)),
      gate_(loop),
      intake_(*this, std::move(hand_out_to)),
      welcome_(*core_, roster_, *traffic_, loop, received),
      handlers_(std::make_unique<Handlers>(*this)),
      tasks_(std::in_place, loop) {
  core_->add_traffic(traffic_);
  loop.keep(*this);
  const ServerOptions& options = core_->options;
  if (options.idle_timeout.count() > 0) {
    begin(end_overdue(roster_, options.idle_timeout, &Connection::idle_rounds, kIdle, false));
  }
  if (options.write_timeout.count() > 0) {
    begin(end_overdue(roster_, options.write_timeout, &Connection::stalled_rounds, kUnresponsive,
                      true));
  }
}

Share::~Share() = default;

/// What the task that calls `start` has set is not the handlers'.
void Share::begin(Task<> task) {
  const LocalsHere none{Locals()};
  const Running::Inside nobody(gate_.loop().running(), nullptr);
  tasks_->spawn(std::move(task), nullptr, {});
}

// ---------------------------------------------------------------------------------------------
// Accepting

void Share::serve(Socket socket, Place place, TimePoint accepted) {
  if (cut_) return;
  Connection* stream = adopt(std::move(socket), std::move(place));
  if (stream == nullptr) return;
  core_->presence->enter();
  const Connection::Pin pin(*stream);
  const auto self = shared_from_this();  // a handler that runs at once may end the server
  try {
    handlers_->spawn(welcome_.begin(TcpConnection(*stream), accepted),
                     kept_with(stream->identity().id(), core_->handler), {});
  } catch (const std::bad_alloc&) {
    stream->ending().cut(kClosedHere, true);  // it has not been served at all
    core_->handler_failed(std::current_exception(), roster_, stream->identity().id(), false);
    core_->presence->leave();
  } catch (...) {
    Handlers::failed(*this, std::current_exception(), stream->identity().id());
    core_->presence->leave();
  }
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
    Connection* stream =
        Connection::adopt(gate_.loop(), std::move(socket), core_->options.connection, this,
                          core_->next_id(), address);
    stream->identity().set_of_proxy(of_proxy);
    core_->presence->enter();
    roster_.add(*stream);
    place.keep();
    return stream;
  } catch (...) {
    of_proxy ? admission.leave_unknown() : admission.leave(peer);
    cannot_start(gate_.loop(), std::move(socket), std::current_exception());
    return nullptr;
  }
}

void Share::connection_closed(Connection& stream) noexcept {
  if (!cut_) ++finished_;
  forget(stream);
  roster_.add_ended(stream);
}

void Share::met_tls(Connection& stream) noexcept {
  static constinit LogLimit limit("clients that speak TLS to a plain port");
  if (core_->security != nullptr || !limit.admits(logging::Level::info)) return;
  LogLine what;
  roster_.write_name(what, core_->options.name, stream.identity().id());
  what << ": the client begins with TLS, and this server has none";
  logging::write(logging::Level::info, what);
}

void Share::forget(Connection& stream) noexcept {
  roster_.remove(stream);
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

// ---------------------------------------------------------------------------------------------
// The end

void Share::begin_drain() noexcept {
  if (!gate_.is_here()) return gate_.post_once(drain_note_);
  if (closed_) return;
  intake_.stop_listening();
  if (draining_.is_set()) return;
  draining_.set();
  try {
    begin(tell_later(draining_unused_));
  } catch (const std::bad_alloc&) {
    draining_unused_.set();
  }
}

void Share::cut() noexcept {
  if (!cut_) go_on_cutting();
}

void Share::go_on_cutting() noexcept {
  const auto self = shared_from_this();  // a handler's destructor may end the server
  cut_until(gate_.loop().machine().now() + kCutSlice);
  if (closed_ || (handlers_->size() == 0 && cutting_.next == nullptr)) return;
  try {
    (void)gate_.post_function([self] {
      if (!self->closed_) self->go_on_cutting();
    });
  } catch (const std::bad_alloc&) {
    cut_until(TimePoint::max());
  }
}

void Share::cut_until(TimePoint until) noexcept {
  const auto self = shared_from_this();
  if (!std::exchange(cut_, true)) {
    forced_ += std::max(handlers_->size(), roster_.size());
    intake_.close();
    roster_.begin(cutting_);
  }
  while (handlers_ != nullptr && handlers_->size() > 0) {
    // Before the handler goes: its connection would end as if all had been said.
    roster_.cut(cutting_, handlers_->first_id());
    if (handlers_ != nullptr) handlers_->cancel_first();
    if (gate_.loop().machine().now() >= until) return;
  }
  roster_.cut(cutting_, std::numeric_limits<std::uint64_t>::max());
}

/// Weak: it may never be sent, and belongs to what it refers to.
void Share::prepare() {
  const auto note = [](auto function) -> std::unique_ptr<Posted> {
    return std::make_unique<PostedFunction<decltype(function)>>(std::move(function));
  };
  drain_note_ = note([weak = weak_from_this()] {
    if (const auto share = weak.lock()) share->begin_drain();
  });
  stop_note_ = note([weak = weak_from_this()] {
    const auto share = weak.lock();
    if (share != nullptr && !share->closed_) share->cut();
  });
}

void Share::stop() noexcept { gate_.post_once(stop_note_); }

void Share::tear_down() noexcept {
  if (!gate_.shut()) return;
  const auto self = shared_from_this();
  unlink();
  closed_ = true;
  // What a handler sent before it ended still goes out: the loop sees to that.
  for (Connection* stream = roster_.front(); stream != nullptr;) {
    Connection* next = roster_.after(*stream);
    if (stream->ending().is_closing()) let_go(*stream);
    stream = next;
  }
  tasks_.reset();
  cut_until(TimePoint::max());
  while (Connection* stream = roster_.front()) let_go(*stream);
  roster_.end_walks();
  intake_.clear();
  handlers_.reset();
  say_traffic();
  gate_.leave();
}

/// The loop sees to it from now on.
void Share::let_go(Connection& stream) noexcept {
  forget(stream);
  stream.ending().forget_owner();
  gate_.loop().keep(stream);
  if (loop_ends_) stream.end_with_loop();
}

bool Share::finish_with_run() noexcept {
  bool busy = false;
  for (Connection* stream = roster_.front(); stream != nullptr;) {
    Connection* next = roster_.after(*stream);
    busy = stream->finish_with_run() || busy;
    stream = next;
  }
  return busy;
}

void Share::end_with_loop() noexcept {
  const auto core = core_;
  loop_ends_ = true;
  const bool base = gate_.leads_to(core->base);
  tear_down();
  if (base) core->stop();  // nobody could end what is on the others
}

// ---------------------------------------------------------------------------------------------

}  // namespace weir::detail
