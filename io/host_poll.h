#pragma once

#include <weir/coro/scheduler.h>

namespace weir::detail {

/// What a host polls in place of a loop's wait: an engine's own descriptor, and a timer.
class HostPoll {
 public:
  HostPoll() noexcept = default;
  HostPoll(const HostPoll&) = delete;
  HostPoll& operator=(const HostPoll&) = delete;
  ~HostPoll() { close(); }

  /// The descriptor, which is made by the first call; readable as `engine_fd` is, and when the
  /// deadline has passed. Or a negative error number; also if the engine has none.
  int fd(int engine_fd, TimePoint deadline) noexcept;

 private:
  int make(int engine_fd) noexcept;
  void close() noexcept;

  int epoll_fd_ = -1;
  int timer_fd_ = -1;
  TimePoint deadline_ = TimePoint::max();  // of the timer
};

}  // namespace weir::detail
