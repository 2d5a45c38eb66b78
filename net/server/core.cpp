#include <weir/core/logging.h>
#include <weir/net/log_words.h>
#include <weir/net/server/core.h>
#include <weir/net/server/share.h>
#include <weir/net/tls/context.h>

#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <utility>

namespace weir::detail {
namespace {

ServerOptions with_balance(ServerOptions options) {
  options.reuse_port = options.reuse_port || options.balance == Balance::kernel;
  return options;
}

}  // namespace

ServerCore::ServerCore(ServerOptions given, std::shared_ptr<Mailbox> base_mailbox)
    : options(with_balance(std::move(given))),
      base(std::move(base_mailbox)),
      admission(options.max_connections, options.max_connections_per_peer),
      presence(std::make_shared<Presence>(base)),
      proxies(options.proxy_trusted),
      security(options.tls == nullptr ? nullptr : options.tls->factory()) {
  if (security == nullptr || security->accepts()) return;
  throw std::invalid_argument("weir: ServerOptions::tls is a client's context");
}

void ServerCore::handler_failed(const std::exception_ptr& failure, const Roster& roster,
                                std::uint64_t id, bool peers_doing) noexcept {
  static constinit LogLimit of_peers("connections that ended with an error");
  static constinit LogLimit of_handlers("exceptions of handlers");
  if (!peers_doing) {
    const std::lock_guard lock(mutex_);
    ++failures_;
  }
  const auto level = peers_doing ? logging::Level::info : logging::Level::error;
  if (!(peers_doing ? of_peers : of_handlers).admits(level)) return;
  LogLine what;
  if (!peers_doing) what << "exception left a handler of ";
  roster.write_name(what, options.name, id);
  write_failure(level, what, failure);
}

void ServerCore::handshake_failed(const std::exception_ptr& failure, const Roster& roster,
                                  std::uint64_t id) noexcept {
  static constinit LogLimit limit("handshakes that failed");
  ++failed_handshakes;
  if (!limit.admits(logging::Level::info)) return;
  LogLine what;
  roster.write_name(what, options.name, id);
  write_failure(logging::Level::info, what, failure);
}

std::uint64_t ServerCore::failures() const {
  const std::lock_guard lock(mutex_);
  return failures_;
}

void ServerCore::listener_broke(std::error_code error, const SocketAddress& address) {
  const std::system_error broke(
      error, "weir: " + options.name + " cannot accept on " + address.to_string() + " any more");
  logging::write(logging::Level::error, broke.what());
  auto tell = [core = shared_from_this(), failure = std::make_exception_ptr(broke)] {
    if (core->what_broke == nullptr) core->what_broke = failure;
    core->broken.set();
  };
  base->push(std::make_unique<PostedFunction<decltype(tell)>>(std::move(tell)));
}

void ServerCore::add_traffic(std::shared_ptr<const Traffic> traffic) {
  const std::lock_guard lock(mutex_);
  traffic_.push_back(std::move(traffic));
}

ServerCore::Bytes ServerCore::traffic() const {
  const std::lock_guard lock(mutex_);
  Bytes sum;
  for (const auto& one : traffic_) {
    sum.in += one->in.load(std::memory_order_relaxed);
    sum.out += one->out.load(std::memory_order_relaxed);
  }
  return sum;
}

ServerMetrics ServerCore::metrics() const {
  const Bytes bytes = traffic();
  return {admission.count(), accepted(), admission.refused(), shed(),           failures(),
          bytes.in,          bytes.out,  handshakes,          failed_handshakes};
}

Histogram ServerCore::waits() const {
  const std::lock_guard lock(mutex_);
  Histogram sum;
  for (const auto& one : traffic_) sum += one->waits();
  return sum;
}

void ServerCore::add_shed(Counter counter) {
  const std::lock_guard lock(mutex_);
  shed_.push_back(std::move(counter));
}

std::uint64_t ServerCore::shed() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t sum = 0;
  for (const Counter& counter : shed_) sum += *counter;
  return sum;
}

ServerCore::Shares ServerCore::shares() const {
  const std::lock_guard lock(mutex_);
  return shares_;
}

void ServerCore::add_share(std::shared_ptr<Share> share) {
  const std::lock_guard lock(mutex_);
  if (stop_wanted_) share->stop();
  shares_.push_back(std::move(share));
}

ServerCore::Shares ServerCore::tear_down() noexcept {
  Shares all;
  {
    const std::lock_guard lock(mutex_);
    all.swap(shares_);
  }
  for (const auto& share : all) {
    (void)share->gate().call([&share] { share->tear_down(); });
  }
  return all;
}

void ServerCore::become_parents() noexcept {
  new (&mutex_) std::mutex;
  admission.become_parents();
  for (const auto& share : shares_) share->gate().become_parents();
}

/// Weak: it may never be sent, and belongs to what it refers to.
void ServerCore::prepare() {
  const auto tell = [weak = weak_from_this()] {
    if (const auto core = weak.lock()) core->stopped.set();
  };
  stop_note_ = std::make_unique<PostedFunction<std::decay_t<decltype(tell)>>>(tell);
}

void ServerCore::stop() noexcept {
  const std::lock_guard lock(mutex_);
  stop_wanted_ = true;
  for (const auto& share : shares_) share->stop();
  if (stop_note_ != nullptr) base->push(std::move(stop_note_));
}

}  // namespace weir::detail
