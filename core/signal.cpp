#include <weir/core/signal.h>

#include <poll.h>

#include <bit>
#include <cerrno>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace weir::detail {
namespace {

constexpr int kMost = 64;  // signals are numbered from 1 (signal(7))

[[noreturn]] void refuse(int error) {
  throw std::system_error(error, std::generic_category(), "weir: signal");
}

std::uint64_t bits_of(const detail::SignalSet& signals) {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < signals.count; ++i) {
    const int number = signals.numbers[i];
    if (number < 1 || number > kMost) refuse(EINVAL);
    bits |= 1ULL << (number - 1);
  }
  return bits;
}

/// The lowest of them, taken out; 0 if there is none.
int take_one(std::uint64_t& came, std::uint64_t wanted) noexcept {
  if ((came & wanted) == 0) return 0;
  const int index = std::countr_zero(came & wanted);
  came &= ~(1ULL << index);
  return index + 1;
}

}  // namespace

/// What tells of signals; the kernel may poll it for longer than anybody holds it.
struct SignalSource {
  SignalSource(SignalTable& of, int descriptor) noexcept : table(of), fd(descriptor) {}
  SignalSource(const SignalSource&) = delete;
  SignalSource& operator=(const SignalSource&) = delete;
  ~SignalSource() { table.let_go(fd); }

  SignalTable& table;
  const int fd;
};

/// What a `Signals` holds, or a loop for all of its `signal`: a source, and those who wait, all on
/// one loop at a time. On that loop, or before anybody waits; `release` from anywhere.
class SignalHolder final : public LoopResource {
 public:
  /// With `of`, that loop's: it stays with it.
  SignalHolder(SignalTable& table, EventLoop* of) : table_(table), of_(of) {
    if (of_ != nullptr) {
      of_->keep(*this);
    } else {
      closing_ = std::make_unique<Closing>();
    }
  }
  SignalHolder(const SignalHolder&) = delete;
  SignalHolder& operator=(const SignalHolder&) = delete;
  ~SignalHolder() {
    end_waits(-ECANCELED);
    forget_waits();
    keep_only(0);
    if (watch_ != nullptr) watch_->let_go();
  }

  /// Ends a holder that is no loop's: on the loop where somebody waits, if another thread runs it.
  static void release(std::unique_ptr<SignalHolder> holder) noexcept {
    std::unique_lock lock(holder->mutex_);
    const Watch* watch = holder->watch_;
    if (watch == nullptr || !watch->loop.runs_elsewhere()) {
      lock.unlock();
      return;
    }
    (void)holder->table_.hold(holder->source_->fd, 0);
    const auto mailbox = watch->loop.mailbox();
    std::unique_ptr<Closing> closing = std::move(holder->closing_);
    lock.unlock();
    closing->holder = std::move(holder);
    mailbox->push(std::move(closing));
  }

  void hold(std::uint64_t more) {
    if ((held_ | more) == held_) return;
    const int fd = table_.hold(source_ != nullptr ? source_->fd : -1, held_ | more);
    if (fd < 0) refuse(-fd);
    if (source_ == nullptr) source_ = std::make_shared<SignalSource>(table_, fd);
    held_ |= more;
  }

  /// What has come by now goes to those who wait; then to this one, if there is one left.
  void look(SignalAwaiter& awaiter) {
    collect();
    awaiter.result_ = take_one(came_, awaiter.wanted_);
  }

  void wait(SignalAwaiter& awaiter) {
    EventLoop& loop = EventLoop::current();
    if (&loop.machine().signals() != &table_) {
      throw std::logic_error("weir: these Signals are of another machine than the loop's");
    }
    if (watch_ != nullptr && &watch_->loop != &loop) {
      throw std::logic_error("weir: these Signals are awaited on another loop");
    }
    if (watch_ == nullptr) set_watch(new Watch(loop, *this, source_));
    waiters_.push_back(awaiter);
    watch_->arm();
  }

  /// A wait is over. What it was told and has not looked at goes to the next who waits.
  void leave(SignalAwaiter& awaiter) noexcept {
    awaiter.link.unlink();
    if (awaiter.result_ > 0) {
      came_ |= 1ULL << (awaiter.result_ - 1);
      deliver();
    }
    if (of_ != nullptr) {
      of_->at_turn_end(*this);
    } else {
      stop_watching();
    }
  }
  void taken(SignalAwaiter& awaiter) noexcept {
    awaiter.link.unlink();
    if (of_ != nullptr) {
      kept_ |= awaiter.wanted_;
    } else {
      stop_watching();
    }
  }

  /// Of whom nobody wants any more: given back, with those that nobody saw.
  void end_turn() noexcept override {
    std::uint64_t needed = kept_;
    for (SignalAwaiter* waiter = waiters_.front(); waiter != nullptr;
         waiter = waiters_.after(*waiter)) {
      needed |= waiter->wanted_;
    }
    if ((held_ & ~needed) == 0) return;
    keep_only(needed);
    deliver();  // what came since anybody looked
  }

  void end_with_loop() noexcept override {
    of_->signals() = nullptr;
    delete this;
  }

 private:
  /// The poll of a source, on one loop; it stays until the kernel has let go of it.
  class Watch final : public LoopResource, public FrameAllocated {
   public:
    Watch(EventLoop& on, SignalHolder& of, std::shared_ptr<SignalSource> source)
        : loop(on),
          holder_(&of),
          source_(std::move(source)),
          poll_(OperationKind::poll, [](Operation& op, Completion done) noexcept {
            whole_of(op, &Watch::poll_)->on_poll(done);
          }) {
      loop.keep(*this);
    }

    void arm() noexcept {
      if (poll_.in_flight()) return;
      poll_.fd = source_->fd;
      poll_.poll(POLLIN);
      loop.engine().submit(poll_);
    }
    /// Its holder does not know it any more.
    void let_go() noexcept {
      holder_ = nullptr;
      if (poll_.in_flight()) {
        loop.engine().cancel(poll_);
      } else {
        delete this;
      }
    }
    void end_with_loop() noexcept override {
      if (holder_ == nullptr) return;
      holder_->end_waits(-ECANCELED);
      holder_->forget_waits();
      holder_->set_watch(nullptr);
      let_go();
    }

    EventLoop& loop;

   private:
    void on_poll(Completion done) noexcept {
      if (holder_ == nullptr) {
        delete this;
      } else {
        holder_->on_poll(done);
      }
    }

    SignalHolder* holder_;  // nullptr: it is gone, or does not need this any more
    const std::shared_ptr<SignalSource> source_;
    Operation poll_;
  };

  /// Made beforehand. If the loop ends first, it takes the holder with it as well.
  struct Closing final : Posted {
    void run() override { holder.reset(); }
    std::unique_ptr<SignalHolder> holder;
  };

  void set_watch(Watch* watch) noexcept {
    const std::lock_guard lock(mutex_);
    watch_ = watch;
  }

  /// Once nobody waits; then another loop may. Without a watch another thread may end this.
  void stop_watching() noexcept {
    Watch* watch = watch_;
    if (!waiters_.empty() || watch == nullptr) return;
    set_watch(nullptr);
    watch->let_go();
  }

  void collect() noexcept {
    if (source_ != nullptr) came_ |= table_.take(source_->fd);
    deliver();
  }

  void deliver() noexcept {
    for (SignalAwaiter* waiter = waiters_.front(); waiter != nullptr && came_ != 0;
         waiter = waiters_.after(*waiter)) {
      if (waiter->result_ != 0) continue;
      waiter->result_ = take_one(came_, waiter->wanted_);
      if (waiter->result_ != 0) waiter->waiter_.wake();
    }
  }

  void end_waits(int result) noexcept {
    for (SignalAwaiter* waiter = waiters_.front(); waiter != nullptr;
         waiter = waiters_.after(*waiter)) {
      if (waiter->result_ != 0) continue;
      waiter->result_ = result;
      waiter->waiter_.wake();
    }
  }
  void forget_waits() noexcept {
    while (SignalAwaiter* waiter = waiters_.pop_front()) waiter->holder_ = nullptr;
  }

  void keep_only(std::uint64_t needed) noexcept {
    if (source_ == nullptr) return;
    (void)table_.hold(source_->fd, needed);
    came_ |= table_.take(source_->fd);
    const std::uint64_t unseen = came_ & ~needed & ~kept_;
    came_ &= needed;
    held_ = needed;
    for (int number = 1; of_ != nullptr && number <= kMost; ++number) {
      if ((unseen >> (number - 1) & 1) != 0) table_.raise(number);
    }
  }

  void on_poll(Completion done) noexcept {
    collect();
    if (done.result < 0) {
      end_waits(done.result);
    } else if (!waiters_.empty()) {
      watch_->arm();
    }
  }

  SignalTable& table_;
  EventLoop* const of_;
  std::shared_ptr<SignalSource> source_;
  std::uint64_t held_ = 0;  // bit n - 1: signal n, as in the others
  std::uint64_t came_ = 0;  // and nobody was told of
  std::uint64_t kept_ = 0;  // the loop's: to its end, as somebody took one
  List<SignalAwaiter> waiters_;
  std::mutex mutex_;
  Watch* watch_ = nullptr;  // while somebody waits; changes with `mutex_` held
  std::unique_ptr<Closing> closing_;
};

SignalAwaiter::~SignalAwaiter() {
  if (holder_ != nullptr && wanted_ != 0) holder_->leave(*this);
}

bool SignalAwaiter::await_ready() {
  const std::uint64_t wanted = bits_of(signals_);
  EventLoop& loop = EventLoop::current();
  if (holder_ == nullptr) {
    if (loop.signals() == nullptr) {
      loop.signals() = new SignalHolder(loop.machine().signals(), &loop);
    }
    holder_ = static_cast<SignalHolder*>(loop.signals());
    holder_->hold(wanted);
  }
  wanted_ = wanted;
  holder_->look(*this);
  return result_ > 0;
}

void SignalAwaiter::await_suspend(std::coroutine_handle<> handle) {
  waiter_.suspend(handle);
  holder_->wait(*this);
}

int SignalAwaiter::await_resume() {
  if (SignalHolder* holder = std::exchange(holder_, nullptr)) holder->taken(*this);
  if (result_ < 0) refuse(-result_);
  return result_;
}

}  // namespace weir::detail

namespace weir {

Signals::Signals(detail::SignalSet signals) : signals_(signals) {
  const std::uint64_t bits = detail::bits_of(signals);
  auto holder =
      std::make_unique<detail::SignalHolder>(detail::current_machine().signals(), nullptr);
  holder->hold(bits);
  holder_ = holder.release();
}

Signals::~Signals() {
  detail::SignalHolder::release(std::unique_ptr<detail::SignalHolder>(holder_));
}

}  // namespace weir
