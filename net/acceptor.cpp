#include <weir/core/small_queue.h>
#include <weir/net/acceptor.h>
#include <weir/net/log_words.h>
#include <weir/net/socket_file.h>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

namespace weir {
namespace {

/// Clients shed before the loop gets its turn again.
constexpr int kShedBatch = 64;
/// Between two looks for a descriptor when there is not even a spare one: doubled each time from
/// the one to the other, jittered by half.
constexpr auto kFirstRetry = std::chrono::milliseconds(1);
constexpr auto kLongestRetry = std::chrono::milliseconds(64);

bool out_of_resources(int error) noexcept {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/// The listener itself is of no use any more; all else was one client's bad luck (accept(2)).
bool listener_is_broken(int error) noexcept {
  return error == EBADF || error == EINVAL || error == ENOTSOCK || error == EOPNOTSUPP ||
         error == EFAULT;
}

/// Of the last looks at a backlog: whether there is no use in another one.
bool nobody_waits(int error) noexcept {
  return error == EAGAIN || error == EMFILE || error == ENFILE || listener_is_broken(error);
}

[[noreturn]] void refuse(int error, const std::string& what, const SocketAddress& address) {
  throw std::system_error(error, std::generic_category(),
                          "weir: " + what + " " + address.to_string());
}

}  // namespace

/// The pinned part: it stays until the kernel has let go of the listener.
///
/// Stopped, and the kernel's accept called off: what that still gives and what stands in the
/// backlog is accepted, then the listener closed (`ended_`).
///
/// Before: armed (a multishot accept), or full (too many wait for an `accept`: not armed), or
/// starved: the process is out of descriptors, and the listener is polled instead. A poll needs no
/// descriptor, completes only when there is a client to shed, and so costs nothing while there is
/// none.
class Acceptor::State final : public detail::LoopResource,
                              public std::enable_shared_from_this<State> {
 public:
  State(EventLoop& loop, Socket listener, const AcceptorOptions& options)
      : loop_(loop),
        listener_(std::move(listener)),
        address_(listener_.bound_address()),
        file_(std::string(address_.unix_path())),
        options_(options),
        operation_(detail::OperationKind::accept,
                   [](detail::Operation& op, detail::Completion done) noexcept {
                     detail::whole_of(op, &State::operation_)->on_complete(done);
                   }),
        retry_(*this) {
    operation_.fd = listener_.fd();
  }

  void start() {
    loop_.keep(*this);
    loop_.sockets().hold_spare();
    arm();
  }

  void close() noexcept {
    if (std::exchange(closed_, true)) return;
    retry_.disarm();
    while (AcceptAwaiter* waiter = waiters_.front()) finish(*waiter, -ECANCELED);
    while (!waiting_.empty()) {
      loop_.sockets().close(waiting_.front());
      waiting_.pop_front();
    }
    if (!stopped_) remove_file();
    if (operation_.in_flight()) {
      self_ = shared_from_this();
      refuse_clients();
      loop_.engine().cancel(operation_);
    } else {
      release();
    }
  }

  void stop_listening() noexcept {
    if (closed_ || std::exchange(stopped_, true)) return;
    retry_.disarm();
    remove_file();
    accept_backlog();
    if (operation_.in_flight()) {
      refuse_clients();
      loop_.engine().cancel(operation_);
    } else {
      end();
    }
  }

  void end_with_loop() noexcept override { close(); }

  bool take(int& result) noexcept {
    if (closed_ || broken_ != 0) {
      result = closed_ ? -ECANCELED : -broken_;
      return true;
    }
    if (waiting_.empty() && ended_) {
      result = -ECANCELED;
      return true;
    }
    if (waiting_.empty() || !waiters_.empty()) return false;
    result = waiting_.front();
    waiting_.pop_front();
    if (waiting_.size() <= options_.max_waiting / 2) arm();
    return true;
  }

  void wait(AcceptAwaiter& waiter) noexcept { waiters_.push_back(waiter); }

  /// Hands a client to the first who asked, or keeps it for the next who does: behind those who
  /// wait already, or, `again`, in the place that it had.
  void deliver(int fd, bool again = false) noexcept {
    if (closed_) {
      loop_.sockets().close(fd);
    } else if (AcceptAwaiter* waiter = waiters_.front()) {
      finish(*waiter, fd);
    } else {
      try {
        again ? waiting_.push_front(fd) : waiting_.push_back(fd);
      } catch (...) {  // short of memory: not as if it had been served
        (void)loop_.sockets().set(fd, detail::Sockets::Option::reset_on_close, 1);
        loop_.sockets().close(fd);
      }
    }
  }

 private:
  friend class Acceptor;
  friend class Acceptor::AcceptAwaiter;

  struct Retry : detail::Timer {
    explicit Retry(State& owner)
        : detail::Timer(
              [](detail::Timer& timer) noexcept { static_cast<Retry&>(timer).state.on_retry(); }),
          state(owner) {}
    State& state;
  };

  void take_in(int fd) noexcept {
    const int kept = loop_.sockets().keep_accepted(fd);
    if (kept >= 0) {
      deliver(kept);
    } else {
      ++shed_;
    }
  }

  void remove_file() noexcept {
    const std::string path(address_.unix_path());
    if (!path.empty() && !shared() && detail::SocketFile(path) == file_) ::unlink(path.c_str());
  }

  [[nodiscard]] bool shared() const noexcept {
    return shared_ || loop_.is_of_parent() || (others_ != nullptr && *others_ != 0);
  }

  /// Whoever comes now is refused, though the kernel may hold the listener for a moment yet.
  void refuse_clients() noexcept {
    if (sole_ && !shared()) loop_.sockets().stop_listening(listener_.fd());
  }

  /// Takes what the kernel has: as many as a listener can hold (one more than its backlog), and no
  /// more, for if others listen too new ones may go on coming.
  void accept_backlog() noexcept {
    for (int left = options_.backlog; left >= 0; --left) {
      const int fd = loop_.sockets().accept(listener_.fd());
      if (fd >= 0) {
        take_in(fd);
      } else if (nobody_waits(-fd)) {
        return;
      }
    }
  }

  /// The kernel has let go of a listener that was stopped.
  void end() noexcept {
    accept_backlog();
    close_listener();
    ended_ = true;
    while (AcceptAwaiter* waiter = waiters_.front()) finish(*waiter, -ECANCELED);
  }

  void arm() noexcept {
    if (closed_ || stopped_ || broken_ != 0 || starved_ || operation_.in_flight()) return;
    operation_.accept();
    loop_.engine().submit(operation_);
  }

  void finish(AcceptAwaiter& waiter, int result) noexcept {
    waiter.link.unlink();
    waiter.result_ = result;
    waiter.done_ = true;
    waiter.waiter_.wake();
  }

  void on_complete(detail::Completion done) noexcept {
    if (operation_.kind == detail::OperationKind::poll) {
      if (!closed_ && !stopped_) shed();
    } else if (done.result >= 0) {
      starving_ = false;
      take_in(done.result);
      if (done.more && waiting_.size() >= options_.max_waiting) loop_.engine().cancel(operation_);
    } else {
      on_error(-done.result);
    }
    if (operation_.in_flight()) return;
    if (closed_) {
      const auto self = std::exchange(self_, nullptr);
      release();
    } else if (stopped_) {
      end();
    } else if (waiting_.size() < options_.max_waiting) {
      arm();
    }
  }

  void on_error(int error) noexcept {
    if (error == ECANCELED || closed_ || stopped_) return;
    if (out_of_resources(error)) {
      if (!std::exchange(starving_, true)) {
        static constinit detail::LogLimit limit("times that descriptors ran out");
        if (limit.admits(logging::Level::warning)) {
          detail::LogLine line;
          line << "out of descriptors (" << ::strerrordesc_np(error) << "): " << address_
               << " closes new connections at once; raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=) "
                  "or limit max_connections";
          logging::write(logging::Level::warning, line);
        }
      }
      starved_ = true;
      shed();
    } else if (listener_is_broken(error)) {
      broken_ = error;
      while (AcceptAwaiter* waiter = waiters_.front()) finish(*waiter, -error);
    }
  }

  /// Starved, and nothing in flight: takes what clients there are, with a descriptor if there is
  /// one again, else with the spare.
  void shed() noexcept {
    for (int i = 0; i < kShedBatch; ++i) {
      const int fd = loop_.sockets().accept_or_shed(listener_.fd());
      if (fd == 0) {
        ++shed_;
      } else if (fd > 0) {
        deliver(fd);
        starved_ = false;  // armed again by the caller
        retry_delay_ = kFirstRetry;
        return;
      } else if (fd == -EAGAIN) {
        break;
      } else if (fd != -ECONNABORTED && fd != -EPROTO && fd != -EINTR) {
        retry_later();
        return;
      }
    }
    retry_delay_ = kFirstRetry;
    operation_.poll(POLLIN);
    loop_.engine().submit(operation_);
  }

  void retry_later() noexcept {
    const auto part = loop_.machine().random() % 512;
    retry_.arm(loop_, loop_.deadline_in(retry_delay_ + retry_delay_ * part / 1024));
    retry_delay_ = std::min<std::chrono::microseconds>(2 * retry_delay_, kLongestRetry);
  }

  void on_retry() noexcept {
    if (closed_ || operation_.in_flight()) return;
    shed();
    if (!operation_.in_flight()) arm();
  }

  void close_listener() noexcept {
    if (!listener_) return;
    listener_.close();
    loop_.sockets().release_spare();
  }

  void release() noexcept {
    close_listener();
    unlink();
  }

  EventLoop& loop_;
  Socket listener_;
  SocketAddress address_;
  detail::SocketFile file_;  // of a Unix path
  std::atomic<std::uint64_t> shed_{0};
  bool sole_ = false;                               // nobody but this process has the listener
  bool shared_ = false;                             // somebody else listens on it too
  std::shared_ptr<const std::atomic<int>> others_;  // how many do, apart from that
  AcceptorOptions options_;
  detail::Operation operation_;
  Retry retry_;
  std::chrono::microseconds retry_delay_ = kFirstRetry;
  detail::SmallQueue<int> waiting_;  // accepted, and not asked for yet
  detail::List<AcceptAwaiter> waiters_;
  std::shared_ptr<State> self_;  // while closing
  int broken_ = 0;               // errno that ended the listener
  bool starved_ = false;
  bool starving_ = false;  // the episode: from the first lack to the first plain accept
  bool stopped_ = false;
  bool ended_ = false;
  bool closed_ = false;
};

Acceptor::AcceptAwaiter::AcceptAwaiter(std::shared_ptr<State> state) noexcept
    : state_(std::move(state)) {}

Acceptor::AcceptAwaiter::AcceptAwaiter(AcceptAwaiter&& other) noexcept
    : state_(std::move(other.state_)) {}

Acceptor::AcceptAwaiter::~AcceptAwaiter() {
  if (done_ && result_ >= 0) state_->deliver(result_, true);
}

bool Acceptor::AcceptAwaiter::await_ready() {
  done_ = state_->take(result_);
  return done_ && detail::Scheduler::may_go_on();
}

void Acceptor::AcceptAwaiter::await_suspend(std::coroutine_handle<> handle) {
  waiter_.suspend(handle);
  if (done_) {
    waiter_.wake();  // others go first
  } else {
    state_->wait(*this);
  }
}

Socket Acceptor::AcceptAwaiter::await_resume() {
  done_ = false;
  if (result_ < 0) {
    throw std::system_error(-result_, std::generic_category(),
                            "weir: accept on " + state_->address_.to_string());
  }
  return Socket(state_->loop_.sockets(), result_);
}

Socket detail::listen(detail::Sockets& sockets, const SocketAddress& address,
                      const AcceptorOptions& options) {
  using Option = detail::Sockets::Option;
  if (options.backlog <= 0) {
    throw std::invalid_argument("weir: AcceptorOptions::backlog is " +
                                std::to_string(options.backlog) + "; it must be at least 1");
  }
  if (options.unix_mode > 0777) {
    throw std::invalid_argument("weir: AcceptorOptions::unix_mode is " +
                                std::to_string(options.unix_mode) +
                                "; it must be 0777 at the most");
  }
  if (!address) throw std::invalid_argument("weir: Acceptor: the address is empty");
  const int fd = sockets.open(address.family());
  if (fd < 0) refuse(-fd, "cannot open a socket for", address);
  Socket socket(sockets, fd);
  if (address.is_ip()) {
    const auto set = [&](Option option, bool on) {
      const int result = sockets.set(fd, option, on ? 1 : 0);
      if (result < 0) refuse(-result, "cannot set an option of the listener on", address);
    };
    if (options.reuse_address) set(Option::reuse_address, true);
    if (options.reuse_port) set(Option::reuse_port, true);
    if (address.family() == AF_INET6) set(Option::v6_only, options.v6_only);
    if (options.no_delay) set(Option::no_delay, true);
    if (options.keep_alive) set(Option::keep_alive, true);
  } else {
    remove_stale(sockets, address);
  }
  if (const int result = sockets.bind(fd, address.raw()); result < 0) {
    refuse(-result, "cannot bind", address);
  }
  if (const int result = set_mode(address, options.unix_mode); result < 0) {
    refuse(-result, "cannot set the permissions of", address);
  }
  if (const int result = sockets.listen(fd, options.backlog); result < 0) {
    refuse(-result, "cannot listen on", address);
  }
  return socket;
}

Acceptor::Acceptor(EventLoop& loop, const SocketAddress& address, AcceptorOptions options)
    : Acceptor(loop, detail::listen(loop.sockets(), address, options), options) {
  own_listener();
}

Acceptor::Acceptor(EventLoop& loop, Socket listener, AcceptorOptions options) {
  if (options.max_waiting == 0) {
    throw std::invalid_argument("weir: AcceptorOptions::max_waiting is 0; it must be at least 1");
  }
  if (!listener) throw std::invalid_argument("weir: Acceptor: the listener is not open");
  state_ = std::make_shared<State>(loop, std::move(listener), options);
  state_->start();
}

Acceptor& Acceptor::operator=(Acceptor&& other) noexcept {
  if (this != &other) {
    close();
    state_ = std::move(other.state_);
  }
  return *this;
}

Acceptor::~Acceptor() { close(); }

Acceptor::AcceptAwaiter Acceptor::accept() { return AcceptAwaiter(state_); }

const SocketAddress& Acceptor::address() const { return state_->address_; }

void Acceptor::close() noexcept {
  if (state_ != nullptr) state_->close();
}

void Acceptor::stop_listening() noexcept {
  if (state_ != nullptr) state_->stop_listening();
}

void Acceptor::own_listener() noexcept { state_->sole_ = true; }

void Acceptor::share_listener() noexcept { state_->shared_ = true; }

void Acceptor::share_listener(std::shared_ptr<const std::atomic<int>> others) noexcept {
  state_->others_ = std::move(others);
}

std::uint64_t Acceptor::shed() const noexcept { return state_->shed_; }

std::shared_ptr<const std::atomic<std::uint64_t>> Acceptor::shed_counter() const noexcept {
  return {state_, &state_->shed_};
}

int Acceptor::fd() const noexcept { return state_->stopped_ ? -1 : state_->listener_.fd(); }

}  // namespace weir
