// One io_uring instance and one provided-buffer ring, as thin as they can be: what the reference
// server and the load client share. Neither uses weir: what they measure must not depend on it.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>

namespace bench {

// A submission and a completion queue. Used by the thread that created it, and by no other.
class Ring {
 public:
  // Throws std::system_error where the kernel has no io_uring for us. Set-up flags which this
  // kernel does not know are left out, one after the other.
  Ring(unsigned submission_entries, unsigned completion_entries);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // A cleared entry is never promised: every io_uring_prep_* call clears what it does not set. When
  // the queue is full, what is in it goes to the kernel first.
  io_uring_sqe* next_entry() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    return entry != nullptr ? entry : next_entry_when_full();
  }

  // Makes the next `count` entries go to the kernel in one submission: a chain of linked ones would
  // end where a submission ends.
  void reserve(unsigned count) {
    if (io_uring_sq_space_left(&ring_) < count) submit();
  }

  // Hands all entries to the kernel and sleeps until there is a completion, in one system call. May
  // return without one: a signal, or a kernel short of memory, which took only some of the entries.
  void submit_and_wait() { enter(1, IORING_ENTER_GETEVENTS | wait_flags_); }

  bool has_unsubmitted() const { return io_uring_sq_ready(&ring_) != 0; }
  // Completions wait inside the kernel for want of room: only another wait brings them out.
  bool has_overflow() const { return io_uring_cq_has_overflow(&ring_); }

  // Calls visit(const io_uring_cqe&) for what has completed. The entries are given back all at
  // once, so that the kernel's cache line is written once per turn.
  template <typename Visitor>
  unsigned for_each_completion(Visitor&& visit) {
    const unsigned head = *ring_.cq.khead;
    const unsigned count = io_uring_smp_load_acquire(ring_.cq.ktail) - head;
    for (unsigned i = 0; i < count; ++i) {
      visit(static_cast<const io_uring_cqe&>(ring_.cq.cqes[(head + i) & ring_.cq.ring_mask]));
    }
    io_uring_cq_advance(&ring_, count);
    return count;
  }

  // Hands all entries to the kernel without waiting: afterwards nothing they point to is needed
  // except the buffers of the transfers themselves.
  void submit() {
    do enter(0, 0);
    while (has_unsubmitted());
  }

  io_uring* native() { return &ring_; }

 private:
  io_uring_sqe* next_entry_when_full();
  void enter(unsigned wait_for, unsigned flags);

  io_uring ring_{};
  unsigned enter_flags_ = 0;
  unsigned wait_flags_ = 0;
};

// `count` receive buffers of `size` bytes, lent to the kernel as buffer group 0. Ids are
// 0 .. count-1. Has to outlive the Ring it is registered with: only the end of that one stops the
// kernel from writing here.
class BufferRing {
 public:
  BufferRing(unsigned count, std::size_t size);  // count: a power of two, at most 32768
  ~BufferRing();
  BufferRing(const BufferRing&) = delete;
  BufferRing& operator=(const BufferRing&) = delete;

  static constexpr std::uint16_t group = 0;

  void register_with(Ring& ring);

  char* data(std::uint16_t id) const { return memory_ + id * stride_; }
  unsigned count() const { return count_; }

  // Queues the buffer for the kernel; publish() makes all that were queued visible to it.
  void give_back(std::uint16_t id) {
    io_uring_buf_ring_add(entries_, data(id), static_cast<unsigned>(size_), id,
                          io_uring_buf_ring_mask(count_), unpublished_++);
  }
  void publish() {
    if (unpublished_ != 0) io_uring_buf_ring_advance(entries_, unpublished_);
    unpublished_ = 0;
  }

 private:
  io_uring_buf_ring* entries_ = nullptr;
  char* memory_ = nullptr;
  std::size_t size_;
  std::size_t stride_;
  unsigned count_;
  int unpublished_ = 0;
};

}  // namespace bench
