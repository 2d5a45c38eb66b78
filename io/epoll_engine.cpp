#include <weir/core/engine.h>
#include <weir/core/metrics.h>
#include <weir/core/options.h>
#include <weir/io/engines.h>
#include <weir/io/kernel_sockets.h>
#include <weir/io/receive_pool.h>
#include <weir/io/sanitizer.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <ctime>
#include <system_error>
#include <vector>

namespace weir {
namespace {

// Results of one operation before the others have their turn.
constexpr int kReceivesPerTurn = 16;
constexpr int kAcceptsPerTurn = 64;
constexpr int kEventsPerWait = 256;
constexpr std::size_t kFirstBuffers = 64;

// Everything, edge-triggered and once for each descriptor: an event says what holds by then, and
// spares two calls of epoll_ctl for each change of mind. PRI because a read stops at urgent data.
constexpr std::uint32_t kWatched = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
constexpr std::uint32_t kBroken = EPOLLHUP | EPOLLERR;
constexpr std::uint32_t kReadable = EPOLLIN | EPOLLRDHUP | EPOLLPRI | kBroken;
constexpr std::uint32_t kWritable = EPOLLOUT | kBroken;
/// Something may stand behind what one read gave, although that read did not fill its buffer.
constexpr std::uint32_t kMoreBehind = EPOLLRDHUP | EPOLLPRI | kBroken;

static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLPRI == POLLPRI &&
              EPOLLERR == POLLERR && EPOLLHUP == POLLHUP && EPOLLRDHUP == 0x2000);
static_assert(sizeof(Slice) == sizeof(iovec) && offsetof(Slice, size) == offsetof(iovec, iov_len));

/// The receive buffers as a stack: the one that came back last is still in the cache.
class StackPool final : public ReceivePool {
 public:
  StackPool(std::size_t buffer_size, std::size_t most) : ReceivePool(buffer_size, most) {
    free_.reserve(most);
  }

  /// Whether there is a free buffer; makes more if there is none, as many again as there are.
  [[nodiscard]] bool has_free() noexcept {
    if (!free_.empty()) return true;
    const auto first = static_cast<std::uint32_t>(made());
    const std::size_t added = grow(std::max(kFirstBuffers, made()));
    for (auto id = static_cast<std::uint32_t>(first + added); id > first;) free_.push_back(--id);
    return added > 0;
  }

  /// The free buffer to receive into next. It stays free until it is taken.
  [[nodiscard]] std::byte* next() const noexcept {
    std::byte* data = data_of(free_.back());
    unpoison(data, buffer_size());
    return data;
  }
  Buffer& take(std::size_t used) noexcept {
    const std::uint32_t id = free_.back();
    free_.pop_back();
    return lend_or_copy(id, used);
  }
  void leave() const noexcept { poison(data_of(free_.back()), buffer_size()); }

  void release(Buffer& buffer) noexcept override {
    if (returned(buffer)) free_.push_back(buffer.id());  // there is room for all
  }

 private:
  ~StackPool() override = default;

  std::vector<std::uint32_t> free_;
};

struct Retire {
  void operator()(StackPool* pool) const noexcept { pool->retire(); }
};

/// What the engine knows of one descriptor.
///
/// Nobody tells it of a close: another loop may close a descriptor, and yet another may get its
/// number. So the record holds only as long as an operation is in flight, which forbids a close.
struct Record {
  List<Operation> parked;     // wait for an event
  std::uint32_t users = 0;    // operations in flight
  bool watched = false;       // epoll has it
  bool dry = false;           // everything was read; an event will say when there is more
  bool more_behind = false;   // read to the end, whatever a short read seems to say
  bool gives_pieces = false;  // a short read says nothing: the peer's pieces are kept apart

  void forget() noexcept { watched = dry = more_behind = gives_pieces = false; }
};

/// The records by descriptor. They stay where they are.
class RecordTable {
 public:
  [[nodiscard]] Record* find(int fd) const noexcept {
    const std::size_t chunk = static_cast<std::size_t>(fd) / kChunk;
    if (chunk >= chunks_.size() || chunks_[chunk] == nullptr) return nullptr;
    return &(*chunks_[chunk])[static_cast<std::size_t>(fd) % kChunk];
  }

  /// nullptr where there is no memory.
  [[nodiscard]] Record* find_or_make(int fd) noexcept {
    if (Record* record = find(fd)) return record;
    const std::size_t chunk = static_cast<std::size_t>(fd) / kChunk;
    try {
      if (chunk >= chunks_.size()) chunks_.resize(chunk + 1);
      chunks_[chunk] = std::make_unique<Chunk>();
    } catch (...) {
      return nullptr;
    }
    return find(fd);
  }

  template <class Function>
  void for_each(Function function) {
    for (const auto& chunk : chunks_) {
      if (chunk == nullptr) continue;
      for (Record& record : *chunk) function(record);
    }
  }

 private:
  static constexpr std::size_t kChunk = 256;
  using Chunk = std::array<Record, kChunk>;

  std::vector<std::unique_ptr<Chunk>> chunks_;
};

/// Completions out of readiness: every operation is tried first, and waits for an event only if it
/// would block. Reading a file blocks the loop for as long as the disk does: epoll has no answer.
///
/// An operation is in one place at a time: `runnable_` (to be tried), a record's `parked` (waits
/// for an event), `starved_` (there is data, and no buffer), `ended_` (cancelled, to be told so).
class EpollEngine final : public IoEngine {
 public:
  EpollEngine(int epoll_fd, int wake_fd, std::unique_ptr<StackPool, Retire> pool)
      : epoll_fd_(epoll_fd), wake_fd_(wake_fd), pool_(std::move(pool)) {}

  ~EpollEngine() override {
    ::close(epoll_fd_);
    ::close(wake_fd_);
  }

  [[nodiscard]] std::string_view name() const noexcept override { return "epoll"; }
  [[nodiscard]] TimePoint now() noexcept override { return kernel_now(); }
  [[nodiscard]] std::uint64_t random() noexcept override { return random_.next(); }
  [[nodiscard]] Sockets& sockets() noexcept override { return kernel_sockets(); }
  [[nodiscard]] bool idle() const noexcept override { return in_flight_ == 0; }

  void attach() override {}  // any thread will do

  void abandon() noexcept override {
    abandoned_ = true;
    List<Operation> rest;
    rest.splice_back(runnable_);
    rest.splice_back(starved_);
    records_.for_each([&rest](Record& record) { rest.splice_back(record.parked); });
    while (Operation* operation = rest.pop_front()) end(*operation);
  }

  void submit(Operation& operation) noexcept override {
    WEIR_ASSERT(!operation.in_flight());
    operation.cancel_wanted = false;
    operation.generation = kUncounted;
    ++in_flight_;
    ++submissions_;
    if (abandoned_) {
      end(operation);
      return;
    }
    if (operation.fd >= 0) {
      if (Record* record = records_.find_or_make(operation.fd)) count(operation, *record);
    }
    run_later(operation);
  }

  void cancel(Operation& operation) noexcept override {
    if (!operation.in_flight() || operation.cancel_wanted) return;
    operation.cancel_wanted = true;
    if (operation.state == Operation::State::ended) return;
    ++cancels_;
    end(operation);  // out of whichever list it is in
  }

  void wait(TimePoint deadline) override {
    if (!abandoned_) {
      const std::uint64_t before = completions_;
      feed_starved();
      run();
      const bool busy = completions_ != before || !runnable_.empty() || !ended_.empty() ||
                        (!starved_.empty() && pool_->has_free());
      const int count = look(busy ? TimePoint::min() : deadline);
      for (int i = 0; i < count; ++i) take_in(events_[static_cast<std::size_t>(i)]);
      run();
    }
    deliver_ended();
  }

  void wake() noexcept override {
    const std::uint64_t one = 1;
    // Edge-triggered, so every write is an event and nobody needs to read the counter, which would
    // take centuries to be full.
    [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
  }

  void add_metrics(Metrics& metrics) const noexcept override {
    metrics.waits += waits_;
    metrics.submitted += submissions_;
    metrics.completed += completions_;
    metrics.cancelled += cancels_;
    metrics.wakes += wakes_;
    metrics.starved += starvations_;
    metrics.buffers += pool_->made();
    metrics.buffers_leased += pool_->leased();
  }

  static constexpr std::uint64_t kWakeTag = ~std::uint64_t{0};

 private:
  // `Operation::generation`: whether its record counts it among its users.
  static constexpr std::uint16_t kUncounted = 0;
  static constexpr std::uint16_t kCounted = 1;

  static void count(Operation& operation, Record& record) noexcept {
    ++record.users;
    operation.generation = kCounted;
  }

  void run_later(Operation& operation) noexcept {
    operation.state = Operation::State::waiting;
    runnable_.push_back(operation);
  }

  void end(Operation& operation) noexcept {
    operation.state = Operation::State::ended;
    ended_.push_back(operation);
  }

  /// Tries what can be tried. What comes up meanwhile is left for the next time, so that this ends.
  void run() noexcept {
    List<Operation> running;
    running.splice_back(runnable_);
    while (Operation* operation = running.pop_front()) attempt(*operation, kReceivesPerTurn);
  }

  void attempt(Operation& operation, int receives) noexcept {
    if (operation.fd < 0) {
      finish(operation, nullptr, -EBADF);
      return;
    }
    Record* record = records_.find_or_make(operation.fd);
    if (record == nullptr) {
      finish(operation, nullptr, -ENOMEM);
      return;
    }
    if (operation.generation == kUncounted) count(operation, *record);
    switch (operation.kind) {
      case OperationKind::accept:
        accept(operation, *record);
        break;
      case OperationKind::receive:
        receive(operation, *record, receives);
        break;
      case OperationKind::receive_into:
        receive_into(operation, *record);
        break;
      case OperationKind::send:
        send(operation, *record);
        break;
      case OperationKind::poll:
        poll(operation, *record);
        break;
      case OperationKind::read_file:
        finish(operation, record,
               checked(::pread(operation.fd, operation.data, operation.size,
                               static_cast<off_t>(operation.offset))));
        break;
    }
  }

  void accept(Operation& operation, Record& record) noexcept {
    if (!record.watched) make_non_blocking(operation.fd);
    for (int i = 0; i < kAcceptsPerTurn; ++i) {
      // No address: whoever wants it asks for it (getpeername).
      const int fd =
          checked(::accept4(operation.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (fd == -EAGAIN) {
        park(operation, record);
        return;
      }
      if (fd < 0) {
        finish(operation, &record, fd);
        return;
      }
      deliver(operation, {fd, true, nullptr});
      if (operation.state == Operation::State::ended) return;  // cancelled by its own handler
    }
    run_later(operation);
  }

  void receive(Operation& operation, Record& record, int receives) noexcept {
    if (record.dry) {
      park(operation, record);
      return;
    }
    for (int i = 0; i < receives; ++i) {
      // Whoever waits for a buffer gets it before those who come now.
      const bool in_turn = starved_.empty() || receives == 1;
      if (!in_turn || !pool_->has_free()) {
        receive_without_buffer(operation, record);
        return;
      }
      const int size =
          checked(::recv(operation.fd, pool_->next(), pool_->buffer_size(), MSG_DONTWAIT));
      if (size <= 0) {
        pool_->leave();
        if (size == -EAGAIN) {
          record.dry = true;
          park(operation, record);
        } else {
          finish(operation, &record, size);
        }
        return;
      }
      const bool all = took_all(record, size, pool_->buffer_size());
      record.dry = all && record.watched;
      deliver(operation, {size, true, &pool_->take(static_cast<std::size_t>(size))});
      if (operation.state == Operation::State::ended) return;  // cancelled by its own handler
      if (all) {
        park(operation, record);
        return;
      }
    }
    run_later(operation);
  }

  /// No buffer is no reason to miss the end of the stream, and an idle connection needs none.
  void receive_without_buffer(Operation& operation, Record& record) noexcept {
    std::byte first;
    const int size = checked(::recv(operation.fd, &first, 1, MSG_PEEK | MSG_DONTWAIT));
    if (size == -EAGAIN) {
      record.dry = true;
      park(operation, record);
    } else if (size <= 0) {
      finish(operation, &record, size);
    } else {
      ++starvations_;
      operation.state = Operation::State::starved;
      starved_.push_back(operation);
    }
  }

  void feed_starved() noexcept {
    if (starved_.empty()) return;
    List<Operation> hungry;
    hungry.splice_back(starved_);
    // In the order in which they starved, one buffer each; those left over keep their place.
    while (!hungry.empty() && pool_->has_free()) attempt(*hungry.pop_front(), 1);
    hungry.splice_back(starved_);
    starved_.splice_back(hungry);
  }

  void receive_into(Operation& operation, Record& record) noexcept {
    if (record.dry) {
      park(operation, record);
      return;
    }
    const int size = checked(::recv(operation.fd, operation.data, operation.size, MSG_DONTWAIT));
    if (size == -EAGAIN) {
      record.dry = true;
      park(operation, record);
      return;
    }
    record.dry = record.watched && size > 0 && took_all(record, size, operation.size);
    finish(operation, &record, size);
  }

  /// A read that did not fill its buffer took everything, and what comes later makes an event of
  /// its own, once epoll watches.
  static bool took_all(const Record& record, int size, std::size_t room) noexcept {
    return static_cast<std::size_t>(size) < room && !record.more_behind && !record.gives_pieces;
  }

  void send(Operation& operation, Record& record) noexcept {
    constexpr int kFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
    int sent = 0;
    if (operation.size == 1) {
      const Slice& slice = *operation.slices;
      sent = checked(::send(operation.fd, slice.data, std::min(slice.size, kMostSent), kFlags));
    } else {
      msghdr message{};
      message.msg_iov = reinterpret_cast<iovec*>(const_cast<Slice*>(operation.slices));
      message.msg_iovlen = operation.size;
      sent = checked(::sendmsg(operation.fd, &message, kFlags));
    }
    if (sent == -EAGAIN) {
      park(operation, record);
    } else {
      finish(operation, &record, sent);  // short if the socket is full: the rest is sent later
    }
  }

  void poll(Operation& operation, Record& record) noexcept {
    if (!record.watched) {
      park(operation, record);  // epoll reports at once what holds already
      return;
    }
    pollfd asked{operation.fd, static_cast<short>(operation.events), 0};
    const int ready = checked(::poll(&asked, 1, 0));
    if (ready < 0) {
      finish(operation, &record, ready);
    } else if (ready > 0) {
      finish(operation, &record, static_cast<std::uint16_t>(asked.revents));
    } else {
      park(operation, record);
    }
  }

  /// The operation waits for an event.
  void park(Operation& operation, Record& record) noexcept {
    if (!record.watched) {
      const int result = watch(operation, record);
      if (result == -EPERM && operation.kind == OperationKind::poll) {
        finish(operation, &record, static_cast<int>(operation.events & (POLLIN | POLLOUT)));
        return;  // a file: always ready
      }
      if (result < 0) {
        finish(operation, &record, result);
        return;
      }
    }
    operation.state = Operation::State::submitted;
    record.parked.push_back(operation);
  }

  /// Makes epoll watch; it then reports what holds already.
  int watch(const Operation& operation, Record& record) noexcept {
    const int fd = operation.fd;
    int result = control(EPOLL_CTL_ADD, fd);
    if (result == -EEXIST) result = control(EPOLL_CTL_MOD, fd);
    if (result < 0) return result;
    record.watched = true;
    record.dry = false;
    if (operation.kind == OperationKind::receive || operation.kind == OperationKind::receive_into) {
      int domain = AF_INET;
      socklen_t size = sizeof domain;
      (void)::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
      record.gives_pieces = domain == AF_UNIX;  // a read stops where a descriptor was passed
    }
    return 0;
  }

  int control(int what, int fd) const noexcept {
    epoll_event event{};
    event.events = kWatched;
    event.data.u64 = static_cast<std::uint64_t>(fd);
    return checked(::epoll_ctl(epoll_fd_, what, fd, &event));
  }

  /// Waits for events; gives how many.
  int look(TimePoint deadline) {
    ++waits_;
    int count = 0;
    if (deadline == TimePoint::min() || deadline == TimePoint::max()) {
      const int timeout = deadline == TimePoint::max() ? -1 : 0;
      count = checked(::epoll_wait(epoll_fd_, events_.data(), kEventsPerWait, timeout));
    } else {
      count = look_for(std::max<std::int64_t>(0, (deadline - kernel_now()).count()));
    }
    if (count < 0 && count != -EINTR) {
      throw std::system_error(-count, std::generic_category(), "weir: epoll_wait");
    }
    return std::max(count, 0);
  }

  int look_for(std::int64_t nanoseconds) noexcept {
#ifdef SYS_epoll_pwait2
    if (has_pwait2_) {
      const timespec timeout{nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
      const int count = checked(::syscall(SYS_epoll_pwait2, epoll_fd_, events_.data(),
                                          kEventsPerWait, &timeout, nullptr, 0));
      if (count != -ENOSYS && count != -EPERM) return count;
      has_pwait2_ = false;  // before Linux 5.11, or kept from us by a seccomp filter
    }
#endif
    constexpr std::int64_t kMost = std::int64_t{24} * 3600 * 1000;
    const std::int64_t milliseconds = std::min(nanoseconds / 1'000'000, kMost) + 1;
    return checked(::epoll_wait(epoll_fd_, events_.data(), kEventsPerWait,
                                nanoseconds == 0 ? 0 : static_cast<int>(milliseconds)));
  }

  void take_in(const epoll_event& event) noexcept {
    if (event.data.u64 == kWakeTag) {
      ++wakes_;
      return;
    }
    const auto fd = static_cast<int>(event.data.u64);
    Record* record = records_.find(fd);
    if (record == nullptr || record->users == 0) {
      // Nobody waits, and it may be another loop's by now: do not be woken for it again.
      (void)control(EPOLL_CTL_DEL, fd);
      return;
    }
    if ((event.events & kReadable) != 0) record->dry = false;
    if ((event.events & kMoreBehind) != 0) record->more_behind = true;
    for (Operation* operation = record->parked.front(); operation != nullptr;) {
      Operation* next = record->parked.after(*operation);
      if ((event.events & awaited(*operation)) != 0) {
        operation->unlink();
        run_later(*operation);
      }
      operation = next;
    }
  }

  static std::uint32_t awaited(const Operation& operation) noexcept {
    switch (operation.kind) {
      case OperationKind::accept:
      case OperationKind::receive:
      case OperationKind::receive_into:
        return kReadable;
      case OperationKind::send:
        return kWritable;
      case OperationKind::poll:
        return operation.events | kBroken;
      case OperationKind::read_file:
        break;
    }
    return 0;
  }

  void deliver(Operation& operation, const Completion& completion) noexcept {
    ++completions_;
    operation.on_complete(operation, completion);
  }

  /// The last completion: the operation is its owner's again, and may be gone after it.
  void finish(Operation& operation, Record* record, int result) noexcept {
    --in_flight_;
    operation.state = Operation::State::idle;
    if (operation.generation == kCounted) --record->users;
    // Left without an operation, the descriptor may be closed by the handler, which may get the
    // same number for a new one (a connect's next attempt) and submit again. A receive alone that
    // gave something is followed by the next on the same socket, or by none.
    const bool receives =
        operation.kind == OperationKind::receive || operation.kind == OperationKind::receive_into;
    const bool goes_on = receives && (result > 0 || result == -ECANCELED);
    if (record != nullptr && record->users == 0 && !goes_on) record->forget();
    deliver(operation, {result, false, nullptr});
    if (record != nullptr && record->users == 0) record->forget();
  }

  void deliver_ended() noexcept {
    List<Operation> ended;
    ended.splice_back(ended_);
    while (Operation* operation = ended.pop_front()) {
      const bool counted = operation->generation == kCounted;
      finish(*operation, counted ? records_.find(operation->fd) : nullptr, -ECANCELED);
    }
  }

  /// What a system call gave, with -errno for an error.
  template <class Result>
  static int checked(Result result) noexcept {
    return result < 0 ? -errno : static_cast<int>(result);
  }

  /// A listener that was made elsewhere may block, and accept4 has no flag against it.
  static void make_non_blocking(int fd) noexcept {
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags >= 0 && (flags & O_NONBLOCK) == 0) ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  }

  static constexpr std::size_t kMostSent = std::size_t{1} << 30;  // a result is 32 bits wide

  int epoll_fd_;
  int wake_fd_;
  bool abandoned_ = false;
  bool has_pwait2_ = true;
  std::unique_ptr<StackPool, Retire> pool_;
  RecordTable records_;
  std::array<epoll_event, kEventsPerWait> events_;

  List<Operation> runnable_;
  List<Operation> starved_;
  List<Operation> ended_;

  RandomSource random_;
  std::size_t in_flight_ = 0;
  std::uint64_t waits_ = 0;
  std::uint64_t submissions_ = 0;
  std::uint64_t completions_ = 0;
  std::uint64_t cancels_ = 0;
  std::uint64_t wakes_ = 0;
  std::uint64_t starvations_ = 0;
};

}  // namespace

std::unique_ptr<IoEngine> make_epoll_engine(const LoopOptions& options) {
  struct Descriptor {
    int fd;
    ~Descriptor() {
      if (fd >= 0) ::close(fd);
    }
  };
  const auto refuse_if = [](bool failed) {
    if (!failed) return;
    throw std::system_error(errno, std::generic_category(),
                            errno == EMFILE || errno == ENFILE
                                ? "weir: no descriptor is left for an event loop; raise "
                                  "RLIMIT_NOFILE (ulimit -n, LimitNOFILE=)"
                                : "weir: epoll cannot be set up");
  };
  Descriptor epoll{::epoll_create1(EPOLL_CLOEXEC)};
  refuse_if(epoll.fd < 0);
  Descriptor wake{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  refuse_if(wake.fd < 0);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = EpollEngine::kWakeTag;
  refuse_if(::epoll_ctl(epoll.fd, EPOLL_CTL_ADD, wake.fd, &event) < 0);
  std::unique_ptr<StackPool, Retire> pool(new StackPool(options.buffer_size, options.buffer_count));
  auto engine = std::make_unique<EpollEngine>(epoll.fd, wake.fd, std::move(pool));
  epoll.fd = wake.fd = -1;
  return engine;
}

}  // namespace weir
