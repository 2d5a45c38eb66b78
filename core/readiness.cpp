#include <weir/core/event_loop.h>
#include <weir/core/readiness.h>

#include <poll.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>

namespace weir {
namespace detail {

/// The operation, and whom it wakes. From when it is submitted on it is the loop's, to the
/// completion and until the awaiter has looked at it or goes.
struct ReadyAwaiter::Poll final : LoopResource, FrameAllocated {
  Poll(EventLoop& on, int fd, std::uint16_t wanted, Waiter& who)
      : loop(on),
        operation(OperationKind::poll,
                  [](Operation& op, Completion done) noexcept {
                    whole_of(op, &Poll::operation)->completed(done);
                  }),
        waiter(&who),
        events(wanted) {
    operation.fd = fd;
    // io_uring's poll is not woken by POLLPRI alone.
    if ((events & (POLLIN | POLLPRI)) == POLLPRI) {
      operation.poll_changes(events);
    } else {
      operation.poll(events);
    }
    loop.keep(*this);
    loop.engine().submit(operation);
  }

  void completed(Completion done) noexcept {
    if (waiter != nullptr && result == 0) look(done);
    if (waiter == nullptr && done.more == 0) release();
  }

  /// What io_uring says may be what it was woken with, and of POLLRDHUP it tells unasked, at once
  /// and for ever.
  void look(Completion done) noexcept {
    result = done.result < 0 ? done.result : loop.sockets().look_at(operation.fd, events);
    if (result == -EINVAL) result = -EPERM;  // io_uring: a file that has no events
    if (result != 0) {
      if (done.more != 0) loop.engine().cancel(operation);
      waiter->wake();
    } else if (done.more == 0) {
      operation.poll_changes(events);
      loop.engine().submit(operation);
    }
  }

  /// Nobody asks any more.
  void let_go() noexcept {
    waiter = nullptr;
    if (operation.in_flight()) {
      loop.engine().cancel(operation);
    } else {
      release();
    }
  }

  void end_with_loop() noexcept override { loop.engine().cancel(operation); }

  void release() noexcept {
    unlink();
    delete this;
  }

  EventLoop& loop;
  Operation operation;
  Waiter* waiter;
  std::uint16_t events;
  int result = 0;
};

bool ReadyAwaiter::await_ready() {
  const auto events = static_cast<std::uint16_t>(events_);
  result_ = EventLoop::current().sockets().look_at(fd_, events);
  return result_ != 0 && Scheduler::may_go_on();
}

void ReadyAwaiter::await_suspend(std::coroutine_handle<> handle) {
  waiter_.suspend(handle);
  if (result_ != 0) {
    waiter_.wake();  // it is known, and others go first
  } else {
    poll_ = new Poll(EventLoop::current(), fd_, static_cast<std::uint16_t>(events_), waiter_);
  }
}

int ReadyAwaiter::await_resume() {
  if (poll_ != nullptr) {
    result_ = poll_->result;
    std::exchange(poll_, nullptr)->let_go();
  }
  if (result_ >= 0) return result_;
  throw std::system_error(-result_, std::generic_category(),
                          "weir: waiting for descriptor " + std::to_string(fd_));
}

void ReadyAwaiter::let_go() noexcept { poll_->let_go(); }

}  // namespace detail

detail::ReadyAwaiter readable(int fd) noexcept { return ready(fd, POLLIN); }
detail::ReadyAwaiter writable(int fd) noexcept { return ready(fd, POLLOUT); }

}  // namespace weir
