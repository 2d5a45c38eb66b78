#include <weir/core/assert.h>
#include <weir/io/kernel_sockets.h>

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <mutex>

namespace weir::detail {
namespace {

/// One for the process, and one exchange at a time: with one for each loop, a loop that accepts
/// takes the number that another has given up for a moment.
struct Spare {
  std::mutex mutex;
  std::size_t users = 0;
  int fd = -1;
  /// It is not there, or is just being given up. Whoever accepts without the lock looks here.
  std::atomic<bool> wanted{false};

  // With the lock held.
  void refill() noexcept {
    if (fd < 0) fd = above_standard(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    wanted = fd < 0;
  }
  void give_up() noexcept {
    wanted = true;
    close_for_good(fd);
    fd = -1;
  }
  /// A number that is closed twice may be another thread's by then.
  static void close_for_good(int descriptor) noexcept {
    const int closed = ::close(descriptor);
    WEIR_ASSERT(closed == 0 || errno != EBADF);
  }
};

Spare spare;

bool lacks_descriptors(int result) noexcept { return result == -EMFILE || result == -ENFILE; }

}  // namespace

void KernelSockets::hold_spare() noexcept {
  const std::lock_guard lock(spare.mutex);
  if (spare.users++ == 0) spare.refill();
}

void KernelSockets::release_spare() noexcept {
  const std::lock_guard lock(spare.mutex);
  if (--spare.users > 0) return;
  if (spare.fd >= 0) spare.give_up();
  spare.wanted = false;
}

int KernelSockets::accept_or_shed(int listener) {
  const std::lock_guard lock(spare.mutex);
  spare.refill();
  int fd = accept(listener);
  if (!lacks_descriptors(fd) || spare.fd < 0) return fd;
  spare.give_up();
  fd = accept(listener);
  if (fd >= 0) Spare::close_for_good(fd);
  spare.refill();
  return fd >= 0 ? 0 : fd;
}

int KernelSockets::keep_accepted(int fd) noexcept {
  if (!spare.wanted) return above_standard(fd);
  const std::lock_guard lock(spare.mutex);
  if (!spare.wanted) return above_standard(fd);  // the exchange is over
  Spare::close_for_good(fd);
  spare.refill();
  return -EMFILE;
}

}  // namespace weir::detail
