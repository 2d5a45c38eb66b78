#include <weir/core/event_loop.h>
#include <weir/coro/event.h>
#include <weir/coro/when_any.h>
#include <weir/net/connection_access.h>
#include <weir/net/connection_pool.h>
#include <weir/net/tls/context.h>

#include <deque>
#include <new>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <variant>

namespace weir {
namespace {

/// A look: nothing is asked of the peer.
bool is_quiet(const TcpConnection& connection) noexcept {
  detail::Connection* of = detail::ConnectionAccess::of(connection);
  return of != nullptr && connection.state() == ConnectionState::connected &&
         of->inbox().unread() == 0 && !of->inbox().at_end() && !of->inbox().has_reader() &&
         of->outbox().pending() == 0;
}

ConnectionPoolOptions checked(ConnectionPoolOptions options) {
  const auto reject = [](const char* option, const std::string& value, const char* why) {
    throw std::invalid_argument("weir: ConnectionPoolOptions::" + std::string(option) + " is " +
                                value + "; " + why);
  };
  if (options.address.empty()) reject("address", "empty", "it must say where to connect");
  if (options.max_connections == 0) reject("max_connections", "0", "it must be at least 1");
  if (options.idle_timeout.count() < 0) {
    reject("idle_timeout", std::to_string(options.idle_timeout.count()) + " ms",
           "it must not be negative");
  }
  return options;
}

}  // namespace

struct ConnectionPool::State {
  struct Idle {
    TcpConnection connection;
    TimePoint since;
  };

  struct Sweep : detail::Timer {
    explicit Sweep(State& of) noexcept
        : Timer([](Timer& timer) noexcept { static_cast<Sweep&>(timer).state.close_old(); }),
          state(of) {}
    State& state;
  };

  explicit State(ConnectionPoolOptions with)
      : options(std::move(with)),
        server_name(options.connect.server_name),
        proxy_header(options.connect.proxy_header),
        idle_limit(detail::to_duration(options.idle_timeout)),
        places(options.max_connections),
        sweep(*this) {
    if (options.connect.tls != nullptr) {
      tls.emplace(*options.connect.tls);
      options.connect.tls = &*tls;
    }
    options.connect.server_name = server_name;
    options.connect.proxy_header = proxy_header;
  }

  void keep(TcpConnection connection) noexcept {
    try {
      EventLoop& loop = connection.loop();
      idle.push_back({std::move(connection), loop.now()});
      if (idle.size() == 1) watch_oldest();
    } catch (const std::bad_alloc&) {  // then it is closed
    }
  }

  /// The one that was used last, if there is one that has not ended.
  TcpConnection take() noexcept {
    TcpConnection found;
    while (!idle.empty() && !found) {
      if (is_quiet(idle.back().connection)) found = std::move(idle.back().connection);
      idle.pop_back();
    }
    if (idle.empty()) sweep.disarm();
    return found;
  }

  void close_old() noexcept {
    const TimePoint now = idle.front().connection.loop().now();
    while (!idle.empty() && now - idle.front().since >= idle_limit) idle.pop_front();
    watch_oldest();
  }

  void watch_oldest() noexcept {
    if (idle.empty() || options.idle_timeout.count() == 0) return;
    const Idle& oldest = idle.front();
    sweep.arm(oldest.connection.loop(), detail::after(oldest.since, idle_limit));
  }

  ConnectionPoolOptions options;
  const std::string server_name;
  const std::string proxy_header;
  std::optional<TlsContext> tls;
  const Duration idle_limit;
  Semaphore places;
  std::deque<Idle> idle;  // the one that was used last at the back
  Sweep sweep;
  Event gone;  // the pool
};

ConnectionPool::Lease::Lease(std::shared_ptr<State> state, Semaphore::Permit place,
                             TcpConnection connection, bool reused) noexcept
    : state_(std::move(state)),
      place_(std::move(place)),
      connection_(std::move(connection)),
      reused_(reused) {}

ConnectionPool::Lease& ConnectionPool::Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    connection_ = std::move(other.connection_);
    place_ = std::move(other.place_);
    state_ = std::move(other.state_);
    reused_ = other.reused_;
  }
  return *this;
}

ConnectionPool::Lease::~Lease() {
  connection_ = TcpConnection();  // before its place is another's
}

void ConnectionPool::Lease::give_back() noexcept {
  if (connection_ && is_quiet(connection_) && !state_->gone.is_set()) {
    state_->keep(std::move(connection_));
  }
  connection_ = TcpConnection();
  place_.release();
}

ConnectionPool::ConnectionPool(ConnectionPoolOptions options)
    : state_(std::make_shared<State>(checked(std::move(options)))) {}

ConnectionPool::~ConnectionPool() {
  state_->gone.set();
  state_->sweep.disarm();
  state_->idle.clear();
}

Task<ConnectionPool::Lease> ConnectionPool::acquire() { return acquire_from(state_); }

Task<ConnectionPool::Lease> ConnectionPool::acquire_from(std::shared_ptr<State> state) {
  auto turn = co_await when_any(state->places.acquire(), state->gone.wait());
  TcpConnection connection = state->take();
  const bool reused = static_cast<bool>(connection);
  if (!reused && !state->gone.is_set()) {
    connection = co_await connect(state->options.address, state->options.connect);
  }
  if (state->gone.is_set()) {
    throw std::system_error(errc::closed_here, "weir: ConnectionPool: it has gone");
  }
  Semaphore::Permit place = std::get<0>(std::move(turn));
  co_return Lease(std::move(state), std::move(place), std::move(connection), reused);
}

std::size_t ConnectionPool::idle() const noexcept { return state_->idle.size(); }

std::size_t ConnectionPool::in_use() const noexcept {
  return state_->options.max_connections - state_->places.available();
}

}  // namespace weir
