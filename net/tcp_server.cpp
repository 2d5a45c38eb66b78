#include <weir/core/log.h>
#include <weir/core/loop_thread.h>
#include <weir/core/signal.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/event.h>
#include <weir/coro/task_group.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_any.h>
#include <weir/io/handover.h>
#include <weir/net/acceptor.h>
#include <weir/net/tcp_server.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <future>
#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

namespace weir {
namespace {

/// The idle deadline is looked at this often while it runs.
constexpr unsigned kIdleRounds = 8;
/// When a drain begins the first request of a new connection may be under way: for that long.
constexpr auto kFirstRequest = std::chrono::seconds(1);

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
  if (options.drain_timeout.count() < 0) {
    reject("drain_timeout", std::to_string(options.drain_timeout.count()) + " ms",
           "it must not be negative");
  }
  Stream::check(options.connection);
}

}  // namespace

/// What the user's handle and the loops share. Each I/O loop has a `Share`, which is made, used
/// and torn down on that loop.
class TcpServer::Core final : public std::enable_shared_from_this<Core> {
 public:
  explicit Core(ServerOptions options) : options_(std::move(options)) {
    check(options_);
    own_loop_ = std::make_unique<EventLoop>(options_.loop);
    base_ = own_loop_.get();
    base_mailbox_ = base_->mailbox();
  }
  Core(EventLoop& loop, ServerOptions options)
      : options_(std::move(options)), base_(&loop), base_mailbox_(loop.mailbox()) {
    check(options_);
  }

  void listen();
  void run(Handler handler);
  void start(Handler handler);
  Task<DrainReport> drain(std::shared_ptr<Core> self, std::chrono::nanoseconds limit);
  int hand_over(const std::vector<std::string>& command);
  void stop();
  void tear_down();
  /// The user's handle goes.
  void end();
  void for_each(std::function<void(TcpConnection&)> function);

  [[nodiscard]] EventLoop& base() const { return *base_; }
  [[nodiscard]] SocketAddress address() const { return address_; }
  [[nodiscard]] std::size_t connections() const noexcept { return connections_.load(); }
  [[nodiscard]] std::uint64_t failures() const noexcept { return failures_.load(); }
  [[nodiscard]] std::uint64_t refused() const noexcept { return refused_.load(); }
  [[nodiscard]] std::uint64_t shed() const noexcept { return shed_.load(); }

 private:
  class Share;
  using Shares = std::vector<std::shared_ptr<Share>>;

  /// From any thread, also when the loop has ended.
  template <class Function>
  void post_to_base(Function function) {
    base_mailbox_->push(std::make_unique<PostedFunction<Function>>(std::move(function)));
  }
  Task<> run_to_end();
  Task<> supervise();
  /// The shares as they stand; for threads that may ask while others start or end the server.
  [[nodiscard]] Shares shares() const {
    const std::lock_guard lock(shares_mutex_);
    return shares_;
  }
  void add_share(EventLoop& loop);
  void take_inherited();
  Socket open_listener(const SocketAddress& address);
  void accept_on(Share& share, Socket listener, bool inherited);
  void hand_out(Socket socket);
  bool admit(std::uint64_t peer);
  void peer_turned_out(std::uint64_t expected, std::uint64_t actual);
  void connection_ended(std::uint64_t peer) noexcept;
  void handler_ended() noexcept;
  void acceptor_ended() noexcept;
  /// Nobody is accepted any more, on the way to its loop, or being served.
  [[nodiscard]] bool at_end() const noexcept {
    return acceptors_ == 0 && in_transit_ == 0 && handlers_ == 0;
  }
  void note_end() noexcept;
  void handler_failed(const std::exception_ptr& failure, std::string_view name) noexcept;
  void visit(std::size_t index,
             const std::shared_ptr<std::function<void(TcpConnection&)>>& function);

  ServerOptions options_;
  std::shared_ptr<const Handler> handler_;
  std::unique_ptr<EventLoop> own_loop_;
  EventLoop* base_;
  std::shared_ptr<Mailbox> base_mailbox_;
  std::unique_ptr<EventLoopThreadPool> pool_;
  mutable std::mutex shares_mutex_;
  Shares shares_;  // the I/O loops' first
  std::size_t next_share_ = 0;
  std::vector<Socket> listeners_;  // until `start`: one, or one for each I/O loop, or inherited
  std::size_t inherited_ = 0;      // the first of them
  SocketAddress address_;
  bool started_ = false;
  bool owns_file_ = true;  // of a Unix path: to be removed in the end

  std::atomic<std::size_t> connections_{0};
  std::atomic<std::size_t> acceptors_{0};   // open
  std::atomic<std::size_t> in_transit_{0};  // connections on the way to their loop
  std::atomic<std::size_t> handlers_{0};
  std::atomic<std::size_t> handlers_ended_{0};  // in this drain
  std::atomic<std::uint64_t> next_id_{0};
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<std::uint64_t> shed_{0};
  std::atomic<bool> draining_{false};
  std::mutex peers_mutex_;
  std::unordered_map<std::uint64_t, std::size_t> peers_;

  // The base loop's.
  Event stopped_;
  Event at_end_;
};

/// A server's part on one loop.
class TcpServer::Core::Share final : public StreamOwner,
                                     public LoopResource,
                                     public std::enable_shared_from_this<Share> {
 public:
  Share(Core& core, EventLoop& loop)
      : core_(core), loop_(loop), handlers_(std::in_place, *this), tasks_(std::in_place, loop) {
    loop.keep(*this);
    if (core_.options_.idle_timeout.count() > 0) tasks_->spawn(end_idle());
  }

  /// Has the loop call the function. From any thread; false once the share is being torn down.
  /// What was posted before runs, or is deleted when the loop ends.
  template <class Function>
  bool post(Function function) {
    const std::lock_guard lock(gate_);
    if (!open_) return false;
    mailbox_->push(std::make_unique<PostedFunction<Function>>(std::move(function)));
    return true;
  }

  void accept_with(Acceptor acceptor) {
    acceptor.count_shed_in(core_.shed_);
    acceptors_.push_back(std::move(acceptor));
    accepting_ = true;
    ++core_.acceptors_;
    tasks_->spawn(accept_all(shared_from_this(), acceptors_.size() - 1));
  }

  /// Takes over a connection, if the limits admit it.
  void serve(Socket socket) {
    if (refusing_) return;
    Stream* stream = nullptr;
    std::uint64_t peer = 0;
    bool admitted = false;
    try {
      if (core_.options_.max_connections_per_peer > 0) peer = socket.peer_address().peer_key();
      admitted = core_.admit(peer);
      if (!admitted) return;
      const std::uint64_t id = ++core_.next_id_;
      stream = Stream::adopt(loop_, std::move(socket), core_.options_.connection, this, id, true);
      // It may have gone between the two looks; its end will be counted by the second.
      if (const auto now = peer_of(*stream); now != peer) core_.peer_turned_out(peer, now);
    } catch (...) {
      if (admitted) core_.connection_ended(peer);
      loop_.report_failure(std::current_exception(), "the start of a connection");
      return;
    }
    streams_.push_back(*stream);
    ++core_.handlers_;
    try {
      handlers_->spawn((*core_.handler_)(TcpConnection(*stream)), core_.handler_);
    } catch (...) {
      core_.handler_failed(std::current_exception(), core_.options_.name);
      core_.handler_ended();
    }
  }

  void list_listener(std::vector<int>& descriptors) const {
    if (!accepting_) return;
    for (const Acceptor& acceptor : acceptors_) descriptors.push_back(acceptor.fd());
  }
  void share_listeners() {
    for (Acceptor& acceptor : acceptors_) acceptor.share_listener();
  }

  /// Whoever the kernel has accepted already, or accepts before it lets go, is served.
  void begin_drain() {
    if (!draining_.is_set()) tasks_->spawn(tell_unused());
    draining_.set();
    if (!std::exchange(accepting_, false)) return;
    for (Acceptor& acceptor : acceptors_) {
      acceptor.drain([self = shared_from_this()](Socket socket) {
        self->loop_.post([self, socket = std::move(socket)]() mutable {
          if (!self->closed_) self->take_late(std::move(socket));
        });
      });
    }
  }

  void refuse_all() noexcept {
    refusing_ = true;
    const bool accepting = std::exchange(accepting_, false);
    for (Acceptor& acceptor : acceptors_) {
      acceptor.close();
      if (accepting) core_.acceptor_ended();
    }
  }

  void cut_all() noexcept {
    // Before the handlers go: their connections would end as if all had been said.
    List<Stream, StreamOwner> cut;
    cut.splice_back(streams_);
    while (Stream* stream = cut.pop_front()) {
      streams_.push_back(*stream);
      stream->force_close();
    }
    handlers_->cancel();
  }

  /// The loop ends before the server.
  void end_with_loop() noexcept override {
    const auto self = shared_from_this();  // a handler may own the server
    const auto core = core_.shared_from_this();
    tear_down();
    if (&loop_ == core_.base_) core_.stop();  // nobody could end what is on the others
  }

  void tear_down() noexcept {
    {
      const std::lock_guard lock(gate_);
      if (!std::exchange(open_, false)) return;
    }
    unlink();
    closed_ = true;
    tasks_.reset();
    acceptors_.clear();
    // What a handler sent before it ended still goes out: the loop sees to that.
    List<Stream, StreamOwner> leaving;
    for (Stream* stream = streams_.front(); stream != nullptr;) {
      Stream* next = streams_.after(*stream);
      if (stream->closing()) {
        static_cast<TaggedLink<StreamOwner>&>(*stream).unlink();
        leaving.push_back(*stream);
      }
      stream = next;
    }
    cut_all();
    leaving.splice_back(streams_);
    while (Stream* stream = leaving.pop_front()) {
      stream->forget_owner();
      core_.connection_ended(peer_of(*stream));
    }
    handlers_.reset();
    const std::lock_guard lock(gate_);
    gone_ = true;
  }

  /// Torn down, and its loop may have ended. From any thread.
  [[nodiscard]] bool gone() const {
    const std::lock_guard lock(gate_);
    return gone_;
  }

  void for_each(const std::function<void(TcpConnection&)>& function) {
    // By number: the function may end connections, any of them.
    std::vector<std::uint64_t> ids;
    for (Stream* s = streams_.front(); s != nullptr; s = streams_.after(*s)) ids.push_back(s->id());
    for (const std::uint64_t id : ids) {
      Stream* stream = streams_.front();
      while (stream != nullptr && stream->id() != id) stream = streams_.after(*stream);
      if (stream == nullptr) continue;
      TcpConnection connection(*stream);
      struct Release {
        TcpConnection& connection;
        ~Release() { connection.stream_ = nullptr; }
      } release{connection};
      function(connection);
    }
  }

  /// The same, from a thread without a loop.
  void visit_and_wait(const std::function<void(TcpConnection&)>& function) {
    std::promise<void> done;
    std::future<void> result = done.get_future();
    bool running = false;
    {
      const std::lock_guard lock(gate_);
      if (!open_) return;
      running = loop_.runs_elsewhere();
    }
    if (!running) {
      const EventLoop::Entered entered(loop_);
      for_each(function);
      return;
    }
    const bool posted =
        post([&function, self = shared_from_this(), done = std::move(done)]() mutable {
          try {
            if (!self->closed_) self->for_each(function);
            done.set_value();
          } catch (...) {
            done.set_exception(std::current_exception());
          }
        });
    if (!posted) return;
    try {
      result.get();
    } catch (const std::future_error&) {
      // The loop ended before, and its connections with it.
    }
  }

  void stream_closed(Stream& stream) noexcept override {
    static_cast<TaggedLink<StreamOwner>&>(stream).unlink();
    core_.connection_ended(peer_of(stream));
  }
  [[nodiscard]] std::string_view owner_name() const noexcept override {
    return core_.options_.name;
  }
  [[nodiscard]] Event& draining(bool used) noexcept override {
    return used ? draining_ : draining_unused_;
  }

  [[nodiscard]] EventLoop& loop() const noexcept { return loop_; }
  [[nodiscard]] bool closed() const noexcept { return closed_; }

 private:
  class Handlers final : public TaskGroup {
   public:
    explicit Handlers(Share& share) : TaskGroup(share.loop_), share_(share) {}

   private:
    void task_left() noexcept override { share_.core_.handler_ended(); }
    bool handle_failure(const std::exception_ptr& failure) noexcept override {
      share_.core_.handler_failed(failure, share_.core_.options_.name);
      return true;
    }
    Share& share_;
  };

  /// A handler that runs at once may end the acceptor, or the server.
  Task<> accept_all(std::shared_ptr<Share> self, std::size_t index) {
    while (index < self->acceptors_.size()) {
      auto [error, socket] = co_await as_tuple(acceptors_[index].accept());
      if (error == std::errc::operation_canceled) co_return;
      if (error) throw std::system_error(error, "weir: " + core_.options_.name + " cannot accept");
      core_.hand_out(std::move(socket));
    }
  }

  [[nodiscard]] std::uint64_t peer_of(const Stream& stream) const noexcept {
    return core_.options_.max_connections_per_peer > 0 ? stream.peer_address().peer_key() : 0;
  }

  void take_late(Socket socket) {
    if (socket) {
      core_.hand_out(std::move(socket));
    } else {
      core_.acceptor_ended();
    }
  }

  Task<> tell_unused() {
    co_await sleep(kFirstRequest);
    draining_unused_.set();
  }

  Task<> end_idle() {
    const auto period = to_duration(core_.options_.idle_timeout) / kIdleRounds;
    for (;;) {
      co_await sleep(period);
      for (Stream* stream = streams_.front(); stream != nullptr;) {
        Stream* next = streams_.after(*stream);
        if (stream->idle_rounds() >= kIdleRounds) {
          stream->cut(ETIMEDOUT, false);
        }
        stream = next;
      }
    }
  }

  Core& core_;
  EventLoop& loop_;
  std::shared_ptr<Mailbox> mailbox_ = loop_.mailbox();  // outlives the loop
  mutable std::mutex gate_;
  bool open_ = true;
  bool gone_ = false;
  List<Stream, StreamOwner> streams_;
  Event draining_;  // they go after those who wait for them
  Event draining_unused_;
  std::optional<Handlers> handlers_;
  std::optional<TaskGroup> tasks_;
  std::vector<Acceptor> acceptors_;
  bool accepting_ = false;
  bool refusing_ = false;
  bool closed_ = false;
};

void TcpServer::Core::add_share(EventLoop& loop) {
  loop.call([&] {
    auto share = std::make_shared<Share>(*this, loop);
    const std::lock_guard lock(shares_mutex_);
    shares_.push_back(std::move(share));
  });
}

Socket TcpServer::Core::open_listener(const SocketAddress& address) {
  AcceptorOptions options;
  options.backlog = options_.backlog;
  options.reuse_port = options_.reuse_port;
  options.no_delay = options_.connection.no_delay;
  options.keep_alive = options_.connection.keep_alive;
  return weir::listen(base_->sockets(), address, options);
}

void TcpServer::Core::accept_on(Share& share, Socket listener, bool inherited) {
  share.loop().call([&] {
    Acceptor acceptor(share.loop(), std::move(listener));
    if (!inherited) acceptor.own_listener();
    if (!owns_file_) acceptor.share_listener();
    share.accept_with(std::move(acceptor));
  });
}

void TcpServer::Core::take_inherited() {
  for (const int fd : inherited_descriptors()) {
    Socket socket(base_->sockets(), fd);
    const SocketAddress bound = socket.local_address();
    const SocketAddress& wanted = listeners_.empty() ? options_.address : address_;
    const bool fits =
        bound == wanted || (wanted.is_ip() && wanted.port() == 0 && bound.with_port(0) == wanted);
    if (fits) {
      address_ = bound;
      owns_file_ = inherited_files();
      listeners_.push_back(std::move(socket));
      ++inherited_;
    } else {
      (void)socket.release();  // another server's
    }
  }
}

void TcpServer::Core::listen() {
  if (!listeners_.empty() || started_) return;
  if (options_.inherit_listeners) take_inherited();
  const std::size_t wanted = options_.reuse_port ? options_.threads : 1;
  while (listeners_.size() < wanted) {
    listeners_.push_back(open_listener(listeners_.empty() ? options_.address : address_));
    address_ = listeners_.front().local_address();  // with the port that all share
  }
}

int TcpServer::Core::hand_over(const std::vector<std::string>& command) {
  std::vector<int> descriptors;
  for (const Socket& listener : listeners_) descriptors.push_back(listener.fd());
  for (const auto& share : shares_) {
    share->loop().call([&] { share->list_listener(descriptors); });
  }
  if (descriptors.empty()) throw std::logic_error("weir: TcpServer::hand_over: it does not listen");
  const int child = start_with_descriptors(command, descriptors, owns_file_);
  if (!started_) {  // what stands there is the successor's as well
    inherited_ = listeners_.size();
    owns_file_ = false;
  }
  for (const auto& share : shares_) {
    share->loop().call([&] { share->share_listeners(); });
  }
  return child;
}

void TcpServer::Core::start(Handler handler) {
  if (started_) throw std::logic_error("weir: TcpServer was started already");
  if (!handler) throw std::invalid_argument("weir: TcpServer: the handler is empty");
  listen();
  started_ = true;
  handler_ = std::make_shared<const Handler>(std::move(handler));
  if (options_.threads > 1) {
    LoopOptions loop_options = options_.loop;
    loop_options.name = options_.name;
    pool_ = std::make_unique<EventLoopThreadPool>(loop_options);
    pool_->start(options_.threads);
    for (EventLoop* loop : pool_->loops()) add_share(*loop);
  }
  // With one loop that does everything, or to accept for the others.
  const bool base_accepts = options_.threads == 1 || !options_.reuse_port;
  if (base_accepts) add_share(*base_);
  const std::size_t first = base_accepts ? shares_.size() - 1 : 0;
  for (std::size_t i = 0; i < listeners_.size(); ++i) {  // a predecessor may have had more loops
    accept_on(*shares_[first + i % (shares_.size() - first)], std::move(listeners_[i]),
              i < inherited_);
  }
  listeners_.clear();
}

void TcpServer::Core::hand_out(Socket socket) {
  if (options_.threads == 1) {
    shares_.front()->serve(std::move(socket));
    return;
  }
  if (shares_.size() == options_.threads) {  // each loop accepts for itself
    for (const auto& share : shares_) {
      if (share->loop().in_loop_thread()) {
        share->serve(std::move(socket));
        return;
      }
    }
  }
  const auto& share = shares_[next_share_++ % options_.threads];
  ++in_transit_;
  const bool posted =
      share->post([share, core = shared_from_this(), sent = std::move(socket)]() mutable {
        if (!share->closed()) share->serve(std::move(sent));
        --core->in_transit_;
        core->note_end();
      });
  if (!posted) --in_transit_;
}

bool TcpServer::Core::admit(std::uint64_t peer) {
  const std::size_t count = ++connections_;
  bool admitted = options_.max_connections == 0 || count <= options_.max_connections;
  if (admitted && options_.max_connections_per_peer > 0) {
    const std::lock_guard lock(peers_mutex_);
    std::size_t& of_peer = peers_[peer];
    admitted = of_peer < options_.max_connections_per_peer;
    if (admitted) ++of_peer;
  }
  if (!admitted) {
    --connections_;
    ++refused_;
  }
  return admitted;
}

void TcpServer::Core::peer_turned_out(std::uint64_t expected, std::uint64_t actual) {
  const std::lock_guard lock(peers_mutex_);
  ++peers_[actual];
  const auto found = peers_.find(expected);
  if (found != peers_.end() && --found->second == 0) peers_.erase(found);
}

void TcpServer::Core::connection_ended(std::uint64_t peer) noexcept {
  --connections_;
  if (options_.max_connections_per_peer == 0) return;
  const std::lock_guard lock(peers_mutex_);
  const auto found = peers_.find(peer);
  if (found != peers_.end() && --found->second == 0) peers_.erase(found);
}

void TcpServer::Core::handler_ended() noexcept {
  ++handlers_ended_;
  --handlers_;
  note_end();
}

void TcpServer::Core::acceptor_ended() noexcept {
  --acceptors_;
  note_end();
}

void TcpServer::Core::note_end() noexcept {
  if (!draining_ || !at_end()) return;
  post_to_base([core = shared_from_this()] {
    if (core->at_end()) core->at_end_.set();
  });
}

void TcpServer::Core::handler_failed(const std::exception_ptr& failure,
                                     std::string_view name) noexcept {
  ++failures_;
  try {
    std::rethrow_exception(failure);
  } catch (const std::system_error& error) {
    const std::error_code code = error.code();
    if (code == std::errc::connection_reset || code == std::errc::broken_pipe ||
        code == std::errc::connection_aborted) {  // any peer may do that, as often as it likes
      log::write(log::Level::info, std::string(name) + ": a connection broke: " + error.what());
      return;
    }
  } catch (...) {
  }
  EventLoop::current().report_failure(failure, ("a handler of " + std::string(name)).c_str());
}

Task<DrainReport> TcpServer::Core::drain(std::shared_ptr<Core> self,
                                         std::chrono::nanoseconds limit) {
  DrainReport report;
  handlers_ended_ = 0;
  draining_ = true;
  at_end_.reset();
  const Shares all = shares();
  for (const auto& share : all) share->loop().call([&] { share->begin_drain(); });
  if (!at_end()) {
    const auto ended = co_await as_tuple(timeout(limit, at_end_.wait()));
    if (ended.error) report.forced = handlers_;
  }
  report.finished = handlers_ended_;
  for (const auto& share : all) {
    if (report.forced > 0) share->loop().call([&] { share->cut_all(); });
  }
  (void)self;
  co_return report;
}

Task<> TcpServer::Core::supervise() {
  const auto first = co_await when_any(signal(SIGINT, SIGTERM), stopped_.wait());
  if (first.index() == 1) co_return;
  log::write(log::Level::info, options_.name + ": draining, a second signal ends at once");
  const auto second =
      co_await when_any(drain(shared_from_this(), to_duration(options_.drain_timeout)),
                        signal(SIGINT, SIGTERM), stopped_.wait());
  if (const DrainReport* report = std::get_if<0>(&second)) {
    log::write(log::Level::info, options_.name + ": drained, " + std::to_string(report->finished) +
                                     " connections finished, " + std::to_string(report->forced) +
                                     " forced");
  } else {
    stop();
  }
}

void TcpServer::Core::run(Handler handler) {
  if (own_loop_ == nullptr) {
    throw std::logic_error("weir: this TcpServer is on a loop that somebody else runs; use start");
  }
  start(std::move(handler));
  own_loop_->run_until_complete(run_to_end());
}

/// While the loop runs, so that whoever calls on it from another thread is answered.
Task<> TcpServer::Core::run_to_end() {
  co_await supervise();
  tear_down();
  const auto answered = std::make_shared<Event>();
  own_loop_->post([answered] { answered->set(); });
  co_await answered->wait();
}

void TcpServer::Core::stop() {
  const auto self = shared_from_this();
  for (const auto& share : shares()) {
    share->post([self, share] {
      if (share->closed()) return;
      share->refuse_all();
      share->cut_all();
    });
  }
  post_to_base([self] { self->stopped_.set(); });
}

void TcpServer::Core::tear_down() {
  const Shares all = shares();
  for (const auto& share : all) {
    if (!share->gone()) share->loop().call([&] { share->tear_down(); });
  }
  if (pool_ != nullptr) pool_->stop();
  const std::lock_guard lock(shares_mutex_);
  shares_.clear();
}

void TcpServer::Core::end() {
  tear_down();
  own_loop_.reset();  // its queue may hold calls that hold us
}

void TcpServer::Core::visit(std::size_t index,
                            const std::shared_ptr<std::function<void(TcpConnection&)>>& function) {
  const Shares all = shares();
  for (; index < all.size(); ++index) {
    const auto& share = all[index];
    if (share->loop().in_loop_thread()) continue;
    const bool posted = share->post([self = shared_from_this(), share, index, function] {
      if (!share->closed()) share->for_each(*function);
      self->visit(index + 1, function);
    });
    if (posted) return;
  }
}

void TcpServer::Core::for_each(std::function<void(TcpConnection&)> function) {
  if (EventLoop::current_or_null() == nullptr) {
    for (const auto& share : shares()) share->visit_and_wait(function);
    return;
  }
  for (const auto& share : shares()) {
    if (share->loop().in_loop_thread()) share->for_each(function);
  }
  visit(0, std::make_shared<std::function<void(TcpConnection&)>>(std::move(function)));
}

TcpServer::TcpServer(ServerOptions options) : core_(std::make_shared<Core>(std::move(options))) {}

TcpServer::TcpServer(EventLoop& loop, ServerOptions options)
    : core_(std::make_shared<Core>(loop, std::move(options))) {}

TcpServer::~TcpServer() { core_->end(); }

void TcpServer::listen() { core_->listen(); }

void TcpServer::run(Handler handler) { core_->run(std::move(handler)); }

void TcpServer::start(Handler handler) { core_->start(std::move(handler)); }

SocketAddress TcpServer::address() const { return core_->address(); }

Task<DrainReport> TcpServer::drain(std::chrono::nanoseconds limit) {
  return core_->drain(core_, limit);
}

int TcpServer::hand_over(const std::vector<std::string>& command) {
  return core_->hand_over(command);
}

void TcpServer::stop() { core_->stop(); }

std::size_t TcpServer::connection_count() const noexcept { return core_->connections(); }

std::uint64_t TcpServer::handler_failures() const noexcept { return core_->failures(); }

std::uint64_t TcpServer::refused() const noexcept { return core_->refused(); }

std::uint64_t TcpServer::shed() const noexcept { return core_->shed(); }

void TcpServer::for_each_connection(std::function<void(TcpConnection&)> function) {
  core_->for_each(std::move(function));
}

EventLoop& TcpServer::loop() const { return core_->base(); }

}  // namespace weir
