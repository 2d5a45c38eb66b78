#include <weir/io/host_poll.h>
#include <weir/io/kernel_sockets.h>

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

namespace weir::detail {

int HostPoll::fd(int engine_fd, TimePoint deadline) noexcept {
  if (engine_fd < 0) return engine_fd;
  if (epoll_fd_ < 0) {
    if (const int failed = make(engine_fd); failed < 0) {
      close();
      return failed;
    }
  }
  if (std::exchange(deadline_, deadline) == deadline) return epoll_fd_;
  itimerspec when{};  // without a deadline: disarmed
  if (deadline != TimePoint::max()) {
    // Zero would disarm it; what has passed is readable at once.
    const auto at = std::max<std::int64_t>(deadline.time_since_epoch().count(), 1);
    when.it_value = {at / 1'000'000'000, at % 1'000'000'000};
  }
  if (::timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &when, nullptr) < 0) return -errno;
  return epoll_fd_;
}

int HostPoll::make(int engine_fd) noexcept {
  const auto kept = [](int fd) { return above_standard(fd < 0 ? -errno : fd); };
  epoll_fd_ = kept(::epoll_create1(EPOLL_CLOEXEC));
  if (epoll_fd_ < 0) return epoll_fd_;
  timer_fd_ = kept(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (timer_fd_ < 0) return timer_fd_;
  for (const int fd : {engine_fd, timer_fd_}) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) < 0) return -errno;
  }
  return 0;
}

void HostPoll::close() noexcept {
  for (int* fd : {&epoll_fd_, &timer_fd_}) {
    if (*fd >= 0) ::close(std::exchange(*fd, -1));
  }
}

}  // namespace weir::detail
