#include <weir/core/logging.h>
#include <weir/core/loop_thread.h>
#include <weir/core/on.h>
#include <weir/core/signal.h>
#include <weir/core/sleep.h>
#include <weir/coro/event.h>
#include <weir/coro/task_group.h>
#include <weir/coro/when_any.h>
#include <weir/io/handover.h>
#include <weir/io/service_manager.h>
#include <weir/net/inspect/servers.h>
#include <weir/net/server/core.h>
#include <weir/net/server/drain.h>
#include <weir/net/server/listeners.h>
#include <weir/net/server/share.h>
#include <weir/net/server/walk.h>
#include <weir/net/tcp_server.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

namespace weir {
namespace {

using detail::Share;

void check(const ServerOptions& options) {
  const auto reject = [](const char* option, const std::string& value, const char* why) {
    throw std::invalid_argument("weir: ServerOptions::" + std::string(option) + " is " + value +
                                "; " + why);
  };
  if (!options.address) reject("address", "empty", "it must say where to listen");
  if (options.threads == 0 || options.threads > 1024) {
    reject("threads", std::to_string(options.threads), "it must be 1 to 1024");
  }
  if (options.backlog <= 0) {
    reject("backlog", std::to_string(options.backlog), "it must be at least 1");
  }
  if (options.idle_timeout.count() < 0) {
    reject("idle_timeout", std::to_string(options.idle_timeout.count()) + " ms",
           "it must not be negative");
  }
  if (options.write_timeout.count() < 0) {
    reject("write_timeout", std::to_string(options.write_timeout.count()) + " ms",
           "it must not be negative");
  }
  if (options.hand_over_timeout.count() < 0) {
    reject("hand_over_timeout", std::to_string(options.hand_over_timeout.count()) + " ms",
           "it must not be negative");
  }
  if (options.drain_timeout.count() < 0) {
    reject("drain_timeout", std::to_string(options.drain_timeout.count()) + " ms",
           "it must not be negative");
  }
  if (options.balance > Balance::kernel) {
    reject("balance", std::to_string(static_cast<int>(options.balance)),
           "it is none of its values");
  }
  if (options.store_listeners && !options.inherit_listeners) {
    reject("store_listeners", "true", "who does not inherit them cannot bind their address again");
  }
  detail::check(options.connection);
}

Task<> answer() { co_return; }

/// Says again and again, and in time, that every loop of the server has answered.
Task<> feed_watchdog(std::shared_ptr<detail::ServerCore> core, Duration limit) {
  for (;;) {
    for (const auto& share : core->shares()) co_await on(share->gate().loop(), answer());
    detail::tell_service_manager("WATCHDOG=1");
    co_await sleep(limit / 4);
  }
}

}  // namespace

/// What belongs to the thread that starts and ends the server.
struct TcpServer::Parts {
  std::unique_ptr<EventLoop> own_loop;
  EventLoop* base = nullptr;
  std::unique_ptr<EventLoopThreadPool> pool;
  std::optional<detail::Listeners> listeners;
  SocketAddress address;  // once it listens
  bool started = false;
  // Held by `run`, which may be another thread's.
  std::shared_ptr<std::mutex> under_way = std::make_shared<std::mutex>();
  std::optional<detail::ServerEntry> entry;  // of one on the kernel
};

TcpServer::TcpServer(ServerOptions options) : parts_(std::make_unique<Parts>()) {
  check(options);
  parts_->own_loop = std::make_unique<EventLoop>(options.loop);
  make_core(*parts_->own_loop, std::move(options));
}

TcpServer::TcpServer(EventLoop& loop, ServerOptions options) : parts_(std::make_unique<Parts>()) {
  check(options);
  make_core(loop, std::move(options));
}

void TcpServer::make_core(EventLoop& base, ServerOptions options) {
  core_ = std::make_shared<detail::ServerCore>(std::move(options), base.mailbox());
  core_->prepare();
  parts_->base = &base;
  parts_->listeners.emplace(core_->options);
  if (base.engine_name() == "simulation") return;
  detail::AllServers::instance().add(parts_->entry.emplace(*this, *core_));
}

TcpServer::~TcpServer() {
  const EventLoop* own = parts_->own_loop.get();
  if (own != nullptr && !own->in_loop_thread() && !own->is_of_parent()) {
    std::unique_lock run(*parts_->under_way, std::try_to_lock);
    if (!run) {
      stop();
      run.lock();
    }
  }
  if (parts_->entry) detail::AllServers::instance().remove(*parts_->entry);
  end_shares();
  parts_->own_loop.reset();  // its queue may hold calls that hold the core
}

void TcpServer::add_address(const SocketAddress& address) {
  if (!address) throw std::invalid_argument("weir: TcpServer::add_address: the address is empty");
  if (parts_->address) {
    throw std::logic_error("weir: TcpServer::add_address: it listens already");
  }
  parts_->listeners->add(address);
}

void TcpServer::listen() {
  if (parts_->address) return;
  parts_->listeners->open(parts_->base->sockets());
  parts_->address = parts_->listeners->address();
}

void TcpServer::start(Handler handler) {
  if (parts_->started) throw std::logic_error("weir: TcpServer was started already");
  if (!handler) throw std::invalid_argument("weir: TcpServer: the handler is empty");
  listen();
  parts_->started = true;
  core_->handler = std::make_shared<const Handler>(std::move(handler));
  const ServerOptions& options = core_->options;
  const auto add_share = [this](EventLoop& loop, const detail::ServerCore::Shares& hand_out_to) {
    loop.call([&] {
      auto share = std::make_shared<Share>(core_, loop, hand_out_to);
      share->prepare();
      core_->add_share(std::move(share));
    });
  };
  if (options.threads > 1) {
    LoopOptions loop_options = options.loop;
    loop_options.name = options.name;
    parts_->pool = std::make_unique<EventLoopThreadPool>(loop_options);
    parts_->pool->start(options.threads);
    for (EventLoop* loop : parts_->pool->loops()) add_share(*loop, {});
  }
  // With one loop that does everything, or to accept for the others.
  const bool base_accepts = options.threads == 1 || !options.reuse_port;
  // Without that, for the base loop's end to be heard of.
  add_share(*parts_->base, core_->shares());
  const auto shares = core_->shares();
  const std::size_t first = base_accepts ? shares.size() - 1 : 0;
  const std::size_t accepting = base_accepts ? 1 : options.threads;
  std::size_t next = 0;  // a predecessor may have had more loops than we have
  if (options.store_listeners && parts_->entry) parts_->listeners->store();
  auto listeners = parts_->listeners->take();
  const bool inherited = std::any_of(listeners.begin(), listeners.end(),
                                     [](const auto& listener) { return listener.inherited; });
  if (inherited && core_->security != nullptr) {
    std::string secrets = detail::take_inherited_secrets();
    core_->security->inherit(secrets);
    ::explicit_bzero(secrets.data(), secrets.size());
  }
  if (inherited && !detail::report_ready()) {
    throw std::system_error(std::make_error_code(std::errc::operation_canceled),
                            "weir: the predecessor serves on, this server was not ready in time");
  }
  for (detail::Listener& listener : listeners) {
    Share& share = *shares[first + next++ % accepting];
    share.gate().loop().call([&] {
      AcceptorOptions held;  // an inherited one may hold more than ours would
      held.backlog = std::max(options.backlog, held.backlog);
      Acceptor acceptor(share.gate().loop(), std::move(listener.socket), held);
      const bool stored = parts_->listeners->stored() && !listener.inherited;
      if (!listener.inherited && !stored) acceptor.own_listener();
      if (!parts_->listeners->owns_files() || stored) acceptor.share_listener();
      acceptor.share_listener(core_->successors);
      share.intake().accept_with(std::move(acceptor));
    });
  }
}

void TcpServer::run(Handler handler) {
  if (parts_->own_loop == nullptr) {
    throw std::logic_error("weir: this TcpServer is on a loop that somebody else runs; use start");
  }
  const auto under_way = parts_->under_way;  // the server may be gone when this returns
  const std::unique_lock run(*under_way, std::try_to_lock);
  if (!run) throw std::logic_error("weir: this TcpServer runs already");
  // Before there is a client that could take the last descriptor.
  Signals signals(SIGINT, SIGTERM);
  start(std::move(handler));
  detail::tell_service_manager("READY=1");
  parts_->own_loop->run_until_complete(run_to_end(signals));
}

/// While the loop runs, so that whoever calls on it from another thread is answered.
Task<> TcpServer::run_to_end(Signals& signals) {
  {
    TaskGroup watchdog;
    if (const Duration limit = detail::service_watchdog(); limit.count() > 0) {
      watchdog.spawn(feed_watchdog(core_, limit));
    }
    co_await supervise(signals);
  }
  end_shares();
  const auto answered = std::make_shared<Event>();
  parts_->own_loop->post([answered] { answered->set(); });
  co_await answered->wait();
  if (core_->what_broke != nullptr) std::rethrow_exception(core_->what_broke);
}

Task<> TcpServer::supervise(Signals& signals) {
  const std::string& name = core_->options.name;
  const auto first = co_await when_any(signals.next(), core_->stopped.wait(), core_->broken.wait());
  detail::tell_service_manager("STOPPING=1");
  if (first.index() == 1) co_return;
  logging::write(logging::Level::info, name + ": draining, a second signal ends at once");
  const auto second =
      co_await when_any(drain(core_->options.drain_timeout), signals.next(), core_->stopped.wait());
  if (const DrainReport* report = std::get_if<0>(&second)) {
    logging::write(logging::Level::info, name + ": drained, " + std::to_string(report->finished) +
                                             " connections finished, " +
                                             std::to_string(report->forced) + " forced");
  }
}

Task<DrainReport> TcpServer::drain_within(Duration limit) { return detail::drain(core_, limit); }

Task<bool> TcpServer::hand_over(const std::vector<std::string>& command) {
  return [](TcpServer& server, std::vector<std::string> words) -> Task<bool> {
    detail::Listeners& listeners = *server.parts_->listeners;
    // From here on whoever stops listening leaves the listeners to the successor.
    detail::SuccessorCommand successor{.words = std::move(words),
                                       .claim = detail::Claim(server.core_->successors)};
    std::vector<int>& descriptors = successor.descriptors;
    for (const detail::Listener& one : listeners.all()) descriptors.push_back(one.socket.fd());
    for (const auto& share : server.core_->shares()) {
      (void)share->gate().call([&] { share->intake().list_listeners(descriptors); });
    }
    if (descriptors.empty()) {
      throw std::logic_error("weir: TcpServer::hand_over: it does not listen");
    }
    successor.with_files = listeners.owns_files() && !listeners.stored();
    if (const auto& security = server.core_->security) successor.secrets = security->secrets();
    successor.limit = detail::to_duration(server.core_->options.hand_over_timeout);
    Task<bool> started = EventLoop::current().machine().start_successor(std::move(successor));
    co_return co_await std::move(started);
  }(*this, command);
}

void TcpServer::stop() { core_->stop(); }

void TcpServer::end_shares() {
  const auto shares = core_->tear_down();  // they go after their loops
  if (parts_->pool != nullptr) parts_->pool->stop();
}

SocketAddress TcpServer::address() const { return parts_->address; }

std::size_t TcpServer::connection_count() const noexcept { return core_->admission.count(); }

std::uint64_t TcpServer::handler_failures() const noexcept { return core_->failures(); }

std::uint64_t TcpServer::refused() const noexcept { return core_->admission.refused(); }

std::uint64_t TcpServer::shed() const noexcept { return core_->shed(); }

ServerMetrics TcpServer::metrics() const noexcept {
  detail::TrafficUpdate update;
  update.ask(*core_);
  update.wait();
  return core_->metrics();
}

std::vector<EventLoop*> TcpServer::loops() const {
  std::vector<EventLoop*> loops;
  for (const auto& share : core_->shares()) {
    if (!share->intake().hands_out()) loops.push_back(&share->gate().loop());
  }
  return loops;
}

void TcpServer::for_each_connection(std::function<void(TcpConnection&)> function) {
  detail::Walk::start(std::move(function), core_->shares());
}

EventLoop& TcpServer::loop() const { return *parts_->base; }

}  // namespace weir
