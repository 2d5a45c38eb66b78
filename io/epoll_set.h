#pragma once

#include <weir/core/engine.h>
#include <weir/io/engines.h>
#include <weir/io/kernel_machine.h>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <span>
#include <system_error>

namespace weir::detail {

/// What a system call gave, with -errno for an error.
template <class Result>
int checked(Result result) noexcept {
  return result < 0 ? -errno : static_cast<int>(result);
}

/// An epoll instance (epoll(7)) with a descriptor that wakes who waits at it.
class EpollSet {
 public:
  /// Throws `std::system_error` naming cause and cure.
  EpollSet()
      : fd_(::epoll_create1(EPOLL_CLOEXEC)), wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    event.data.u64 = kWakeTag;
    if (wake_fd_ < 0 || ::epoll_ctl(fd_, EPOLL_CTL_ADD, wake_fd_, &event) < 0) {
      const int error = errno;
      close();
      refuse_engine(error, "weir: epoll cannot be set up");
    }
  }
  EpollSet(const EpollSet&) = delete;
  EpollSet& operator=(const EpollSet&) = delete;
  ~EpollSet() { close(); }

  [[nodiscard]] int fd() const noexcept { return fd_; }

  /// 0 or -errno. What holds already makes an event. The number comes back as `data.u64`.
  int add(int fd, std::uint32_t events) noexcept {
    const int result = control(EPOLL_CTL_ADD, fd, events);
    return result == -EEXIST ? control(EPOLL_CTL_MOD, fd, events) : result;
  }
  void remove(int fd) noexcept { (void)control(EPOLL_CTL_DEL, fd, 0); }

  /// From any thread.
  void wake() noexcept {
    const std::uint64_t one = 1;
    // Edge-triggered, so every write is an event and nobody needs to read the counter, which would
    // take centuries to be full.
    [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
  }
  [[nodiscard]] static bool is_wake(const epoll_event& event) noexcept {
    return event.data.u64 == kWakeTag;
  }

  /// Until there are events or the deadline has passed. What it gives stands until the next call.
  std::span<const epoll_event> wait(TimePoint deadline) {
    int count = 0;
    if (deadline == TimePoint::min() || deadline == TimePoint::max()) {
      const int timeout = deadline == TimePoint::max() ? -1 : 0;
      count = checked(::epoll_wait(fd_, events_.data(), kEventsPerWait, timeout));
    } else {
      count = look_for(std::max<std::int64_t>(0, (deadline - kernel_now()).count()));
    }
    if (count < 0 && count != -EINTR) {
      throw std::system_error(-count, std::generic_category(), "weir: epoll_wait");
    }
    return {events_.data(), static_cast<std::size_t>(std::max(count, 0))};
  }

 private:
  static constexpr std::uint64_t kWakeTag = ~std::uint64_t{0};
  static constexpr int kEventsPerWait = 256;

  int control(int what, int fd, std::uint32_t events) const noexcept {
    epoll_event event{};
    event.events = events;
    event.data.u64 = static_cast<std::uint64_t>(fd);
    return checked(::epoll_ctl(fd_, what, fd, &event));
  }

  int look_for(std::int64_t nanoseconds) noexcept {
#ifdef SYS_epoll_pwait2
    if (has_pwait2_) {
      const timespec timeout{nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
      const int count = checked(
          ::syscall(SYS_epoll_pwait2, fd_, events_.data(), kEventsPerWait, &timeout, nullptr, 0));
      if (count != -ENOSYS && count != -EPERM) return count;
      has_pwait2_ = false;  // before Linux 5.11, or kept from us by a seccomp filter
    }
#endif
    constexpr std::int64_t kMost = std::int64_t{24} * 3600 * 1000;
    const std::int64_t milliseconds = std::min(nanoseconds / 1'000'000, kMost) + 1;
    return checked(::epoll_wait(fd_, events_.data(), kEventsPerWait,
                                nanoseconds == 0 ? 0 : static_cast<int>(milliseconds)));
  }

  void close() const noexcept {
    if (fd_ >= 0) ::close(fd_);
    if (wake_fd_ >= 0) ::close(wake_fd_);
  }

  int fd_;
  int wake_fd_;
  bool has_pwait2_ = true;
  std::array<epoll_event, kEventsPerWait> events_;
};

}  // namespace weir::detail
