#include <weir/core/log.h>
#include <weir/core/sleep.h>
#include <weir/coro/when_any.h>
#include <weir/net/tcp_client.h>

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
  explicit State(const ClientOptions& given)
      : options(given), connector(given.address, given.connector) {
    Stream::check(given.connection);
  }

  /// From any thread.
  void stop() {
    stop_requested = true;
    std::shared_ptr<Mailbox> mailbox;
    {
      const std::lock_guard lock(mutex);
      mailbox = home;
    }
    if (mailbox == nullptr) return;
    auto wake = [state = shared_from_this()] { state->news(); };
    mailbox->push(std::make_unique<PostedFunction<decltype(wake)>>(std::move(wake)));
  }

  void news() noexcept {
    if (stop_requested) stopped.set();
    changed.set();
    changed.reset();
  }

  /// Where `stop` has to knock. It stays when the run ends: others may wait there.
  void settle_here() {
    const std::lock_guard lock(mutex);
    home = EventLoop::current().mailbox();
  }

  static Task<> keep_connected(std::shared_ptr<State> state, Session session);
  static Task<> run(std::shared_ptr<State> state, Session session);

  ClientOptions options;
  Connector connector;
  TcpConnection current;
  Event stopped;
  Event changed;  // pulsed when there is a new connection, or none is to be had any more
  bool running = false;
  std::uint64_t runs_ended = 0;
  std::atomic<bool> stop_requested{false};
  std::atomic<std::uint64_t> connects{0};
  std::mutex mutex;
  std::shared_ptr<Mailbox> home;  // of the loop that it is used on
};

Task<> TcpClient::State::keep_connected(std::shared_ptr<State> state, Session session) {
  for (;;) {
    Socket socket = co_await state->connector.connect();
    state->current = TcpConnection(std::move(socket), state->options.connection);
    ++state->connects;
    state->news();
    try {
      Task<> task = session(state->current);
      co_await std::move(task);
    } catch (const std::exception& failure) {
      log::write(log::Level::warning, "session with " + state->options.address.to_string() +
                                          " ended: " + failure.what());
    } catch (...) {
      log::write(log::Level::warning, "session with " + state->options.address.to_string() +
                                          " ended with an exception of unknown type");
    }
    state->current = TcpConnection();
    const Duration longest = to_duration(state->options.connector.initial_delay);
    if (longest.count() > 0) {
      const auto random = EventLoop::current().engine().random();
      co_await sleep(
          std::chrono::nanoseconds(random % static_cast<std::uint64_t>(longest.count())));
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

TcpClient::TcpClient(ClientOptions options) : state_(std::make_shared<State>(options)) {}

TcpClient::~TcpClient() { state_->stop(); }

Task<> TcpClient::run(Session session) {
  if (!session) throw std::invalid_argument("weir: TcpClient::run: the session is empty");
  return State::run(state_, std::move(session));
}

void TcpClient::stop() { state_->stop(); }

Task<TcpConnection&> TcpClient::connection() {
  return [](std::shared_ptr<State> state) -> Task<TcpConnection&> {
    state->settle_here();
    for (const std::uint64_t ended = state->runs_ended; !state->current;) {
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
