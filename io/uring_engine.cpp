#include <weir/core/engine.h>
#include <weir/core/options.h>
#include <weir/io/engine_base.h>
#include <weir/io/engines.h>
#include <weir/io/kernel_machine.h>
#include <weir/io/receive_pool.h>
#include <weir/io/sanitizer.h>
#include <weir/io/uring_ring.h>
#include <weir/io/uring_signal.h>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace weir::detail {
namespace {

using detail::Ring;
using detail::RingPool;

constexpr unsigned kLeastEntries = 8;
constexpr unsigned kCompletionsPerEntry = 8;
/// Bytes of receive buffers that cost less than receives which find none.
constexpr std::size_t kCheapBuffers = 4 << 20;

static_assert(sizeof(Slice) == sizeof(iovec) && offsetof(Slice, size) == offsetof(iovec, iov_len));

/// What a completion belongs to: the lowest bits of `user_data`. An operation's address leaves
/// them free, and its highest 16 bits for the generation.
enum Tag : std::uint64_t { kOperation = 0, kCancel = 1, kWake = 2, kTagMask = 7 };

std::uint64_t user_data_of(const Operation& operation) noexcept {
  return reinterpret_cast<std::uintptr_t>(&operation) |
         (static_cast<std::uint64_t>(operation.generation) << 48);
}

/// The flags we would like, the most dispensable last: each is given up in turn on -EINVAL.
constexpr unsigned kNeeded = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL |
                             IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
                             IORING_SETUP_TASKRUN_FLAG;
constexpr unsigned kWanted[] = {
    IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_NO_SQARRAY,  // 6.6
    IORING_SETUP_DEFER_TASKRUN,                            // 6.1
    IORING_SETUP_COOP_TASKRUN,                             // 6.0
};
static_assert(std::size(kWanted) == kUringSetups);

class UringEngine final : public detail::EngineBase<UringEngine, RingPool> {
 public:
  explicit UringEngine(const LoopOptions& options)
      : EngineBase(new RingPool(options.buffer_size, options.buffer_count)) {}

  ~UringEngine() override {
    close_ring();
    if (wake_fd_ >= 0) ::close(wake_fd_);
  }

  /// 0, or -errno if this machine does not let us have what we need. Throws where no descriptor is
  /// left.
  int open(unsigned entries, std::size_t first_setup) {
    if (const int opened = open_ring(entries, first_setup); opened < 0) return opened;
    if (const int lacking = check_abilities(); lacking < 0) return lacking;
    if (const int registered = pool_->register_with(ring_); registered < 0) return registered;
    wake_fd_ = ::eventfd(0, EFD_CLOEXEC);
    if (wake_fd_ < 0) refuse_engine(errno, "weir: eventfd for an event loop");
    messages_.resize(ring_.size());
    pool_->grow_more();
    return 0;
  }

  [[nodiscard]] std::string_view name() const noexcept override { return "io_uring"; }

  void attach() override {
    check_process();
    const std::thread::id here = std::this_thread::get_id();
    if (attached_) {
      if (thread_ != here) {
        throw std::logic_error(
            "weir: this event loop ran on another thread before; io_uring ties it to that thread. "
            "Run it there, or make a loop for this thread");
      }
      ring_.register_with_thread();
      return;
    }
    if (const int enabled = ring_.enable(); enabled < 0) {
      throw std::system_error(-enabled, std::generic_category(), "weir: io_uring cannot start");
    }
    thread_ = here;
    attached_ = true;
    ring_.register_with_thread();
    arm_wake();
  }

  void detach() noexcept override {
    if (!attached_ || thread_ != std::this_thread::get_id() || process_ != ::getpid()) return;
    try {
      while (reads_file()) {
        hand_over(TimePoint::max());
        take_in();
      }
    } catch (const std::system_error&) {  // nothing is to be had of this ring any more
    }
    ring_.unregister_with_thread();
  }

  void abandon() noexcept override {
    abandoned_ = true;
    close_ring();
    List<Operation> rest;
    rest.splice_back(known_);
    rest.splice_back(waiting_);
    rest.splice_back(cancelling_);
    rest.splice_back(cancelled_);
    rest.splice_back(starved_);
    while (Operation* operation = rest.pop_front()) {
      if (operation->in_flight()) end(*operation);
    }
  }

  void wake() noexcept override {
    const std::uint64_t one = 1;
    // It fails only if the counter is full, and then the loop is being woken already.
    [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
    signal_.set();  // which that write would bring about once only
  }

 private:
  friend EngineBase;

  static constexpr int kSendFlags = MSG_NOSIGNAL | MSG_WAITALL;
  static constexpr std::size_t kMostSent = std::size_t{1} << 30;  // a length is 32 bits wide

  /// The first of `kWanted` that this kernel knows, and as many entries as may be locked.
  int open_ring(unsigned entries, std::size_t first_setup) {
    int result = -EINVAL;
    for (; first_setup < std::size(kWanted) && result == -EINVAL; ++first_setup) {
      for (unsigned size = entries; size >= kLeastEntries || size == entries; size /= 2) {
        io_uring_params params{};
        params.flags = kNeeded | kWanted[first_setup];
        params.cq_entries = size * kCompletionsPerEntry;
        result = ring_.open(size, params);
        if (result != -ENOMEM) break;
      }
    }
    if (result == -EMFILE || result == -ENFILE) refuse_engine(-result, "");
    return result == -EINVAL ? -EOPNOTSUPP : result;
  }

  /// Whether everything is there, and every system call allowed: 0 or -errno.
  int check_abilities() noexcept {
    // A ring that is not enabled answers -EBADFD; a seccomp filter speaks before the kernel does.
    const int entered = ring_.enter(0, 0, nullptr);
    if (entered == -EPERM || entered == -ENOSYS || entered == -EACCES) return entered;
    // OP_SEND_ZC came with multishot receive (6.0), which has no mark of its own.
    constexpr unsigned kOperations = IORING_OP_SEND_ZC + 1;
    alignas(io_uring_probe)
        std::byte memory[sizeof(io_uring_probe) + kOperations * sizeof(io_uring_probe_op)] = {};
    auto* probe = reinterpret_cast<io_uring_probe*>(memory);
    const int probed = ring_.register_call(IORING_REGISTER_PROBE, probe, kOperations);
    if (probed < 0) return probed == -EINVAL ? -EOPNOTSUPP : probed;
    return io_uring_opcode_supported(probe, IORING_OP_SEND_ZC) != 0 ? 0 : -EOPNOTSUPP;
  }

  /// Nothing that the kernel may write to is freed before the ring is gone.
  void close_ring() noexcept {
    detach();
    ring_.close();
  }

  /// A read of a file that a kernel thread has begun goes on when the ring is closed: it writes to
  /// memory that nobody would know of. All else waits for a socket, and then ends with the ring.
  [[nodiscard]] bool reads_file() const noexcept {
    for (const List<Operation>* list : {&known_, &cancelling_, &cancelled_}) {
      for (Operation* operation = list->front(); operation != nullptr;
           operation = list->after(*operation)) {
        if (operation->kind == OperationKind::read_file &&
            operation->state == Operation::State::submitted) {
          return true;
        }
      }
    }
    return false;
  }

  void start(Operation& operation) noexcept {
    operation.state = Operation::State::waiting;
    waiting_.push_back(operation);
  }

  void stop(Operation& operation) noexcept {
    if (operation.state == Operation::State::submitted) {
      ++counters_.cancelled;
      cancelling_.push_back(operation);  // linked through the target: this cannot fail
    } else {
      end(operation);
    }
  }

  void prepare(io_uring_sqe& sqe, Operation& operation) noexcept {
    if (operation.kind == OperationKind::send && operation.gather.count == 1) [[likely]] {
      const Slice& slice = *operation.gather.slices;
      check_lent(slice.data, slice.size);
      io_uring_prep_send(&sqe, operation.fd, slice.data, std::min(slice.size, kMostSent),
                         kSendFlags);
    } else {
      prepare_other(sqe, operation);
    }
    io_uring_sqe_set_data64(&sqe, user_data_of(operation));
    operation.state = Operation::State::submitted;
  }

  [[gnu::noinline]] void prepare_other(io_uring_sqe& sqe, const Operation& operation) noexcept {
    switch (operation.kind) {
      case OperationKind::accept:
        // No address: the kernel would write every client's to the same place.
        io_uring_prep_multishot_accept(&sqe, operation.fd, nullptr, nullptr,
                                       SOCK_NONBLOCK | SOCK_CLOEXEC);
        break;
      case OperationKind::receive:
        io_uring_prep_recv(&sqe, operation.fd, nullptr, 0, 0);
        if (!operation.one_result) sqe.ioprio |= IORING_RECV_MULTISHOT;
        sqe.flags |= IOSQE_BUFFER_SELECT;
        sqe.buf_group = RingPool::kGroup;
        break;
      case OperationKind::receive_into:
        check_lent(operation.into.data, operation.into.size);
        io_uring_prep_recv(&sqe, operation.fd, operation.into.data, operation.into.size, 0);
        break;
      case OperationKind::send:
        prepare_gathered(sqe, operation);
        break;
      case OperationKind::send_now: {
        const Slice& slice = *operation.gather.slices;
        check_lent(slice.data, slice.size);
        io_uring_prep_send(&sqe, operation.fd, slice.data, std::min(slice.size, kMostSent),
                           MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
      }
      case OperationKind::poll:
        polls_ = true;
        prepare_poll(sqe, operation);
        break;
      case OperationKind::read_file:
        check_lent(operation.file->data, operation.file->size);
        io_uring_prep_read(&sqe, operation.fd, operation.file->data, operation.file->size,
                           operation.file->offset);
        break;
    }
  }

  static void prepare_poll(io_uring_sqe& sqe, const Operation& operation) noexcept {
    const std::uint32_t events = operation.events;
    if ((events & Operation::kChanges) == 0) {
      io_uring_prep_poll_add(&sqe, operation.fd, events);
      return;
    }
    // What errors wake is told of only if it was asked for; and POLLPRI is never what wakes
    // (io_poll_wake), but sockets tell of POLLRDBAND at the same time.
    const std::uint32_t urgent = (events & POLLPRI) != 0 ? POLLRDBAND : 0;
    io_uring_prep_poll_multishot(&sqe, operation.fd,
                                 (events & ~Operation::kChanges) | urgent | POLLERR | POLLHUP);
  }

  void prepare_gathered(io_uring_sqe& sqe, const Operation& operation) noexcept {
    const Operation::Gather& gather = operation.gather;
    for (const Slice& slice : std::span(gather.slices, gather.count)) {
      check_lent(slice.data, slice.size);
    }
    // The kernel copies the header when it takes the entry (IORING_FEAT_SUBMIT_STABLE).
    msghdr& message = messages_[ring_.index_of(sqe)];
    message = {};
    message.msg_iov = reinterpret_cast<iovec*>(const_cast<Slice*>(gather.slices));
    message.msg_iovlen = gather.count;
    io_uring_prep_sendmsg(&sqe, operation.fd, &message, kSendFlags);
  }

  /// Cancels first, then what waits for room: as much as the queue takes. True if all went in.
  bool fill() noexcept {
    unsigned room = ring_.room();
    for (; !cancelling_.empty(); --room) {
      if (room == 0) return false;
      Operation& target = *cancelling_.front();
      io_uring_sqe& sqe = ring_.push();
      io_uring_prep_cancel64(&sqe, user_data_of(target), 0);
      sqe.flags |= IOSQE_CQE_SKIP_SUCCESS;
      io_uring_sqe_set_data64(&sqe, kCancel);
      cancelled_.push_back(target);
    }
    if (rearm_wake_) {
      if (room == 0) return false;
      arm_wake();
      --room;
    }
    return fill_with_waiting(room);
  }

  bool fill_with_waiting(unsigned room) noexcept {
    const unsigned before = room;
    Operation* operation = waiting_.front();
    for (; operation != nullptr && room > 0; --room) {
      prepare(ring_.push(), *operation);
      operation = waiting_.after(*operation);
    }
    counters_.submitted += before - room;
    if (operation == nullptr) {
      known_.splice_back(waiting_);
      return true;
    }
    while (waiting_.front() != operation) known_.push_back(*waiting_.front());
    return false;
  }

  [[nodiscard]] int descriptor(TimePoint deadline) noexcept {
    return deadline == TimePoint::min() ? signal_.reset(ring_, polls_) : signal_.get();
  }

  void exchange(TimePoint deadline) {
    feed_starved();
    pool_->publish();
    hand_over(deadline);
    take_in();
  }

  /// Submits, and waits unless there is something to take in already.
  void hand_over(TimePoint deadline) {
    bool all = fill();
    unsigned pending = ring_.publish();
    while (!all) {  // the queue is full: never sleep on what the kernel has not seen
      if (enter(pending, 0, TimePoint::min()) <= 0) return;
      all = fill();
      pending = ring_.publish();
    }
    // A receive that was armed again may be one of a peer that sends nothing: the buffers that are
    // left are for those who are still behind it.
    const bool more_to_feed = !starved_.empty() && pool_->free() > 0;
    const bool look_only =
        deadline == TimePoint::min() || more_to_feed || ring_.has_completions() || !ended_.empty();
    if (look_only && pending == 0 &&
        (ring_.flags() & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) == 0) {
      return;  // nothing to hand over, nothing to fetch
    }
    enter(pending, look_only ? 0 : 1, deadline);
  }

  /// Gives how many entries were taken.
  int enter(unsigned pending, unsigned wait_for, TimePoint deadline) {
    __kernel_timespec timeout{};
    const bool limited = wait_for > 0 && deadline != TimePoint::max();
    if (limited) {
      const auto left = std::max<std::int64_t>(0, (deadline - detail::kernel_now()).count());
      timeout.tv_sec = left / 1'000'000'000;
      timeout.tv_nsec = left % 1'000'000'000;
    }
    ++counters_.waits;
    const int result = ring_.enter(pending, wait_for, limited ? &timeout : nullptr);
    if (result >= 0) return result;
    if (result != -ETIME && result != -EINTR && result != -EAGAIN && result != -EBUSY) {
      throw std::system_error(
          -result, std::generic_category(),
          result == -EPERM || result == -ENOSYS
              ? "weir: io_uring_enter was refused after the ring was made (by a "
                "seccomp filter, it seems); set WEIR_ENGINE=epoll"
              : "weir: io_uring_enter");
    }
    return 0;
  }

  void take_in() noexcept {
    if ((ring_.flags() & IORING_SQ_CQ_OVERFLOW) != 0) ++counters_.overflows;
    counters_.completed += ring_.take([this](const io_uring_cqe& cqe) {
      const std::uint64_t tag = cqe.user_data & kTagMask;
      if (tag == kOperation) [[likely]] {
        complete(cqe.user_data, cqe.res, cqe.flags);
      } else if (tag == kWake) {
        ++counters_.wakes;
        rearm_wake_ = true;
      } else if (cqe.res == -ENOENT) {
        cancel_missed_ = true;
      }  // else a cancel needs nothing: its target says what became of it
    });
    // What a cancel did not find has ended, and was taken in; or it was on its way to a thread of
    // the kernel, as a send that waits is behind the peer's FIN, and goes on there.
    if (std::exchange(cancel_missed_, false)) cancelling_.splice_back(cancelled_);
  }

  void complete(std::uint64_t user_data, std::int32_t result, std::uint32_t flags) noexcept {
    constexpr std::uint64_t kAddress = (std::uint64_t{1} << 48) - 1;
    auto& operation = *reinterpret_cast<Operation*>(user_data & kAddress);
    WEIR_ASSERT(operation.generation == user_data >> 48);
    Buffer* buffer = nullptr;
    if ((flags & IORING_CQE_F_BUFFER) != 0) {
      const std::uint32_t id = flags >> IORING_CQE_BUFFER_SHIFT;
      if (result > 0) [[likely]] {
        buffer = &pool_->lend_or_copy(id, static_cast<std::size_t>(result));
      } else {
        pool_->taken_unused(id);
      }
    }
    if ((flags & IORING_CQE_F_MORE) != 0) {
      deliver(operation, result, buffer);
      return;
    }
    ++operation.generation;
    if (result == -ENOBUFS && operation.kind == OperationKind::receive) [[unlikely]] {
      starve(operation);
      return;
    }
    check_returned(operation);
    if (operation.cancel_wanted) [[unlikely]] {
      operation.link.unlink();  // the cancel may still be to be asked for
    }
    finish(operation, result, buffer);
  }

  static void check_returned([[maybe_unused]] const Operation& operation) noexcept {
#if WEIR_ASAN
    if (operation.kind == OperationKind::receive_into) {
      check_lent(operation.into.data, operation.into.size);
    } else if (operation.kind == OperationKind::read_file) {
      check_lent(operation.file->data, operation.file->size);
    } else if (operation.kind == OperationKind::send || operation.kind == OperationKind::send_now) {
      for (const Slice& slice : std::span(operation.gather.slices, operation.gather.count)) {
        check_lent(slice.data, slice.size);
      }
    }
#endif
  }

  /// A receive found no buffer. That is flow control: it is armed again when there is one.
  [[gnu::noinline]] void starve(Operation& operation) noexcept {
    ++counters_.starved;
    if (operation.cancel_wanted) {
      end(operation);
    } else {
      operation.state = Operation::State::starved;
      starved_.push_back(operation);
    }
  }

  void feed_starved() noexcept {
    if (starved_.empty()) return;
    // Buffers that came back meanwhile do not tell that there are enough for a whole turn.
    const bool cheap = pool_->made() * pool_->buffer_size() < kCheapBuffers;
    if (cheap || pool_->free() == 0) pool_->grow_more();
    // In the order in which they starved, one for each buffer: those behind keep their place.
    for (std::size_t free = pool_->free(); free > 0; --free) {
      Operation* operation = starved_.pop_front();
      if (operation == nullptr) return;
      start(*operation);
    }
  }

  void arm_wake() noexcept {
    io_uring_sqe& sqe = ring_.push();
    io_uring_prep_read(&sqe, wake_fd_, &wake_count_, sizeof wake_count_, 0);
    io_uring_sqe_set_data64(&sqe, kWake);
    rearm_wake_ = false;
  }

  Ring ring_;
  int wake_fd_ = -1;
  RingSignal signal_;
  bool attached_ = false;
  bool rearm_wake_ = false;
  bool polls_ = false;  // or has polled
  bool cancel_missed_ = false;
  std::thread::id thread_;
  std::vector<msghdr> messages_;  // one per entry of the submission queue
  std::uint64_t wake_count_ = 0;  // written by the kernel

  List<Operation> known_;       // were with the kernel at least once; they leave when they end
  List<Operation> cancelling_;  // are with the kernel, and a cancel has to follow
  List<Operation> cancelled_;   // of those that it has followed who have not ended
  List<Operation> waiting_;     // submitted since the last wait, or found no room then
  List<Operation> starved_;
};

}  // namespace

EngineOrReason make_uring_engine(const LoopOptions& options, std::size_t first_setup) {
  auto engine = std::make_unique<UringEngine>(options);
  const int opened = engine->open(options.ring_entries, first_setup);
  if (opened < 0) return {nullptr, -opened, explain_uring_refusal(-opened)};
  return {std::move(engine), 0, {}};
}

}  // namespace weir::detail
