#include <weir/core/log.h>
#include <weir/core/small_queue.h>
#include <weir/net/acceptor.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

namespace weir {
namespace {

/// Clients shed before the loop gets its turn again.
constexpr int kShedBatch = 64;
/// Between two looks for a descriptor when there is not even a spare one; jittered by half.
constexpr auto kRetry = std::chrono::milliseconds(50);

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

/// Which file a path leads to: it may be somebody else's by now.
struct SocketFile {
  explicit SocketFile(const std::string& path) {
    struct stat info{};
    if (path.empty() || ::lstat(path.c_str(), &info) != 0) return;
    device = info.st_dev;
    number = info.st_ino;
  }
  friend bool operator==(const SocketFile&, const SocketFile&) = default;

  dev_t device = 0;
  ino_t number = 0;
};

/// Removes a socket file that nobody listens on: a leftover of a process that crashed.
void remove_stale(Sockets& sockets, const SocketAddress& address) {
  const std::string path(address.unix_path());
  struct stat info{};
  if (path.empty() || ::stat(path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode)) return;
  const Socket probe(sockets, sockets.open(address.family()));
  if (probe && sockets.connect(probe.fd(), address.raw()) == -ECONNREFUSED) ::unlink(path.c_str());
}

}  // namespace

/// The pinned part: it stays until the kernel has let go of the listener.
///
/// Armed (a multishot accept), or full (too many wait for an `accept`: not armed), or starved: the
/// process is out of descriptors, and the listener is polled instead. A poll needs no descriptor,
/// completes only when there is a client to shed, and so costs nothing while there is none.
class Acceptor::State final : public LoopResource, public std::enable_shared_from_this<State> {
 public:
  State(EventLoop& loop, Socket listener, const AcceptorOptions& options)
      : loop_(loop),
        listener_(std::move(listener)),
        address_(listener_.local_address()),
        file_(std::string(address_.unix_path())),
        options_(options),
        spare_(loop.sockets(), loop.sockets().open_spare()),
        operation_(OperationKind::accept, this,
                   [](Operation& op, Completion done) noexcept {
                     static_cast<State*>(op.owner)->on_complete(done);
                   }),
        retry_(*this) {
    operation_.fd = listener_.fd();
  }

  void start() {
    loop_.keep(*this);
    arm();
  }

  void close() noexcept {
    if (std::exchange(closed_, true)) return;
    shed_total_ = nullptr;
    retry_.disarm();
    while (AcceptAwaiter* waiter = waiters_.front()) finish(*waiter, -ECANCELED);
    while (!waiting_.empty()) {
      loop_.sockets().close(waiting_.front());
      waiting_.pop_front();
    }
    const std::string path(address_.unix_path());
    if (!path.empty() && !shared_ && SocketFile(path) == file_) ::unlink(path.c_str());
    if (operation_.in_flight()) {
      self_ = shared_from_this();
      if (sole_ && !shared_ && !late_) loop_.sockets().stop_listening(listener_.fd());
      loop_.engine().cancel(operation_);
    } else {
      release();
    }
  }

  void end_with_loop() noexcept override { close(); }

  bool take(int& result) noexcept {
    if (closed_ || broken_ != 0) {
      result = closed_ ? -ECANCELED : -broken_;
      return true;
    }
    if (waiting_.empty() || !waiters_.empty()) return false;
    result = waiting_.front();
    waiting_.pop_front();
    if (waiting_.size() <= options_.max_waiting / 2) arm();
    return true;
  }

  void take_backlog(std::vector<Socket>& sockets) {
    while (!closed_ && !waiting_.empty()) {
      sockets.emplace_back(loop_.sockets(), waiting_.front());
      waiting_.pop_front();
    }
    // As many as a listener can hold, and no more: new ones may go on coming.
    for (int i = 0; !closed_ && i < options_.backlog; ++i) {
      const int fd = loop_.sockets().accept(listener_.fd());
      if (fd < 0 && nobody_waits(-fd)) break;
      if (fd >= 0) sockets.push_back(Socket(loop_.sockets(), fd));
    }
  }

  /// As `take_backlog`, and what comes in until the kernel has let go of the listener.
  void drain(std::function<void(Socket)> each) {
    if (closed_) {
      each(Socket());
      return;
    }
    std::vector<Socket> sockets;
    take_backlog(sockets);
    for (Socket& socket : sockets) each(std::move(socket));
    late_ = std::move(each);
    close();
  }

  void wait(AcceptAwaiter& waiter) noexcept { waiters_.push_back(waiter); }

  /// Hands a client to the first who asked, or keeps it for the next who does: behind those who
  /// wait already, or, `again`, in the place that it had.
  void deliver(int fd, bool again = false) noexcept {
    if (closed_) {
      deliver_late(Socket(loop_.sockets(), fd));
    } else if (AcceptAwaiter* waiter = waiters_.front()) {
      finish(*waiter, fd);
    } else {
      try {
        again ? waiting_.push_front(fd) : waiting_.push_back(fd);
      } catch (...) {
        loop_.sockets().close(fd);
      }
    }
  }

 private:
  friend class Acceptor;
  friend class Acceptor::AcceptAwaiter;

  struct Retry : Timer {
    explicit Retry(State& owner)
        : Timer([](Timer& timer) noexcept { static_cast<Retry&>(timer).state.on_retry(); }),
          state(owner) {}
    State& state;
  };

  void arm() noexcept {
    if (closed_ || broken_ != 0 || starved_ || operation_.in_flight()) return;
    operation_.kind = OperationKind::accept;
    loop_.engine().submit(operation_);
  }

  void finish(AcceptAwaiter& waiter, int result) noexcept {
    waiter.unlink();
    waiter.result_ = result;
    waiter.done_ = true;
    waiter.waiter_.wake();
  }

  void on_complete(Completion done) noexcept {
    if (operation_.kind == OperationKind::poll) {
      if (!closed_) shed();
    } else if (done.result >= 0) {
      starving_ = false;
      deliver(done.result);
      if (done.more && waiting_.size() >= options_.max_waiting) loop_.engine().cancel(operation_);
    } else {
      on_error(-done.result);
    }
    if (operation_.in_flight()) return;
    if (closed_) {
      const auto self = std::exchange(self_, nullptr);
      release();
    } else if (waiting_.size() < options_.max_waiting) {
      arm();
    }
  }

  void on_error(int error) noexcept {
    if (error == ECANCELED || closed_) return;
    if (out_of_resources(error)) {
      if (!std::exchange(starving_, true)) {
        log::write(log::Level::warning,
                   "out of descriptors (" + std::generic_category().message(error) +
                       "): " + address_.to_string() +
                       " closes new connections at once; raise "
                       "RLIMIT_NOFILE (ulimit -n, LimitNOFILE=) or limit max_connections");
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
    Sockets& sockets = loop_.sockets();
    for (int i = 0; i < kShedBatch; ++i) {
      const int fd = sockets.accept(listener_.fd());
      if (fd >= 0) {
        deliver(fd);
        starved_ = false;  // armed again by the caller
        return;
      }
      if (fd == -EAGAIN) break;
      if (fd == -ECONNABORTED || fd == -EPROTO || fd == -EINTR) continue;
      if (fd != -EMFILE && fd != -ENFILE) {
        retry_later();
        return;
      }
      spare_.close();
      const int victim = sockets.accept(listener_.fd());
      if (victim >= 0) {
        sockets.close(victim);
        ++shed_;
        if (shed_total_ != nullptr) ++*shed_total_;
      }
      spare_ = Socket(sockets, sockets.open_spare());
      if (!spare_) {  // another thread was faster
        retry_later();
        return;
      }
      if (victim == -EAGAIN) break;
    }
    operation_.kind = OperationKind::poll;
    operation_.events = POLLIN;
    loop_.engine().submit(operation_);
  }

  void retry_later() noexcept {
    const auto jitter = std::chrono::microseconds(loop_.engine().random() % 25'000);
    retry_.arm(loop_, loop_.deadline_in(kRetry + jitter));
  }

  void on_retry() noexcept {
    if (closed_ || operation_.in_flight()) return;
    if (!spare_) spare_ = Socket(loop_.sockets(), loop_.sockets().open_spare());
    shed();
    if (!operation_.in_flight()) arm();
  }

  /// Accepted although it was closing; an empty socket ends it.
  void deliver_late(Socket socket) noexcept {
    if (!late_) return;
    try {
      late_(std::move(socket));
    } catch (...) {  // and with it goes the client
      loop_.report_failure(std::current_exception(), "the end of an acceptor");
    }
  }

  void release() noexcept {
    for (int i = 0; late_ && i < options_.backlog; ++i) {
      const int fd = loop_.sockets().accept(listener_.fd());
      if (fd < 0 && nobody_waits(-fd)) break;
      if (fd >= 0) deliver_late(Socket(loop_.sockets(), fd));
    }
    listener_.close();
    spare_.close();
    unlink();
    deliver_late({});
    late_ = nullptr;
  }

  EventLoop& loop_;
  Socket listener_;
  SocketAddress address_;
  SocketFile file_;  // of a Unix path
  std::uint64_t shed_ = 0;
  std::atomic<std::uint64_t>* shed_total_ = nullptr;  // its server's
  bool sole_ = false;                                 // nobody but this process has the listener
  bool shared_ = false;                               // somebody else listens on it too
  AcceptorOptions options_;
  Socket spare_;
  Operation operation_;
  Retry retry_;
  SmallQueue<int> waiting_;  // accepted, and not asked for yet
  List<AcceptAwaiter> waiters_;
  std::shared_ptr<State> self_;  // while closing
  std::function<void(Socket)> late_;
  int broken_ = 0;  // errno that ended the listener
  bool starved_ = false;
  bool starving_ = false;  // the episode: from the first lack to the first plain accept
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
  return done_;
}

void Acceptor::AcceptAwaiter::await_suspend(std::coroutine_handle<> handle) {
  waiter_.suspend(handle);
  state_->wait(*this);
}

Socket Acceptor::AcceptAwaiter::await_resume() {
  done_ = false;
  if (result_ < 0) {
    throw std::system_error(-result_, std::generic_category(),
                            "weir: accept on " + state_->address_.to_string());
  }
  return Socket(state_->loop_.sockets(), result_);
}

Socket listen(Sockets& sockets, const SocketAddress& address, const AcceptorOptions& options) {
  using Option = Sockets::Option;
  if (options.backlog <= 0) {
    throw std::invalid_argument("weir: AcceptorOptions::backlog is " +
                                std::to_string(options.backlog) + "; it must be at least 1");
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
  if (const int result = sockets.listen(fd, options.backlog); result < 0) {
    refuse(-result, "cannot listen on", address);
  }
  return socket;
}

Acceptor::Acceptor(EventLoop& loop, const SocketAddress& address, AcceptorOptions options)
    : Acceptor(loop, listen(loop.sockets(), address, options), options) {
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

std::vector<Socket> Acceptor::take_backlog() {
  std::vector<Socket> sockets;
  state_->take_backlog(sockets);
  close();
  return sockets;
}

void Acceptor::drain(std::function<void(Socket)> each) { state_->drain(std::move(each)); }

Acceptor::AcceptAwaiter Acceptor::accept() { return AcceptAwaiter(state_); }

const SocketAddress& Acceptor::address() const { return state_->address_; }

void Acceptor::close() noexcept {
  if (state_ != nullptr) state_->close();
}

void Acceptor::own_listener() noexcept { state_->sole_ = true; }

void Acceptor::share_listener() noexcept { state_->shared_ = true; }

std::uint64_t Acceptor::shed() const noexcept { return state_->shed_; }

void Acceptor::count_shed_in(std::atomic<std::uint64_t>& total) noexcept {
  state_->shed_total_ = &total;
}

int Acceptor::fd() const noexcept { return state_->listener_.fd(); }

}  // namespace weir
