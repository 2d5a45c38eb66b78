#include "ring.h"

#include <sys/mman.h>

#include <cerrno>
#include <csignal>
#include <system_error>

// Newer than the liburing 2.3 of Debian 12; the values are the kernel's.
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif
#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7)
#endif

namespace bench {
namespace {

[[noreturn]] void fail(int error, const char* what) {
  throw std::system_error(error, std::generic_category(), what);
}

// From what we want most to what any kernel with io_uring takes. DEFER_TASKRUN needs SINGLE_ISSUER,
// so it goes first.
constexpr unsigned kSetupFlags[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_SUBMIT_ALL,
    0,
};

}  // namespace

Ring::Ring(unsigned submission_entries, unsigned completion_entries) {
  int result = -EINVAL;
  for (const unsigned flags : kSetupFlags) {
    io_uring_params parameters{};
    parameters.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    parameters.cq_entries = completion_entries;
    result = io_uring_queue_init_params(submission_entries, &ring_, &parameters);
    if (result != -EINVAL) break;
  }
  if (result < 0) fail(-result, "io_uring_setup");

  // The index array maps slot i to entry i for ever; written once here, it need not be written
  // again for every submission as io_uring_submit() does.
  for (unsigned i = 0; i < ring_.sq.ring_entries; ++i) ring_.sq.array[i] = i;

  // A registered descriptor spares a file lookup per call. Without it all works as well.
  if (io_uring_register_ring_fd(&ring_) == 1) enter_flags_ |= IORING_ENTER_REGISTERED_RING;
  // Else a core that waits for the network is accounted as waiting for a disk.
  if ((ring_.features & IORING_FEAT_NO_IOWAIT) != 0) wait_flags_ |= IORING_ENTER_NO_IOWAIT;
}

Ring::~Ring() { io_uring_queue_exit(&ring_); }

io_uring_sqe* Ring::next_entry_when_full() {
  for (;;) {
    enter(0, 0);
    if (io_uring_sqe* entry = io_uring_get_sqe(&ring_); entry != nullptr) return entry;
  }
}

void Ring::enter(unsigned wait_for, unsigned flags) {
  io_uring_smp_store_release(ring_.sq.ktail, ring_.sq.sqe_tail);
  const int result =
      io_uring_enter2(static_cast<unsigned>(ring_.enter_ring_fd), io_uring_sq_ready(&ring_),
                      wait_for, enter_flags_ | flags, nullptr, _NSIG / 8);
  // EAGAIN and EBUSY: no memory, or completions wait for room. What was not taken stays in the
  // queue and goes with the next call.
  if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY) {
    fail(-result, "io_uring_enter");
  }
}

BufferRing::BufferRing(unsigned count, std::size_t size)
    // A stride of a whole number of pages would put the start of every buffer, and so every small
    // message, into the same few cache sets; one cache line more spreads them.
    : size_(size), stride_(size + 64), count_(count) {
  void* memory = mmap(nullptr, stride_ * count_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) fail(errno, "memory for receive buffers");
  memory_ = static_cast<char*>(memory);

  void* entries = mmap(nullptr, count_ * sizeof(io_uring_buf), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (entries == MAP_FAILED) fail(errno, "memory for the buffer ring");
  entries_ = static_cast<io_uring_buf_ring*>(entries);

  for (unsigned id = 0; id < count_; ++id) give_back(static_cast<std::uint16_t>(id));
  publish();
}

void BufferRing::register_with(Ring& ring) {
  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<std::uintptr_t>(entries_);
  registration.ring_entries = count_;
  registration.bgid = group;
  const int result = io_uring_register_buf_ring(ring.native(), &registration, 0);
  if (result < 0) fail(-result, "io_uring_register_buf_ring (needs Linux 5.19)");
}

BufferRing::~BufferRing() {
  munmap(entries_, count_ * sizeof(io_uring_buf));
  munmap(memory_, stride_ * count_);
}

}  // namespace bench
