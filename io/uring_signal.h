#pragma once

#include <weir/io/uring_ring.h>

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

namespace weir::detail {

/// A descriptor that is readable when a ring has something to take in or its loop was woken, for a
/// host that polls. Polling the ring itself does not show what the kernel has only to finish when
/// it is entered (IORING_SETUP_DEFER_TASKRUN); an event counter that is registered with it does.
class RingSignal {
 public:
  RingSignal() noexcept = default;
  RingSignal(const RingSignal&) = delete;
  RingSignal& operator=(const RingSignal&) = delete;
  ~RingSignal() {
    if (const int fd = get(); fd >= 0) ::close(fd);
  }

  /// It, or -1 as long as nobody has asked by `reset`.
  [[nodiscard]] int get() const noexcept { return fd_.load(std::memory_order_acquire); }

  /// It, made by the first call, or -errno. Not readable from now on, before what is in the ring is
  /// looked at.
  ///
  /// The kernel (6.0 to 6.18 at least, io_uring/eventfd.c) tells once for each registration, and no
  /// more, of what another event counter's write has brought about: with `polls`, of the program's
  /// own, it is registered anew.
  int reset(Ring& ring, bool polls) noexcept {
    int fd = get();
    if (fd < 0) {
      fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
      if (fd < 0) return -errno;
      if (const int failed = ring.register_call(IORING_REGISTER_EVENTFD, &fd, 1); failed < 0) {
        ::close(fd);
        return failed;
      }
      fd_.store(fd, std::memory_order_release);
      return fd;
    }
    std::uint64_t count = 0;
    (void)!::read(fd, &count, sizeof count);
    if (polls) {
      (void)ring.register_call(IORING_UNREGISTER_EVENTFD, nullptr, 0);
      if (ring.register_call(IORING_REGISTER_EVENTFD, &fd, 1) < 0) set();  // then it is looked at
    }
    return fd;
  }

  /// It is readable, if it is there. From any thread.
  void set() const noexcept {
    const std::uint64_t one = 1;
    if (const int fd = get(); fd >= 0) (void)!::write(fd, &one, sizeof one);
  }

 private:
  std::atomic<int> fd_{-1};
};

}  // namespace weir::detail
