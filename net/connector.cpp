#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/timeout.h>
#include <weir/net/connector.h>
#include <weir/net/resolver.h>

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace weir {
namespace {

void check(const ConnectorOptions& options) {
  const auto reject = [](const char* option, const std::string& value, const char* why) {
    throw std::invalid_argument("weir: ConnectorOptions::" + std::string(option) + " is " + value +
                                "; " + why);
  };
  const auto not_negative = [&](const char* option, std::chrono::milliseconds value) {
    if (value.count() < 0) {
      reject(option, std::to_string(value.count()) + " ms", "it must not be negative");
    }
  };
  not_negative("initial_delay", options.initial_delay);
  not_negative("max_delay", options.max_delay);
  not_negative("attempt_timeout", options.attempt_timeout);
  not_negative("total_timeout", options.total_timeout);
  if (options.initial_delay > options.max_delay) {
    reject("initial_delay", std::to_string(options.initial_delay.count()) + " ms",
           ("it must not be above max_delay, " + std::to_string(options.max_delay.count()) + " ms")
               .c_str());
  }
  if (!(options.jitter >= 0 && options.jitter <= 1)) {
    reject("jitter", std::to_string(options.jitter), "it must be 0 to 1");
  }
}

/// One try, on the loop where it is awaited. The state belongs to that: the descriptor is closed
/// after the poll's completion, whenever the awaiter goes.
class Attempt {
 public:
  static constexpr char kWaitsFor[] = "connect";

  explicit Attempt(const SocketAddress& address) : address_(address) {}
  Attempt(Attempt&& other) noexcept
      : address_(other.address_), state_(std::exchange(other.state_, nullptr)) {}
  Attempt& operator=(Attempt&&) = delete;
  ~Attempt() {
    if (state_ != nullptr) state_->let_go();
  }

  [[nodiscard]] bool await_ready() {
    state_ = new State(EventLoop::current(), address_);
    return state_->error != EINPROGRESS;
  }
  void await_suspend(std::coroutine_handle<> handle) {
    state_->waiter.suspend(handle);
    state_->loop.engine().submit(state_->poll);
  }
  Socket await_resume() {
    if (const int error = state_->settle(); error != 0) {
      throw std::system_error(error, std::generic_category(),
                              "weir: connect to " + state_->address.to_string());
    }
    return std::move(state_->socket);
  }

 private:
  struct State final : detail::LoopResource, detail::FrameAllocated {
    State(EventLoop& owner, const SocketAddress& to)
        : loop(owner),
          address(to),
          poll(detail::OperationKind::poll,
               [](detail::Operation& op, detail::Completion done) noexcept {
                 detail::whole_of(op, &State::poll)->on_poll(done);
               }) {
      detail::Sockets& sockets = loop.sockets();
      const int fd = sockets.open(address.family());
      if (fd < 0) {
        error = -fd;
      } else {
        socket = Socket(sockets, fd);
        poll.fd = fd;
        poll.poll(POLLOUT);
        error = -sockets.connect(fd, address.raw());
      }
      loop.keep(*this);
    }

    void on_poll(detail::Completion done) noexcept {
      if (dropped) {
        release();
        return;
      }
      if (done.result < 0) error = -done.result;
      waiter.wake();
    }

    /// What became of it: SO_ERROR is told only once, and a socket that never connected is
    /// writable as well, without one.
    int settle() noexcept {
      detail::Sockets& sockets = loop.sockets();
      if (error == EINPROGRESS) error = sockets.take_error(socket.fd());
      detail::RawAddress peer;
      if (error == 0) error = std::max(0, -sockets.peer_address(socket.fd(), peer));
      if (error == 0 && address.is_ip() && SocketAddress(peer) == socket.local_address()) {
        (void)sockets.set(socket.fd(), detail::Sockets::Option::reset_on_close, 1);
        error = ECONNREFUSED;  // nobody was there but ourselves
      }
      if (error != 0) socket.close();
      return error;
    }

    void let_go() noexcept {
      if (poll.in_flight()) {
        dropped = true;
        loop.engine().cancel(poll);
      } else {
        release();
      }
    }

    void end_with_loop() noexcept override { let_go(); }

    void release() noexcept {
      unlink();
      delete this;
    }

    EventLoop& loop;
    SocketAddress address;
    Socket socket;
    detail::Operation poll;
    detail::Waiter waiter;
    int error = 0;
    bool dropped = false;
  };

  SocketAddress address_;
  State* state_ = nullptr;  // from when it is awaited
};

Task<Socket> resolve_and_connect(std::string host) {
  std::vector<SocketAddress> addresses = co_await resolve(std::move(host));
  co_return co_await connect_any(std::move(addresses), ConnectOptions().attempt_delay);
}

template <class Try>
Task<Socket> within(std::chrono::milliseconds limit, Try one, std::string to) {
  if (limit.count() == 0) co_return co_await std::move(one);
  auto [error, socket] = co_await as_tuple(timeout(limit, std::move(one)));
  if (error) throw std::system_error(error, "weir: connect to " + to);
  co_return std::move(socket);
}

/// One try, at the address, or at the host if there is one.
Task<Socket> attempt(const SocketAddress& address, const std::string& host,
                     std::chrono::milliseconds limit) {
  if (!host.empty()) return within(limit, resolve_and_connect(host), host);
  return within(limit, Attempt(address), address.to_string());
}

bool may_pass(const std::error_code& error) noexcept {
  if (error == errc::try_again || error == errc::not_found) return true;
  return detail::is_retriable(error.default_error_condition().value());
}

Task<Socket> keep_trying(SocketAddress address, std::string host, ConnectorOptions options) {
  const Duration longest = detail::to_duration(options.max_delay);
  Duration delay = detail::to_duration(options.initial_delay);
  for (unsigned tries = 1;; ++tries) {
    try {
      Task<Socket> one = attempt(address, host, options.attempt_timeout);
      co_return co_await std::move(one);
    } catch (const std::system_error& error) {
      const bool last = options.max_attempts != 0 && tries >= options.max_attempts;
      if (last || !may_pass(error.code())) throw;
    }
    // The random part comes off, so that `max_delay` holds.
    constexpr double kRange = 1ULL << 53;
    const double random =
        static_cast<double>(EventLoop::current().machine().random() >> 11) / kRange;
    const auto shortened = std::chrono::duration<double, std::nano>(
        static_cast<double>(delay.count()) * (1 - options.jitter * random));
    // A try may fail without having waited for anything; whoever wants to end this gets a turn.
    if (shortened.count() <= 0) co_await yield();
    co_await sleep(shortened);
    delay = delay > longest / 2 ? longest : delay * 2;
  }
}

}  // namespace

bool detail::is_retriable(int error) noexcept {
  switch (error) {
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case ETIMEDOUT:
    case EADDRINUSE:
    case EADDRNOTAVAIL:
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case EAGAIN:
    case EINTR:
    case ENOENT:
    case ENOTCONN:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return true;
    default:
      return false;
  }
}

Connector::Connector(const SocketAddress& address, ConnectorOptions options)
    : address_(address), options_(options) {
  check(options_);
  if (!address_) throw std::invalid_argument("weir: Connector: the address is empty");
}

Connector::Connector(std::string host, ConnectorOptions options)
    : host_(std::move(host)), options_(options) {
  check(options_);
  if (host_.empty()) throw std::invalid_argument("weir: Connector: the host is empty");
}

Task<Socket> Connector::try_once() const {
  return attempt(address_, host_, options_.attempt_timeout);
}

Task<Socket> Connector::connect() const {
  if (options_.total_timeout.count() == 0) return keep_trying(address_, host_, options_);
  return [](Task<Socket> tries, std::chrono::milliseconds limit) -> Task<Socket> {
    co_return co_await timeout(limit, std::move(tries));
  }(keep_trying(address_, host_, options_), options_.total_timeout);
}

}  // namespace weir
