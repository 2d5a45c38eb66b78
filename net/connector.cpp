#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/timeout.h>
#include <weir/net/connector.h>

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

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

/// One try. The state belongs to the loop: the descriptor is closed after the poll's completion,
/// whenever the awaiter goes.
class Attempt {
 public:
  Attempt(EventLoop& loop, const SocketAddress& address) : state_(new State(loop, address)) {}
  Attempt(Attempt&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  Attempt& operator=(Attempt&&) = delete;
  ~Attempt() {
    if (state_ != nullptr) state_->let_go();
  }

  [[nodiscard]] bool await_ready() const noexcept { return state_->error != EINPROGRESS; }
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
  struct State final : LoopResource, FrameAllocated {
    State(EventLoop& owner, const SocketAddress& to)
        : loop(owner),
          address(to),
          poll(OperationKind::poll, this, [](Operation& op, Completion done) noexcept {
            static_cast<State*>(op.owner)->on_poll(done);
          }) {
      Sockets& sockets = loop.sockets();
      const int fd = sockets.open(address.family());
      if (fd < 0) {
        error = -fd;
      } else {
        socket = Socket(sockets, fd);
        poll.fd = fd;
        poll.events = POLLOUT;
        error = -sockets.connect(fd, address.raw());
      }
      loop.keep(*this);
    }

    void on_poll(Completion done) noexcept {
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
      Sockets& sockets = loop.sockets();
      if (error == EINPROGRESS) error = sockets.take_error(socket.fd());
      RawAddress peer;
      if (error == 0) error = std::max(0, -sockets.peer_address(socket.fd(), peer));
      if (error == 0 && address.is_ip() && SocketAddress(peer) == socket.local_address()) {
        (void)sockets.set(socket.fd(), Sockets::Option::reset_on_close, 1);
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
    Operation poll;
    Waiter waiter;
    int error = 0;
    bool dropped = false;
  };

  State* state_;
};

Task<Socket> attempt(SocketAddress address, std::chrono::milliseconds limit) {
  EventLoop& loop = EventLoop::current();
  Attempt one(loop, address);
  if (limit.count() == 0) co_return co_await std::move(one);
  auto [error, socket] = co_await as_tuple(timeout(limit, std::move(one)));
  if (error) throw std::system_error(error, "weir: connect to " + address.to_string());
  co_return std::move(socket);
}

Task<Socket> keep_trying(SocketAddress address, ConnectorOptions options) {
  const Duration longest = to_duration(options.max_delay);
  Duration delay = to_duration(options.initial_delay);
  for (unsigned tries = 1;; ++tries) {
    try {
      co_return co_await attempt(address, options.attempt_timeout);
    } catch (const std::system_error& error) {
      const bool last = options.max_attempts != 0 && tries >= options.max_attempts;
      if (last || !is_retriable(error.code().value())) throw;
    }
    // The random part comes off, so that `max_delay` holds.
    constexpr double kRange = 1ULL << 53;
    const double random =
        static_cast<double>(EventLoop::current().engine().random() >> 11) / kRange;
    const auto shortened = std::chrono::duration<double, std::nano>(
        static_cast<double>(delay.count()) * (1 - options.jitter * random));
    co_await sleep(shortened);
    delay = delay > longest / 2 ? longest : delay * 2;
  }
}

}  // namespace

bool is_retriable(int error) noexcept {
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

Task<Socket> Connector::try_once() const { return attempt(address_, options_.attempt_timeout); }

Task<Socket> Connector::connect() const {
  if (options_.total_timeout.count() == 0) return keep_trying(address_, options_);
  return [](SocketAddress address, ConnectorOptions options) -> Task<Socket> {
    co_return co_await timeout(options.total_timeout, keep_trying(address, options));
  }(address_, options_);
}

}  // namespace weir
