#include <weir/core/signal.h>

#include <poll.h>

#include <cerrno>
#include <csignal>
#include <system_error>
#include <utility>

namespace weir {

/// The poll and its descriptor: they stay until the kernel has let go, whatever becomes of the
/// awaiter, and to the end of the turn: whoever waits again in it misses no signal.
struct SignalAwaiter::State final : LoopResource, TurnEnd, FrameAllocated {
  State(EventLoop& owner, SignalSet signals, Waiter& who)
      : loop(owner),
        waiter(&who),
        poll(OperationKind::poll, this, [](Operation& op, Completion done) noexcept {
          static_cast<State*>(op.owner)->on_poll(done);
        }) {
    fd = loop.sockets().open_signals({signals.numbers, signals.count});
    if (fd < 0) {
      throw std::system_error(-fd, std::generic_category(), "weir: signal");
    }
    poll.fd = fd;
    poll.events = POLLIN;
  }

  void on_poll(Completion done) noexcept {
    const int number =
        waiter == nullptr || done.result < 0 ? done.result : loop.sockets().take_signal(fd);
    if (waiter == nullptr) {
      release();
    } else if (number == -EAGAIN || number == -EINTR) {  // another awaiter took it
      loop.engine().submit(poll);
    } else {
      result = number;
      waiter->wake();
    }
  }

  void let_go() noexcept {
    waiter = nullptr;
    // Taken for somebody who was dropped before he saw it: it goes to the next who waits, or, with
    // the mask restored, where it would have gone without us.
    if (result > 0) loop.sockets().raise_signal(std::exchange(result, 0));
    if (poll.in_flight()) {
      loop.engine().cancel(poll);
    } else {
      loop.at_turn_end(*this);
    }
  }

  void end_turn() noexcept override { release(); }

  void end_with_loop() noexcept override { let_go(); }

  void release() noexcept {
    loop.sockets().close_signals(fd);
    static_cast<Link&>(static_cast<TurnEnd&>(*this)).unlink();
    static_cast<Link&>(static_cast<LoopResource&>(*this)).unlink();
    delete this;
  }

  EventLoop& loop;
  Waiter* waiter;
  Operation poll;
  int fd = -1;
  int result = 0;
};

SignalAwaiter::~SignalAwaiter() {
  if (state_ != nullptr) state_->let_go();
}

void SignalAwaiter::await_suspend(std::coroutine_handle<> handle) {
  EventLoop& loop = EventLoop::current();
  state_ = new State(loop, signals_, waiter_);
  waiter_.suspend(handle);
  loop.keep(*state_);
  loop.engine().submit(state_->poll);
}

int SignalAwaiter::await_resume() {
  const int result = std::exchange(state_->result, 0);
  std::exchange(state_, nullptr)->let_go();
  if (result < 0) throw std::system_error(-result, std::generic_category(), "weir: signal");
  return result;
}

}  // namespace weir
