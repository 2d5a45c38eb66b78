#include <weir/core/engine.h>
#include <weir/core/log.h>
#include <weir/core/metrics.h>
#include <weir/core/options.h>
#include <weir/io/engines.h>
#include <weir/io/kernel_sockets.h>
#include <weir/io/receive_pool.h>
#include <weir/io/sanitizer.h>

#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace weir {
namespace {

// Newer than the headers of liburing 2.3 (Debian 12); values of the kernel's interface.
#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7)
#endif
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif

constexpr unsigned kLeastEntries = 8;
constexpr unsigned kCompletionsPerEntry = 8;
constexpr std::size_t kFirstBuffers = 64;
/// Bytes of receive buffers that cost less than receives which find none.
constexpr std::size_t kCheapBuffers = 4 << 20;
constexpr std::uint16_t kBufferGroup = 0;

static_assert(sizeof(Slice) == sizeof(iovec) && offsetof(Slice, size) == offsetof(iovec, iov_len));

/// What a completion belongs to: the lowest bits of `user_data`. An operation's address leaves
/// them free, and its highest 16 bits for the generation.
enum Tag : std::uint64_t { kOperation = 0, kCancel = 1, kWake = 2, kTagMask = 7 };

std::uint64_t user_data_of(const Operation& operation) noexcept {
  return reinterpret_cast<std::uintptr_t>(&operation) |
         (static_cast<std::uint64_t>(operation.generation) << 48);
}

/// The receive buffers as a ring that the kernel takes from (io_uring_register_buf_ring(3)).
class RingPool final : public ReceivePool {
 public:
  RingPool(std::size_t buffer_size, std::size_t most)
      : ReceivePool(buffer_size, most),
        entries_(std::bit_ceil(static_cast<unsigned>(most))),
        mask_(entries_ - 1) {
    void* memory = ::mmap(nullptr, entries_ * sizeof(io_uring_buf), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    ring_ = static_cast<io_uring_buf_ring*>(memory);
    io_uring_buf_ring_init(ring_);
  }

  /// 0 or -errno.
  int register_with(io_uring& ring) noexcept {
    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<std::uintptr_t>(ring_);
    registration.ring_entries = entries_;
    registration.bgid = kBufferGroup;
    return io_uring_register_buf_ring(&ring, &registration, 0);
  }

  /// Makes more buffers, as many again as there are. False if there are all that may be.
  bool grow_more() noexcept {
    const auto first = static_cast<std::uint32_t>(made());
    const std::size_t added = grow(std::max(kFirstBuffers, made()));
    for (std::uint32_t id = first; id < first + added; ++id) put(data_of(id), id);
    return added > 0;
  }

  /// The kernel took a buffer and put nothing into it.
  void taken_unused(std::uint32_t id) noexcept { BufferRef(lend(id)).reset(); }

  /// Shows the kernel the buffers that came back.
  void publish() noexcept { io_uring_smp_store_release(&ring_->tail, tail_); }

  /// Those that are in the ring, shown to the kernel or not.
  [[nodiscard]] std::size_t free() const noexcept { return made() - leased(); }

  void release(Buffer& buffer) noexcept override {
    if (returned(buffer)) put(buffer.data(), buffer.id());
  }

 private:
  ~RingPool() override { ::munmap(ring_, entries_ * sizeof(io_uring_buf)); }

  // The first entry shares its memory with the kernel's `tail`: written field by field.
  void put(std::byte* data, std::uint32_t id) noexcept {
    io_uring_buf& entry = ring_->bufs[tail_++ & mask_];
    entry.addr = reinterpret_cast<std::uintptr_t>(data);
    entry.len = static_cast<std::uint32_t>(buffer_size());
    entry.bid = static_cast<std::uint16_t>(id);
  }

  unsigned entries_;
  unsigned mask_;
  io_uring_buf_ring* ring_;
  std::uint16_t tail_ = 0;
};

struct Retire {
  void operator()(RingPool* pool) const noexcept { pool->retire(); }
};

class UringEngine final : public IoEngine {
 public:
  UringEngine(io_uring ring, unsigned flags, unsigned features, int wake_fd,
              std::unique_ptr<RingPool, Retire> pool)
      : ring_(ring),
        wake_fd_(wake_fd),
        single_issuer_((flags & IORING_SETUP_SINGLE_ISSUER) != 0),
        task_run_flag_((flags & IORING_SETUP_TASKRUN_FLAG) != 0),
        disabled_((flags & IORING_SETUP_R_DISABLED) != 0),
        enter_flags_(IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG |
                     ((features & IORING_FEAT_NO_IOWAIT) != 0 ? IORING_ENTER_NO_IOWAIT : 0U)),
        pool_(std::move(pool)),
        messages_(ring_.sq.ring_sz == 0 ? 0 : *ring_.sq.kring_entries) {
    for (unsigned i = 0; i < *ring_.sq.kring_entries; ++i) ring_.sq.array[i] = i;
    pool_->grow_more();
  }

  ~UringEngine() override {
    // Nothing is freed before the ring is gone: the kernel may write until then.
    if (!abandoned_) io_uring_queue_exit(&ring_);
    ::close(wake_fd_);
  }

  [[nodiscard]] std::string_view name() const noexcept override { return "io_uring"; }
  [[nodiscard]] TimePoint now() noexcept override { return kernel_now(); }
  [[nodiscard]] std::uint64_t random() noexcept override { return random_.next(); }
  [[nodiscard]] Sockets& sockets() noexcept override { return kernel_sockets(); }
  [[nodiscard]] bool idle() const noexcept override { return in_flight_ == 0; }

  void attach() override {
    const std::thread::id here = std::this_thread::get_id();
    if (attached_) {
      if (single_issuer_ && thread_ != here) {
        throw std::logic_error(
            "weir: this event loop ran on another thread before; io_uring ties it to that thread. "
            "Run it there, or make a loop for this thread");
      }
      return;
    }
    if (disabled_) {
      // io_uring_enable_rings is declared but not exported by liburing 2.3.
      constexpr int kEnableRings = 12;
      if (::syscall(__NR_io_uring_register, ring_.ring_fd, kEnableRings, nullptr, 0) < 0) {
        throw std::system_error(errno, std::generic_category(), "weir: io_uring cannot start");
      }
    }
    thread_ = here;
    attached_ = true;
    io_uring_register_ring_fd(&ring_);  // spares each call a look-up; refused on old kernels
    if ((ring_.int_flags & kRegisteredRing) != 0) enter_flags_ |= IORING_ENTER_REGISTERED_RING;
    arm_wake();
  }

  void abandon() noexcept override {
    abandoned_ = true;
    io_uring_queue_exit(&ring_);
    List<Operation> rest;
    rest.splice_back(known_);
    rest.splice_back(waiting_);
    rest.splice_back(cancelling_);
    rest.splice_back(starved_);
    while (Operation* operation = rest.pop_front()) {
      if (operation->in_flight()) end(*operation);
    }
  }

  void submit(Operation& operation) noexcept override {
    WEIR_ASSERT(!operation.in_flight());
    operation.cancel_wanted = false;
    ++in_flight_;
    if (abandoned_) {
      end(operation);
    } else {
      enqueue(operation);
    }
  }

  void cancel(Operation& operation) noexcept override {
    if (!operation.in_flight() || operation.cancel_wanted) return;
    operation.cancel_wanted = true;
    switch (operation.state) {
      case Operation::State::waiting:
      case Operation::State::starved:
        end(operation);
        break;
      case Operation::State::submitted:
        cancelling_.push_back(operation);  // linked through the target: this cannot fail
        break;
      case Operation::State::idle:
      case Operation::State::ended:
        break;
    }
  }

  void wait(TimePoint deadline) override {
    if (!abandoned_) {
      feed_starved();
      pool_->publish();
      exchange(deadline);
      take_in();
    }
    deliver_ended();
  }

  void wake() noexcept override {
    const std::uint64_t one = 1;
    // It fails only if the counter is full, and then the loop is being woken already.
    [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
  }

  void add_metrics(Metrics& metrics) const noexcept override {
    metrics.waits += waits_;
    metrics.submitted += submissions_;
    metrics.completed += completions_;
    metrics.cancelled += cancels_;
    metrics.wakes += wakes_;
    metrics.starved += starvations_;
    metrics.overflows += overflows_;
    metrics.buffers += pool_->made();
    metrics.buffers_leased += pool_->leased();
  }

 private:
  static constexpr int kRegisteredRing = 1;  // INT_FLAG_REG_RING, private to liburing
  static constexpr int kSendFlags = MSG_NOSIGNAL | MSG_WAITALL;
  static constexpr std::size_t kMostSent = std::size_t{1} << 30;  // a length is 32 bits wide

  void enqueue(Operation& operation) noexcept {
    operation.state = Operation::State::waiting;
    waiting_.push_back(operation);
  }

  void end(Operation& operation) noexcept {
    operation.state = Operation::State::ended;
    ended_.push_back(operation);
  }

  void prepare(io_uring_sqe& sqe, Operation& operation) noexcept {
    // Newer versions of liburing do this in io_uring_get_sqe, older ones in io_uring_prep_*.
    sqe.flags = 0;
    sqe.ioprio = 0;
    sqe.buf_index = 0;
    sqe.personality = 0;
    sqe.file_index = 0;
    sqe.addr3 = 0;
    sqe.__pad2[0] = 0;
    if (operation.kind == OperationKind::send && operation.size == 1) [[likely]] {
      check_lent(operation.slices->data, operation.slices->size);
      io_uring_prep_send(&sqe, operation.fd, operation.slices->data,
                         std::min(operation.slices->size, kMostSent), kSendFlags);
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
        io_uring_prep_recv_multishot(&sqe, operation.fd, nullptr, 0, 0);
        sqe.flags |= IOSQE_BUFFER_SELECT;
        sqe.buf_group = kBufferGroup;
        break;
      case OperationKind::receive_into:
        check_lent(operation.data, operation.size);
        io_uring_prep_recv(&sqe, operation.fd, operation.data, operation.size, 0);
        break;
      case OperationKind::send:
        prepare_gathered(sqe, operation);
        break;
      case OperationKind::poll:
        io_uring_prep_poll_add(&sqe, operation.fd, operation.events);
        break;
      case OperationKind::read_file:
        check_lent(operation.data, operation.size);
        io_uring_prep_read(&sqe, operation.fd, operation.data, operation.size, operation.offset);
        break;
    }
  }

  void prepare_gathered(io_uring_sqe& sqe, const Operation& operation) noexcept {
    for (std::uint32_t i = 0; i < operation.size; ++i) {
      check_lent(operation.slices[i].data, operation.slices[i].size);
    }
    // The kernel copies the header when it takes the entry (IORING_FEAT_SUBMIT_STABLE).
    msghdr& message = messages_[static_cast<std::size_t>(&sqe - ring_.sq.sqes)];
    message = {};
    message.msg_iov = reinterpret_cast<iovec*>(const_cast<Slice*>(operation.slices));
    message.msg_iovlen = operation.size;
    io_uring_prep_sendmsg(&sqe, operation.fd, &message, kSendFlags);
  }

  /// Cancels first, then what waits for room: as much as the queue takes. True if all went in.
  bool fill() noexcept {
    while (Operation* target = cancelling_.front()) {
      io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
      if (sqe == nullptr) return false;
      ++cancels_;
      io_uring_prep_cancel64(sqe, user_data_of(*target), 0);
      sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
      io_uring_sqe_set_data64(sqe, kCancel);
      known_.push_back(*target);
    }
    if (rearm_wake_ && !arm_wake()) return false;
    return fill_with_waiting();
  }

  bool fill_with_waiting() noexcept {
    // As io_uring_get_sqe does it, with the room looked up once for all.
    io_uring_sq& sq = ring_.sq;
    const unsigned first = sq.sqe_tail;
    const unsigned end = io_uring_smp_load_acquire(sq.khead) + *sq.kring_entries;
    const unsigned mask = *sq.kring_mask;
    unsigned tail = first;
    Operation* operation = waiting_.front();
    for (; operation != nullptr && tail != end; operation = waiting_.after(*operation)) {
      prepare(sq.sqes[tail++ & mask], *operation);
    }
    sq.sqe_tail = tail;
    submissions_ += tail - first;
    if (operation == nullptr) {
      known_.splice_back(waiting_);
      return true;
    }
    while (waiting_.front() != operation) known_.push_back(*waiting_.front());
    return false;
  }

  /// Shows the kernel the filled entries; gives how many it has not taken yet.
  unsigned publish_entries() noexcept {
    io_uring_sq& sq = ring_.sq;
    io_uring_smp_store_release(sq.ktail, sq.sqe_tail);
    sq.sqe_head = sq.sqe_tail;
    return sq.sqe_tail - io_uring_smp_load_acquire(sq.khead);
  }

  [[nodiscard]] bool completions_ready() const noexcept {
    return io_uring_smp_load_acquire(ring_.cq.ktail) != *ring_.cq.khead;
  }

  void exchange(TimePoint deadline) {
    bool all = fill();
    unsigned pending = publish_entries();
    while (!all) {  // the queue is full: never sleep on what the kernel has not seen
      if (enter(pending, 0, TimePoint::min()) <= 0) return;
      all = fill();
      pending = publish_entries();
    }
    // A receive that was armed again may be one of a peer that sends nothing: the buffers that are
    // left are for those who are still behind it.
    const bool more_to_feed = !starved_.empty() && pool_->free() > 0;
    const bool look_only =
        deadline == TimePoint::min() || more_to_feed || completions_ready() || !ended_.empty();
    if (look_only && pending == 0 && task_run_flag_ &&
        (IO_URING_READ_ONCE(*ring_.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) == 0) {
      return;  // nothing to hand over, nothing to fetch
    }
    enter(pending, look_only ? 0 : 1, deadline);
  }

  /// Submits and waits in one call; gives how many entries were taken. What it returns of the
  /// wait is of no use: the completion queue says what happened.
  int enter(unsigned pending, unsigned wait_for, TimePoint deadline) {
    __kernel_timespec timeout{};
    io_uring_getevents_arg arg{};
    arg.sigmask_sz = _NSIG / 8;
    if (wait_for > 0 && deadline != TimePoint::max()) {
      const auto left = std::max<std::int64_t>(0, (deadline - kernel_now()).count());
      timeout.tv_sec = left / 1'000'000'000;
      timeout.tv_nsec = left % 1'000'000'000;
      arg.ts = reinterpret_cast<std::uintptr_t>(&timeout);
    }
    ++waits_;
    const int fd =
        (enter_flags_ & IORING_ENTER_REGISTERED_RING) != 0 ? ring_.enter_ring_fd : ring_.ring_fd;
    const int result = io_uring_enter2(static_cast<unsigned>(fd), pending, wait_for, enter_flags_,
                                       reinterpret_cast<sigset_t*>(&arg), sizeof arg);
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
    if ((IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_CQ_OVERFLOW) != 0) ++overflows_;
    io_uring_cq& cq = ring_.cq;
    unsigned head = *cq.khead;
    const unsigned tail = io_uring_smp_load_acquire(cq.ktail);
    const unsigned mask = *cq.kring_mask;
    const io_uring_cqe* const cqes = cq.cqes;
    completions_ += tail - head;
    for (; head != tail; ++head) {
      const io_uring_cqe& cqe = cqes[head & mask];
      if ((cqe.user_data & kTagMask) != kOperation) [[unlikely]] {
        // A cancel needs nothing: its target says what became of it.
        if ((cqe.user_data & kTagMask) == kWake) {
          ++wakes_;
          rearm_wake_ = true;
        }
        continue;
      }
      complete(cqe.user_data, cqe.res, cqe.flags);
    }
    io_uring_smp_store_release(cq.khead, head);
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
    const std::uint32_t more = flags & IORING_CQE_F_MORE;
    if (more == 0) {
      ++operation.generation;
      if (result == -ENOBUFS && operation.kind == OperationKind::receive) [[unlikely]] {
        starve(operation);
        return;
      }
      check_returned(operation);
      if (operation.cancel_wanted) operation.unlink();  // the cancel may still be to be asked for
      operation.state = Operation::State::idle;
      --in_flight_;
    }
    operation.on_complete(operation, {result, more, buffer});
  }

  static void check_returned([[maybe_unused]] const Operation& operation) noexcept {
#if WEIR_ASAN
    if (operation.kind == OperationKind::receive_into ||
        operation.kind == OperationKind::read_file) {
      check_lent(operation.data, operation.size);
    } else if (operation.kind == OperationKind::send) {
      for (std::uint32_t i = 0; i < operation.size; ++i) {
        check_lent(operation.slices[i].data, operation.slices[i].size);
      }
    }
#endif
  }

  /// A receive found no buffer. That is flow control: it is armed again when there is one.
  void starve(Operation& operation) noexcept {
    ++starvations_;
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
      enqueue(*operation);
    }
  }

  void deliver_ended() noexcept {
    List<Operation> ended;
    ended.splice_back(ended_);
    while (Operation* operation = ended.pop_front()) {
      operation->state = Operation::State::idle;
      --in_flight_;
      operation->on_complete(*operation, {-ECANCELED, false, nullptr});
    }
  }

  bool arm_wake() noexcept {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    rearm_wake_ = sqe == nullptr;
    if (sqe == nullptr) return false;
    io_uring_prep_read(sqe, wake_fd_, &wake_count_, sizeof wake_count_, 0);
    io_uring_sqe_set_data64(sqe, kWake);
    return true;
  }

  io_uring ring_;
  int wake_fd_;
  bool single_issuer_;
  bool task_run_flag_;
  bool disabled_;
  bool attached_ = false;
  bool abandoned_ = false;
  bool rearm_wake_ = false;
  unsigned enter_flags_;
  std::thread::id thread_;
  std::unique_ptr<RingPool, Retire> pool_;
  std::vector<msghdr> messages_;  // one per entry of the submission queue
  std::uint64_t wake_count_ = 0;  // written by the kernel

  List<Operation> known_;       // were with the kernel at least once; they leave when they end
  List<Operation> cancelling_;  // are with the kernel, and a cancel has to follow
  List<Operation> waiting_;     // submitted since the last wait, or found no room then
  List<Operation> starved_;
  List<Operation> ended_;  // cancelled before the kernel saw them

  RandomSource random_;
  std::size_t in_flight_ = 0;
  std::uint64_t waits_ = 0;
  std::uint64_t submissions_ = 0;
  std::uint64_t completions_ = 0;
  std::uint64_t cancels_ = 0;
  std::uint64_t wakes_ = 0;
  std::uint64_t starvations_ = 0;
  std::uint64_t overflows_ = 0;
};

/// The flags we would like, the most dispensable last: each is given up in turn on -EINVAL.
constexpr unsigned kNeeded = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
constexpr unsigned kWanted[] = {
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
        IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,  // 6.1
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,                        // 6.0
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,  // 5.19
    IORING_SETUP_SUBMIT_ALL,                                                          // 5.18
    0,
};

/// 0 or -errno.
int set_up(io_uring& ring, io_uring_params& params, unsigned entries) {
  int result = -EINVAL;
  for (const unsigned wanted : kWanted) {
    for (unsigned size = entries; size >= kLeastEntries || size == entries; size /= 2) {
      params = {};
      params.flags = kNeeded | wanted;
      params.cq_entries = size * kCompletionsPerEntry;
      result = io_uring_queue_init_params(size, &ring, &params);
      if (result != -ENOMEM) break;
    }
    if (result != -EINVAL) break;
  }
  return result;
}

/// Whether everything is there, and every system call allowed: 0 or -errno.
int check_abilities(io_uring& ring, unsigned features) {
  // A ring that is not enabled yet answers -EBADFD; a seccomp filter speaks before the kernel does.
  const int entered = io_uring_enter(static_cast<unsigned>(ring.ring_fd), 0, 0, 0, nullptr);
  if (entered == -EPERM || entered == -ENOSYS || entered == -EACCES) return entered;
  // OP_SEND_ZC came with multishot receive (6.0), which has no mark of its own.
  constexpr unsigned kOperations = IORING_OP_SEND_ZC + 1;
  alignas(io_uring_probe)
      std::byte memory[sizeof(io_uring_probe) + kOperations * sizeof(io_uring_probe_op)] = {};
  auto* probe = reinterpret_cast<io_uring_probe*>(memory);
  const int probed = io_uring_register_probe(&ring, probe, kOperations);
  if (probed < 0) return probed == -EINVAL ? -EOPNOTSUPP : probed;
  const bool enough = (features & IORING_FEAT_EXT_ARG) != 0 &&
                      io_uring_opcode_supported(probe, IORING_OP_SEND_ZC) != 0;
  return enough ? 0 : -EOPNOTSUPP;
}

}  // namespace

EngineOrReason make_uring_engine(const LoopOptions& options) {
  io_uring ring{};
  io_uring_params params{};
  const int result = set_up(ring, params, options.ring_entries);
  if (result == -EMFILE || result == -ENFILE) {
    throw std::system_error(-result, std::generic_category(),
                            "weir: no descriptor is left for an event loop; raise RLIMIT_NOFILE "
                            "(ulimit -n, LimitNOFILE=)");
  }
  if (result < 0) return {nullptr, -result, explain_uring_refusal(-result)};
  struct Guard {
    io_uring* ring;
    int wake_fd = -1;
    ~Guard() {
      if (ring != nullptr) io_uring_queue_exit(ring);
      if (wake_fd >= 0) ::close(wake_fd);
    }
  } guard{&ring};
  if (const int lacking = check_abilities(ring, params.features); lacking < 0) {
    return {nullptr, -lacking, explain_uring_refusal(-lacking)};
  }
  std::unique_ptr<RingPool, Retire> pool(new RingPool(options.buffer_size, options.buffer_count));
  if (const int registered = pool->register_with(ring); registered < 0) {
    return {nullptr, -registered, explain_uring_refusal(-registered)};
  }
  guard.wake_fd = ::eventfd(0, EFD_CLOEXEC);
  if (guard.wake_fd < 0) {
    throw std::system_error(errno, std::generic_category(), "weir: eventfd for an event loop");
  }
  auto engine = std::make_unique<UringEngine>(ring, params.flags, params.features, guard.wake_fd,
                                              std::move(pool));
  guard.ring = nullptr;
  guard.wake_fd = -1;
  return {std::move(engine), 0, {}};
}

}  // namespace weir
