#include <weir/core/sleep.h>
#include <weir/coro/when_any.h>
#include <weir/net/handshake.h>
#include <weir/net/log_words.h>
#include <weir/net/tcp_client.h>
#include <weir/net/tls/context.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace weir {

/// Shared with the coroutines of `run`, which may outlive the client by a turn of the loop.
struct TcpClient::State : std::enable_shared_from_this<State> {
  explicit State(ClientOptions given)
      : options(std::move(given)),
        security(options.tls == nullptr ? nullptr : options.tls->factory()),
        connector(options.host.empty() ? Connector(options.address, options.connector)
                                       : Connector(options.host, options.connector)) {
    detail::check(options.connection);
    if (security != nullptr && security->accepts()) {
      throw std::invalid_argument("weir: ClientOptions::tls is a server's context");
    }
  }

  /// From any thread. It needs no memory.
  void stop() noexcept {
    stop_requested = true;
    const std::lock_guard lock(mutex);
    if (knock != nullptr) home->push(std::move(knock));
  }

  void news() noexcept {
    if (stop_requested) stopped.set();
    changed.set();
    changed.reset();
  }

  [[nodiscard]] std::string name_of_server() const {
    if (!options.server_name.empty()) return options.server_name;
    const std::string name = options.host.empty() ? options.address.to_string() : options.host;
    return std::string(detail::host_of(name));
  }

  /// Where `stop` has to knock. It stays when the run ends: others may wait there.
  void settle_here() {
    auto message = std::make_unique<Knock>(weak_from_this());
    const std::lock_guard lock(mutex);
    home = EventLoop::current().mailbox();
    knock = std::move(message);
  }

  /// Made while there is memory.
  struct Knock final : detail::Posted {
    explicit Knock(std::weak_ptr<State> whose) noexcept : state(std::move(whose)) {}
    void run() override {
      if (const auto there = state.lock()) there->news();
    }
    std::weak_ptr<State> state;
  };

  void session_failed(const std::exception_ptr& failure) const noexcept;
  static Task<> keep_connected(std::shared_ptr<State> state, Session session);
  static Task<> run(std::shared_ptr<State> state, Session session);

  ClientOptions options;
  const std::shared_ptr<detail::HandshakeFactory> security;
  Connector connector;
  TcpConnection current;
  Event stopped;
  Event changed;  // pulsed when there is a new connection, or none is to be had any more
  bool running = false;
  std::uint64_t runs_ended = 0;
  std::atomic<bool> stop_requested{false};
  std::atomic<std::uint64_t> connects{0};
  std::mutex mutex;
  std::shared_ptr<detail::Mailbox> home;  // of the loop that it is used on
  std::unique_ptr<Knock> knock;           // for it; not after a stop
};

void TcpClient::State::session_failed(const std::exception_ptr& failure) const noexcept {
  static constinit detail::LogLimit limit("sessions that ended");
  const auto level =
      detail::is_a_peers_doing(failure) ? logging::Level::info : logging::Level::warning;
  if (!limit.admits(level)) return;
  detail::LogLine what;
  what << "session with " << options.host;
  if (options.host.empty()) what << options.address;
  what << " ended";
  detail::write_failure(level, what, failure);
}

Task<> TcpClient::State::keep_connected(std::shared_ptr<State> state, Session session) {
  for (;;) {
    Socket socket = co_await state->connector.connect();
    TcpConnection connection(std::move(socket), state->options.connection);
    try {
      if (state->security != nullptr) {
        co_await detail::secure(connection, state->security, state->name_of_server());
      }
      state->current = std::move(connection);
      ++state->connects;
      state->news();
      Task<> task = session(state->current);
      co_await std::move(task);
    } catch (...) {
      state->session_failed(std::current_exception());
    }
    state->current = TcpConnection();
    const Duration longest = detail::to_duration(state->options.connector.initial_delay);
    if (longest.count() > 0) {
      const auto random = EventLoop::current().machine().random();
      co_await sleep(
          std::chrono::nanoseconds(random % static_cast<std::uint64_t>(longest.count())));
    } else {
      co_await yield();  // neither the connect nor the session may have waited for anything
    }
  }
}

Task<> TcpClient::State::run(std::shared_ptr<State> state, Session session) {
  if (std::exchange(state->running, true)) {
    throw std::logic_error("weir: TcpClient::run: it is running already");
  }
  struct Ended {
    State& state;
    ~Ended() {
      state.running = false;
      state.current = TcpConnection();
      ++state.runs_ended;
      state.news();
    }
  } ended{*state};
  state->settle_here();
  if (state->stop_requested) state->stopped.set();
  co_await when_any(state->stopped.wait(), keep_connected(state, std::move(session)));
}

TcpClient::TcpClient(ClientOptions options) : state_(std::make_shared<State>(std::move(options))) {}

TcpClient::~TcpClient() { state_->stop(); }

Task<> TcpClient::run(Session session) {
  if (!session) throw std::invalid_argument("weir: TcpClient::run: the session is empty");
  return State::run(state_, std::move(session));
}

void TcpClient::stop() { state_->stop(); }

Task<TcpConnection&> TcpClient::connection() {
  return [](std::shared_ptr<State> state) -> Task<TcpConnection&> {
    state->settle_here();
    // A stopped client's connection is on its way out, though a later turn ends it.
    for (const std::uint64_t ended = state->runs_ended; !state->current || state->stop_requested;) {
      if (state->stop_requested || state->runs_ended != ended) {
        throw std::system_error(std::make_error_code(std::errc::operation_canceled),
                                "weir: TcpClient::connection");
      }
      co_await state->changed.wait();
    }
    co_return state->current;
  }(state_);
}

std::uint64_t TcpClient::connects() const noexcept { return state_->connects; }

}  // namespace weir
