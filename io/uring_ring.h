#pragma once

#include <weir/io/receive_pool.h>

#include <liburing.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

// Included by uring_engine.cpp alone.
namespace weir::detail {

// Newer than the headers of liburing 2.3 (Debian 12); values of the kernel's interface.
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif
#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7)
#endif
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif

/// Memory of mmap(2), private and anonymous or shared with a descriptor.
class Mapping {
 public:
  Mapping() = default;
  explicit Mapping(std::size_t size, int fd = -1, std::uint64_t offset = 0) noexcept
      : address_(::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                        fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE, fd,
                        static_cast<off_t>(offset))),
        size_(size) {
    if (address_ == MAP_FAILED) address_ = nullptr;
  }
  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(other.size_) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Mapping() {
    if (address_ != nullptr) ::munmap(address_, size_);
  }

  explicit operator bool() const noexcept { return address_ != nullptr; }
  template <class T>
  [[nodiscard]] T* at(std::size_t offset) const noexcept {
    return reinterpret_cast<T*>(static_cast<std::byte*>(address_) + offset);
  }

 private:
  void* address_ = nullptr;
  std::size_t size_ = 0;
};

/// The two queues that we share with the kernel (io_uring(7)), and the three system calls. Of
/// liburing it takes the documented functions alone, never its `struct io_uring`: what stands there
/// differs between versions that are one and the same shared library to the linker.
class Ring {
 public:
  Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() { close(); }

  /// 0 or -errno.
  int open(unsigned entries, io_uring_params& params) noexcept {
    fd_ = io_uring_setup(entries, &params);
    if (fd_ < 0) return fd_;
    const int result = map(params);
    if (result < 0) close();
    return result;
  }

  [[nodiscard]] int fd() const noexcept { return fd_; }

  /// The kernel lets go of what is in flight, unless a thread that lives has the ring registered.
  void close() noexcept {
    entries_ = {};
    queues_ = {};
    if (const int fd = std::exchange(fd_, -1); fd >= 0) ::close(fd);
  }

  /// The thread that calls this submits from now on. 0 or -errno.
  int enable() noexcept {
    return io_uring_register(static_cast<unsigned>(fd_), IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
  }

  /// Spares each call of this thread a look-up, until it ends or takes that back; refused on old
  /// kernels.
  void register_with_thread() noexcept {
    if ((enter_flags_ & IORING_ENTER_REGISTERED_RING) != 0) return;
    io_uring_rsrc_update update{};
    update.offset = ~0U;  // wherever there is room
    update.data = static_cast<std::uint64_t>(fd_);
    if (register_call(IORING_REGISTER_RING_FDS, &update, 1) != 1) return;
    enter_fd_ = update.offset;
    enter_flags_ |= IORING_ENTER_REGISTERED_RING;
  }
  void unregister_with_thread() noexcept {
    if ((enter_flags_ & IORING_ENTER_REGISTERED_RING) == 0) return;
    io_uring_rsrc_update update{};
    update.offset = enter_fd_;
    register_call(IORING_UNREGISTER_RING_FDS, &update, 1);
    enter_fd_ = static_cast<unsigned>(fd_);
    enter_flags_ &= ~static_cast<unsigned>(IORING_ENTER_REGISTERED_RING);
  }

  /// io_uring_register(2): its result, or -errno.
  int register_call(unsigned what, void* argument, unsigned count) noexcept {
    return io_uring_register(static_cast<unsigned>(fd_), what, argument, count);
  }

  [[nodiscard]] unsigned size() const noexcept { return size_; }
  /// How many entries the submission queue has room for.
  [[nodiscard]] unsigned room() const noexcept { return size_ - (tail_ - acquire(sq_head_)); }
  /// The next entry, to be filled; there must be room.
  [[nodiscard]] io_uring_sqe& push() noexcept {
    // Newer versions of io_uring_prep_… leave the fields alone that they do not need.
    return sqes_[tail_++ & mask_] = {};
  }
  [[nodiscard]] std::size_t index_of(const io_uring_sqe& sqe) const noexcept {
    return static_cast<std::size_t>(&sqe - sqes_);
  }
  /// Shows the kernel the filled entries; gives how many it has not taken yet.
  unsigned publish() noexcept {
    release(sq_tail_, tail_);
    return tail_ - acquire(sq_head_);
  }

  /// IORING_SQ_… bits.
  [[nodiscard]] unsigned flags() const noexcept {
    return std::atomic_ref(*sq_flags_).load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool has_completions() const noexcept { return acquire(cq_tail_) != *cq_head_; }

  /// Calls the function with each completion; gives how many there were.
  template <class Function>
  unsigned take(Function function) noexcept {
    const unsigned first = *cq_head_;
    const unsigned end = acquire(cq_tail_);
    for (unsigned head = first; head != end; ++head) function(cqes_[head & cq_mask_]);
    release(cq_head_, end);
    return end - first;
  }

  /// Submits and waits in one call, for ever without a `timeout`; gives how many entries were
  /// taken, or -errno. What it says of the wait is of no use: the queue tells what happened.
  int enter(unsigned pending, unsigned wait_for, const __kernel_timespec* timeout) noexcept {
    io_uring_getevents_arg argument{};
    argument.sigmask_sz = _NSIG / 8;
    argument.ts = reinterpret_cast<std::uintptr_t>(timeout);
    return io_uring_enter2(enter_fd_, pending, wait_for, enter_flags_,
                           reinterpret_cast<sigset_t*>(&argument), sizeof argument);
  }

 private:
  static unsigned acquire(unsigned* shared) noexcept {
    return std::atomic_ref(*shared).load(std::memory_order_acquire);
  }
  static void release(unsigned* shared, unsigned value) noexcept {
    std::atomic_ref(*shared).store(value, std::memory_order_release);
  }

  int map(const io_uring_params& params) noexcept {
    constexpr unsigned kNeeded = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_EXT_ARG;
    if ((params.features & kNeeded) != kNeeded) return -EOPNOTSUPP;
    const bool has_array = (params.flags & IORING_SETUP_NO_SQARRAY) == 0;
    const io_sqring_offsets& sq = params.sq_off;
    const io_cqring_offsets& cq = params.cq_off;
    const std::size_t cq_size = cq.cqes + params.cq_entries * sizeof(io_uring_cqe);
    const std::size_t sq_size = has_array ? sq.array + params.sq_entries * sizeof(unsigned) : 0;
    queues_ = Mapping(std::max(cq_size, sq_size), fd_, IORING_OFF_SQ_RING);
    entries_ = Mapping(params.sq_entries * sizeof(io_uring_sqe), fd_, IORING_OFF_SQES);
    if (!queues_ || !entries_) return -ENOMEM;
    sq_head_ = queues_.at<unsigned>(sq.head);
    sq_tail_ = queues_.at<unsigned>(sq.tail);
    sq_flags_ = queues_.at<unsigned>(sq.flags);
    sqes_ = entries_.at<io_uring_sqe>(0);
    cq_head_ = queues_.at<unsigned>(cq.head);
    cq_tail_ = queues_.at<unsigned>(cq.tail);
    cqes_ = queues_.at<io_uring_cqe>(cq.cqes);
    size_ = params.sq_entries;
    mask_ = size_ - 1;
    cq_mask_ = params.cq_entries - 1;
    // Entries are handed over in the order of their places.
    for (unsigned i = 0; has_array && i < size_; ++i) queues_.at<unsigned>(sq.array)[i] = i;
    enter_fd_ = static_cast<unsigned>(fd_);
    if ((params.features & IORING_FEAT_NO_IOWAIT) != 0) enter_flags_ |= IORING_ENTER_NO_IOWAIT;
    return 0;
  }

  unsigned* sq_head_ = nullptr;
  unsigned* sq_tail_ = nullptr;
  unsigned* sq_flags_ = nullptr;
  io_uring_sqe* sqes_ = nullptr;
  unsigned* cq_head_ = nullptr;
  unsigned* cq_tail_ = nullptr;
  const io_uring_cqe* cqes_ = nullptr;
  unsigned size_ = 0;
  unsigned mask_ = 0;
  unsigned tail_ = 0;  // of what was pushed; the kernel knows less until `publish`
  unsigned cq_mask_ = 0;
  unsigned enter_fd_ = 0;
  unsigned enter_flags_ = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
  int fd_ = -1;
  Mapping queues_;
  Mapping entries_;
};

/// The receive buffers as a ring that the kernel takes from (io_uring_register_buf_ring(3)).
class RingPool final : public ReceivePool {
 public:
  static constexpr std::uint16_t kGroup = 0;

  RingPool(std::size_t buffer_size, std::size_t most)
      : ReceivePool(buffer_size, most),
        entries_(std::bit_ceil(static_cast<unsigned>(most))),
        mask_(entries_ - 1),
        memory_(entries_ * sizeof(io_uring_buf)) {
    if (!memory_) throw std::bad_alloc();
  }

  /// 0 or -errno.
  int register_with(Ring& ring) noexcept {
    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<std::uintptr_t>(memory_.at<io_uring_buf>(0));
    registration.ring_entries = entries_;
    registration.bgid = kGroup;
    return ring.register_call(IORING_REGISTER_PBUF_RING, &registration, 1);
  }

  /// Makes more buffers, as many again as there are. False if there are all that may be.
  bool grow_more() noexcept {
    const auto first = static_cast<std::uint32_t>(made());
    const std::size_t added = grow(std::max(kFirst, made()));
    for (std::uint32_t id = first; id < first + added; ++id) put(data_of(id), id);
    return added > 0;
  }

  /// The kernel took a buffer and put nothing into it.
  void taken_unused(std::uint32_t id) noexcept { BufferRef(lend(id)).reset(); }

  /// Shows the kernel the buffers that came back.
  void publish() noexcept {
    std::uint16_t& shared = memory_.at<io_uring_buf_ring>(0)->tail;
    std::atomic_ref(shared).store(tail_, std::memory_order_release);
  }

  /// Those that are in the ring, shown to the kernel or not.
  [[nodiscard]] std::size_t free() const noexcept { return made() - leased(); }

  void release(Buffer& buffer) noexcept override {
    if (returned(buffer)) put(buffer.data(), buffer.id());
  }

 private:
  ~RingPool() override = default;

  // The first entry shares its memory with the kernel's `tail`: written field by field.
  void put(std::byte* data, std::uint32_t id) noexcept {
    io_uring_buf& entry = memory_.at<io_uring_buf>(0)[tail_++ & mask_];
    entry.addr = reinterpret_cast<std::uintptr_t>(data);
    entry.len = static_cast<std::uint32_t>(buffer_size());
    entry.bid = static_cast<std::uint16_t>(id);
  }

  unsigned entries_;
  unsigned mask_;
  Mapping memory_;
  std::uint16_t tail_ = 0;
};

}  // namespace weir::detail
