#include <weir/core/engine.h>
#include <weir/core/options.h>
#include <weir/io/engine_base.h>
#include <weir/io/engines.h>
#include <weir/io/epoll_records.h>
#include <weir/io/epoll_set.h>
#include <weir/io/kernel_machine.h>
#include <weir/io/kernel_sockets.h>
#include <weir/io/receive_pool.h>
#include <weir/io/sanitizer.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <vector>

namespace weir::detail {
namespace {

using Record = detail::PolledDescriptor;

// Results of one operation before the others have their turn.
constexpr int kReceivesPerTurn = 16;
constexpr int kAcceptsPerTurn = 64;

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

constexpr std::size_t kMostSent = std::size_t{1} << 30;  // a result is 32 bits wide

/// A read that did not fill its buffer took everything, and what comes later makes an event of
/// its own, once epoll watches.
bool took_all(const Record& record, int size, std::size_t room) noexcept {
  return static_cast<std::size_t>(size) < room && !record.more_behind && !record.gives_pieces;
}

// recv(2) and send(2), but no cancellation points (pthreads(7)): those cost some 45 instructions,
// two of them locked, for each call in a process that has threads. A sanitizer wants to see the
// calls.

ssize_t receive_bytes(int fd, void* to, std::size_t size, int flags) noexcept {
#if defined(SYS_recvfrom) && !defined(WEIR_SANITIZED)
  return ::syscall(SYS_recvfrom, fd, to, size, flags, nullptr, nullptr);
#else
  return ::recv(fd, to, size, flags);
#endif
}

ssize_t send_bytes(int fd, const void* from, std::size_t size, int flags) noexcept {
#if defined(SYS_sendto) && !defined(WEIR_SANITIZED)
  return ::syscall(SYS_sendto, fd, from, size, flags, nullptr, 0);
#else
  return ::send(fd, from, size, flags);
#endif
}

ssize_t send_message(int fd, const msghdr& message, int flags) noexcept {
#if defined(SYS_sendmsg) && !defined(WEIR_SANITIZED)
  return ::syscall(SYS_sendmsg, fd, &message, flags);
#else
  return ::sendmsg(fd, &message, flags);
#endif
}

int send_slices(const Operation& operation) noexcept {
  constexpr int kFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
  if (operation.gather.count == 1) {
    const Slice& slice = *operation.gather.slices;
    return checked(send_bytes(operation.fd, slice.data, std::min(slice.size, kMostSent), kFlags));
  }
  msghdr message{};
  message.msg_iov = reinterpret_cast<iovec*>(const_cast<Slice*>(operation.gather.slices));
  message.msg_iovlen = operation.gather.count;
  return checked(send_message(operation.fd, message, kFlags));
}

/// A listener that was made elsewhere may block, and accept4 has no flag against it.
void make_non_blocking(int fd) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) == 0) ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

std::uint32_t awaited(const Operation& operation) noexcept {
  switch (operation.kind) {
    case OperationKind::accept:
    case OperationKind::receive:
    case OperationKind::receive_into:
      return kReadable;
    case OperationKind::send:
      return kWritable;
    case OperationKind::poll:
      // Of what is not watched (POLLRDBAND …) events come with others': each is looked at.
      return (operation.events & ~kWatched) != 0 ? ~0U : operation.events | kBroken;
    case OperationKind::send_now:
    case OperationKind::read_file:
      break;
  }
  return 0;
}

/// Completions out of readiness: every operation is tried first, and waits for an event only if it
/// would block. Reading a file blocks the loop for as long as the disk does: epoll has no answer.
///
/// An operation is in one place at a time: `runnable_` (to be tried), a record's `parked` (waits
/// for an event), `starved_` (there is data, and no buffer), `ended_` (cancelled, to be told so).
class EpollEngine final : public detail::EngineBase<EpollEngine, FreeListPool> {
 public:
  explicit EpollEngine(const LoopOptions& options)
      : EngineBase(new FreeListPool(options.buffer_size, options.buffer_count)) {}

  [[nodiscard]] std::string_view name() const noexcept override { return "epoll"; }

  void attach() override { check_process(); }  // any thread will do

  void abandon() noexcept override {
    abandoned_ = true;
    List<Operation> rest;
    rest.splice_back(runnable_);
    rest.splice_back(starved_);
    rest.splice_back(refused_);
    records_.for_each([&rest](Record& record) { rest.splice_back(record.parked); });
    while (Operation* operation = rest.pop_front()) end(*operation);
  }

  void wake() noexcept override { set_.wake(); }

 private:
  friend EngineBase;

  /// In flight means counted among its record's users; what can have no record is not started.
  void start(Operation& operation) noexcept {
    ++counters_.submitted;
    Record* record = operation.fd < 0 ? nullptr : records_.find_or_make(operation.fd);
    if (record == nullptr) {
      operation.state = Operation::State::ended;
      refused_.push_back(operation);
      return;
    }
    ++record->users;
    run_later(operation);
  }

  void stop(Operation& operation) noexcept {
    ++counters_.cancelled;
    end(operation);  // out of whichever list it is in
    if (operation.kind == OperationKind::poll) let_go_of(operation.fd);
  }

  void exchange(TimePoint deadline) {
    const std::uint64_t before = counters_.completed;
    refuse();
    feed_starved();
    run();
    const bool busy =
        counters_.completed != before || !runnable_.empty() || !ended_.empty() || !refused_.empty();
    ++counters_.waits;
    for (const epoll_event& event : set_.wait(busy ? TimePoint::min() : deadline)) take_in(event);
    run();
  }

  [[nodiscard]] int descriptor(TimePoint) const noexcept { return set_.fd(); }

  void refuse() noexcept {
    List<Operation> refused;
    refused.splice_back(refused_);
    while (Operation* operation = refused.pop_front()) {
      ++counters_.completed;
      EngineBase::finish(*operation, operation->fd < 0 ? -EBADF : -ENOMEM);
    }
  }

  void run_later(Operation& operation) noexcept {
    operation.state = Operation::State::waiting;
    runnable_.push_back(operation);
  }

  /// Tries what can be tried. What comes up meanwhile is left for the next time, so that this ends.
  void run() noexcept {
    List<Operation> running;
    running.splice_back(runnable_);
    while (Operation* operation = running.pop_front()) attempt(*operation, kReceivesPerTurn);
  }

  void attempt(Operation& operation, int receives) noexcept {
    Record& record = *records_.find(operation.fd);
    switch (operation.kind) {
      case OperationKind::accept:
        return accept(operation, record);
      case OperationKind::receive:
        return receive(operation, record, receives);
      case OperationKind::receive_into:
        return receive_into(operation, record);
      case OperationKind::send:
        return send(operation, record);
      case OperationKind::send_now:
        return finish(operation, record, send_slices(operation));
      case OperationKind::poll:
        return poll(operation, record);
      case OperationKind::read_file:
        return finish(operation, record,
                      checked(::pread(operation.fd, operation.file->data, operation.file->size,
                                      static_cast<off_t>(operation.file->offset))));
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
        finish(operation, record, fd);
        return;
      }
      give(operation, fd, nullptr);
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
      const std::uint32_t buffer = pool_->take();
      const int size = checked(
          receive_bytes(operation.fd, pool_->data_of(buffer), pool_->buffer_size(), MSG_DONTWAIT));
      if (size <= 0) {
        pool_->give_back(buffer);
        if (size == -EAGAIN) {
          record.dry = true;
          park(operation, record);
        } else {
          finish(operation, record, size);
        }
        return;
      }
      const bool all = took_all(record, size, pool_->buffer_size());
      record.dry = all && record.watched;
      give(operation, size, &pool_->lend_or_copy(buffer, static_cast<std::size_t>(size)));
      if (operation.state == Operation::State::ended) return;  // cancelled by its own handler
      if (all) {
        park(operation, record);
        return;
      }
    }
    run_later(operation);
  }

  /// No buffer is no reason to miss the end of the stream, and an idle connection needs none.
  [[gnu::noinline]] void receive_without_buffer(Operation& operation, Record& record) noexcept {
    std::byte first;
    const int size = checked(receive_bytes(operation.fd, &first, 1, MSG_PEEK | MSG_DONTWAIT));
    if (size == -EAGAIN) {
      record.dry = true;
      park(operation, record);
    } else if (size <= 0) {
      finish(operation, record, size);
    } else {
      ++counters_.starved;
      operation.state = Operation::State::starved;
      starved_.push_back(operation);
    }
  }

  /// In the order in which they starved, one buffer each; those left over keep their place.
  void feed_starved() noexcept {
    while (!starved_.empty() && pool_->has_free()) attempt(*starved_.pop_front(), 1);
  }

  void receive_into(Operation& operation, Record& record) noexcept {
    if (record.dry) {
      park(operation, record);
      return;
    }
    const int size = checked(
        receive_bytes(operation.fd, operation.into.data, operation.into.size, MSG_DONTWAIT));
    if (size == -EAGAIN) {
      record.dry = true;
      park(operation, record);
      return;
    }
    record.dry = record.watched && size > 0 && took_all(record, size, operation.into.size);
    finish(operation, record, size);
  }

  void send(Operation& operation, Record& record) noexcept {
    const int sent = send_slices(operation);
    if (sent == -EAGAIN) {
      park(operation, record);
    } else {
      finish(operation, record, sent);  // short if the socket is full: the rest is sent later
    }
  }

  void poll(Operation& operation, Record& record) noexcept {
    if (!record.watched) {
      park(operation, record);  // epoll reports at once what holds already
      return;
    }
    const int ready =
        kernel_sockets().look_at(operation.fd, static_cast<std::uint16_t>(operation.events));
    ready == 0 ? park(operation, record) : finish(operation, record, ready);
  }

  /// The operation waits for an event.
  void park(Operation& operation, Record& record) noexcept {
    if (!record.watched) {
      int result = watch(operation, record);
      if (result == -EPERM &&
          operation.kind == OperationKind::poll) {  // a file: for ever, or never
        const auto always = static_cast<int>(operation.events & (POLLIN | POLLOUT));
        if (always != 0) result = always;
      }
      if (result != 0) {
        finish(operation, record, result);
        return;
      }
    }
    operation.state = Operation::State::submitted;
    record.parked.push_back(operation);
  }

  /// Makes epoll watch; it then reports what holds already.
  [[gnu::noinline]] int watch(const Operation& operation, Record& record) noexcept {
    const int fd = operation.fd;
    if (const int result = set_.add(fd, kWatched); result < 0) return result;
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

  void take_in(const epoll_event& event) noexcept {
    if (set_.is_wake(event)) {
      ++counters_.wakes;
      return;
    }
    const auto fd = static_cast<int>(event.data.u64);
    Record* record = records_.find(fd);
    if (record == nullptr || record->users == 0) {
      // Nobody waits, and it may be another loop's by now: do not be woken for it again.
      set_.remove(fd);
      return;
    }
    if ((event.events & kReadable) != 0) record->dry = false;
    if ((event.events & kMoreBehind) != 0) record->more_behind = true;
    for (Operation* operation = record->parked.front(); operation != nullptr;) {
      Operation* next = record->parked.after(*operation);
      if ((event.events & awaited(*operation)) != 0) {
        operation->link.unlink();
        run_later(*operation);
      }
      operation = next;
    }
  }

  void give(Operation& operation, int result, Buffer* buffer) noexcept {
    ++counters_.completed;
    deliver(operation, result, buffer);
  }

  /// What was cancelled: after the end of the engine there may be no record of it.
  void finish(Operation& operation, int result) noexcept {
    if (Record* record = records_.find(operation.fd)) return finish(operation, *record, result);
    ++counters_.completed;
    EngineBase::finish(operation, result);
  }
  [[gnu::always_inline]] void finish(Operation& operation, Record& record, int result) noexcept {
    ++counters_.completed;
    if (abandoned_ || operation.kind == OperationKind::poll) [[unlikely]] {
      finish_aside(operation, result);
      return;
    }
    --record.users;
    // Left without an operation, the descriptor may be closed by the handler, which may get the
    // same number for a new one (a connect's next attempt) and submit again. A receive alone that
    // gave something is followed by the next on the same socket, or by none.
    const bool receives =
        operation.kind == OperationKind::receive || operation.kind == OperationKind::receive_into;
    const bool goes_on = receives && (result > 0 || result == -ECANCELED);
    if (record.users == 0 && !goes_on) record.forget();
    EngineBase::finish(operation, result);
    if (record.users == 0) record.forget();
  }

  /// A poll, or any when the records are history.
  [[gnu::noinline, gnu::cold]] void finish_aside(Operation& operation, int result) noexcept {
    if (!abandoned_ && !operation.cancel_wanted) let_go_of(operation.fd);
    EngineBase::finish(operation, result);
  }

  /// Of a poll: whoever had it may close the descriptor, whose file may live on elsewhere.
  void let_go_of(int fd) noexcept {
    Record& record = *records_.find(fd);
    if (--record.users > 0) return;
    if (record.watched && process_ == ::getpid()) set_.remove(fd);
    record.forget();
  }

  EpollSet set_;
  detail::PolledDescriptors records_;

  List<Operation> runnable_;
  List<Operation> starved_;
  List<Operation> refused_;
};

}  // namespace

std::unique_ptr<IoEngine> make_epoll_engine(const LoopOptions& options) {
  return std::make_unique<EpollEngine>(options);
}

}  // namespace weir::detail
