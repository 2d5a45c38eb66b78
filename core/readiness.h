#pragma once

#include <weir/coro/scheduler.h>

#include <coroutine>
#include <utility>

namespace weir {

namespace detail {

/// See `ready`.
class [[nodiscard("co_await it")]] ReadyAwaiter {
 public:
  static constexpr char kWaitsFor[] = "a descriptor to be ready";

  ReadyAwaiter(int fd, int events) noexcept : fd_(fd), events_(events) {}
  /// Moves only before it is awaited.
  ReadyAwaiter(ReadyAwaiter&& other) noexcept : fd_(other.fd_), events_(other.events_) {}
  ReadyAwaiter& operator=(ReadyAwaiter&&) = delete;
  ~ReadyAwaiter() {
    if (poll_ != nullptr) let_go();
  }

  bool await_ready();
  void await_suspend(std::coroutine_handle<> handle);
  int await_resume();

 private:
  struct Poll;  // what the kernel may still look at

  void let_go() noexcept;

  int fd_;
  int events_;
  int result_ = 0;  // 0: not known; -errno
  Waiter waiter_;
  Poll* poll_ = nullptr;
};

}  // namespace detail

/// `co_await ready(fd, events)` waits until some of the events of poll(2) (POLLIN, POLLPRI …) hold
/// of a descriptor, or it is in error or hung up (POLLERR, POLLHUP), and gives those that do: at
/// once if some do already. The descriptor may be any that poll(2) knows, of whatever library: a
/// UDP socket, a pipe, a tty, a timerfd, a pidfd, an inotify's …; it stays its owner's, and should
/// not block. It tells what held a moment ago, as poll(2) does: of several who wait for the same
/// all are told, and the first may take it all.
///
/// The descriptor has to stay open as long as anybody waits, and may be closed, and its number
/// used again, as soon as nobody does. Dropping it changes nothing. Makes no coroutine frame.
///
/// Throws `std::system_error`: `bad_file_descriptor`; `operation_not_permitted` for what cannot be
/// waited for (a regular file is always readable and writable, and never anything else); for want
/// of memory or of the kernel's watches (epoll(7)). Throws `std::logic_error` in the simulation,
/// which has no descriptors but weir's own.
inline detail::ReadyAwaiter ready(int fd, int events) noexcept {
  return detail::ReadyAwaiter(fd, events);
}

/// `co_await readable(fd)` is `ready(fd, POLLIN)`: it resumes on error and hang-up too, which the
/// next read(2) tells.
[[nodiscard]] detail::ReadyAwaiter readable(int fd) noexcept;

/// `co_await writable(fd)` is `ready(fd, POLLOUT)`: it resumes on error and hang-up too, which the
/// next write(2) tells.
[[nodiscard]] detail::ReadyAwaiter writable(int fd) noexcept;

}  // namespace weir
