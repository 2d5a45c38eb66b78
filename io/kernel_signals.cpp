#include <weir/io/kernel_machine.h>
#include <weir/io/kernel_sockets.h>
#include <weir/io/unclaimed_signal.h>

#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <memory>
#include <mutex>
#include <system_error>

namespace weir::detail {
namespace {

constexpr int kMost = 64;  // numbers from 1

constexpr std::uint64_t bit_of(int number) noexcept { return 1ULL << (number - 1); }

/// One that is told of signals. The handler reads it on any thread, at any moment.
struct Holder {
  int fd = -1;
  std::atomic<std::uint64_t> held{0};
  std::atomic<std::uint64_t> came{0};
  std::atomic<Holder*> next{nullptr};
  pid_t stands_in = 0;  // not 0: told of what no other one holds, in that process

  // Guarded by `mutex`.
  pthread_t thread = ::pthread_self();  // of the last `hold_signals`
  std::uint64_t unblocked = 0;          // there, for as long as it holds them
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<Holder*>::is_always_lock_free);

std::atomic<Holder*> first_holder{nullptr};
std::atomic<unsigned> handlers_running{0};
std::mutex mutex;  // of all changes
std::array<struct sigaction, kMost + 1> dispositions_before;
std::atomic<std::uint64_t> ever_stood_in_for{0};

void tell(Holder& holder, int number) noexcept {
  holder.came |= bit_of(number);
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(holder.fd, &one, sizeof one);
}

/// Of several the first one. What a fork has made has nobody who could listen; and whoever put this
/// handler back when the last one had gone wants what is usual.
void tell_stand_in(int number) noexcept {
  for (Holder* holder = first_holder; holder != nullptr; holder = holder->next) {
    if (holder->stands_in == 0 || (holder->held & bit_of(number)) == 0) continue;
    if (holder->stands_in == ::getpid()) return tell(*holder, number);
    break;
  }
  if ((ever_stood_in_for & bit_of(number)) == 0) return;
  struct sigaction usual{};
  usual.sa_handler = SIG_DFL;
  (void)::sigaction(number, &usual, nullptr);
  (void)::raise(number);  // comes behind the handler
}

extern "C" void weir_tell_signal(int number) {
  const int saved = errno;
  ++handlers_running;
  bool is_claimed = false;
  for (Holder* holder = first_holder; holder != nullptr; holder = holder->next) {
    if (holder->stands_in != 0 || (holder->held & bit_of(number)) == 0) continue;
    tell(*holder, number);
    is_claimed = true;
  }
  if (!is_claimed) tell_stand_in(number);
  unsigned running = handlers_running;
  while (running != 0 && !handlers_running.compare_exchange_weak(running, running - 1)) continue;
  errno = saved;
}

/// Whatever saw the list or a holder as it was before has ended then. One that this thread was
/// interrupted by has ended already.
void wait_for_handlers() noexcept {
  while (handlers_running != 0) ::sched_yield();
}

Holder* find_holder(int fd) noexcept {
  Holder* holder = first_holder;
  while (holder != nullptr && holder->fd != fd) holder = holder->next;
  return holder;
}

/// Those that anybody holds, this one apart; or that anybody stands in for.
std::uint64_t held_by_others(const Holder* than = nullptr, bool standing_in = false) noexcept {
  std::uint64_t held = 0;
  for (Holder* holder = first_holder; holder != nullptr; holder = holder->next) {
    if (holder != than && (holder->stands_in != 0) == standing_in) held |= holder->held;
  }
  return held;
}

/// What this one leaves to nobody else.
void restore(std::uint64_t signals, const Holder& left_by) noexcept {
  const std::uint64_t stood_in_for = held_by_others(&left_by, true);
  for (int number = 1; number <= kMost; ++number) {
    struct sigaction now{};
    if ((signals & bit_of(number)) == 0 || ::sigaction(number, nullptr, &now) != 0) continue;
    if (now.sa_handler != weir_tell_signal) continue;  // somebody has put another one there
    struct sigaction& before = dispositions_before[static_cast<std::size_t>(number)];
    const bool is_stood_in_for = (stood_in_for & bit_of(number)) != 0;
    if (before.sa_handler == SIG_DFL && is_stood_in_for) continue;
    (void)::sigaction(number, &before, nullptr);
    if (is_stood_in_for) {  // in place of the default, which it is whose turn comes next
      before = {};
      before.sa_handler = SIG_DFL;
    }
  }
}

int install(std::uint64_t signals, const Holder& by) noexcept {
  struct sigaction action{};
  action.sa_handler = weir_tell_signal;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  ::sigfillset(&action.sa_mask);
  for (int number = 1; number <= kMost; ++number) {
    if ((signals & bit_of(number)) == 0) continue;
    struct sigaction before{};
    if (::sigaction(number, &action, &before) != 0) {
      const int error = errno;
      restore(signals & (bit_of(number) - 1), by);
      return -error;
    }
    if (before.sa_handler == weir_tell_signal) continue;  // of one that stands in
    dispositions_before[static_cast<std::size_t>(number)] = before;
  }
  return 0;
}

/// The program leaves it at what it does by default, but for holders.
bool is_at_default(int number) noexcept {
  struct sigaction now{};
  if (::sigaction(number, nullptr, &now) != 0) return false;
  if (now.sa_handler == weir_tell_signal) {
    now = dispositions_before[static_cast<std::size_t>(number)];
  }
  return now.sa_handler == SIG_DFL;
}

/// Sets or clears them in the mask of this thread, and gives those that were set before.
std::uint64_t mask(int how, std::uint64_t signals) noexcept {
  sigset_t set;
  sigset_t before;
  ::sigemptyset(&set);
  for (int number = 1; number <= kMost; ++number) {
    if ((signals & bit_of(number)) != 0) (void)::sigaddset(&set, number);
  }
  if (::pthread_sigmask(how, &set, &before) != 0) return 0;
  std::uint64_t set_before = 0;
  for (int number = 1; number <= kMost; ++number) {
    if (::sigismember(&before, number) == 1) set_before |= bit_of(number);
  }
  return set_before;
}

/// The thread may block all signals, as may all others: nobody would be told.
void unblock_here(Holder& holder, std::uint64_t signals) noexcept {
  if (::pthread_equal(holder.thread, ::pthread_self()) == 0) {
    holder.thread = ::pthread_self();
    holder.unblocked = 0;  // what the other thread blocks is not to be reached from here
  }
  holder.unblocked |= mask(SIG_UNBLOCK, signals) & signals;
}

void block_again(Holder& holder, std::uint64_t signals) noexcept {
  signals &= holder.unblocked;
  holder.unblocked &= ~signals;
  if (::pthread_equal(holder.thread, ::pthread_self()) == 0) return;
  for (Holder* other = first_holder; other != nullptr; other = other->next) {
    if (::pthread_equal(other->thread, holder.thread) == 0) continue;
    other->unblocked |= signals & other->held;
    signals &= ~other->held;
  }
  if (signals != 0) (void)mask(SIG_BLOCK, signals);
}

/// Adds the new ones before it takes away the old ones, whose last signals it still tells of.
int change(Holder& holder, std::uint64_t signals) noexcept {
  const std::uint64_t before = holder.held;
  const std::uint64_t others = held_by_others(&holder);
  holder.held = before | signals;
  if (const int result = install(signals & ~before & ~others, holder); result < 0) {
    holder.held = before;
    wait_for_handlers();
    return result;
  }
  unblock_here(holder, signals & ~before);
  restore(before & ~signals & ~others, holder);
  wait_for_handlers();
  holder.held = signals;
  block_again(holder, before & ~signals);
  return 0;
}

/// Of handlers that other threads were in a fork's child knows nothing.
void know_of_forks() {
  [[maybe_unused]] static const int known =
      ::pthread_atfork([] { mutex.lock(); }, [] { mutex.unlock(); },
                       [] {
                         handlers_running = 0;
                         mutex.unlock();
                       });
}

/// The descriptor of a new one, or -errno.
int add_holder(std::uint64_t signals, pid_t stands_in) {
  auto holder = std::make_unique<Holder>();
  holder->stands_in = stands_in;
  const int created = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  holder->fd = above_standard(created < 0 ? -errno : created);
  if (holder->fd < 0) return holder->fd;
  holder->next = first_holder.load();
  first_holder = holder.get();
  if (const int result = change(*holder, signals); result < 0) {
    first_holder = holder->next.load();
    ::close(holder->fd);
    return result;
  }
  return holder.release()->fd;
}

}  // namespace

int KernelSignals::hold(int fd, std::uint64_t signals) {
  know_of_forks();
  const std::lock_guard lock(mutex);
  if (fd < 0) return add_holder(signals, 0);
  Holder* holder = find_holder(fd);
  if (holder == nullptr) return -EBADF;
  const int result = change(*holder, signals);
  return result < 0 ? result : fd;
}

std::uint64_t KernelSignals::take(int fd) {
  const std::lock_guard lock(mutex);
  Holder* holder = find_holder(fd);
  if (holder == nullptr) return 0;
  std::uint64_t count = 0;
  [[maybe_unused]] const auto size = ::read(fd, &count, sizeof count);
  return holder->came.exchange(0);
}

void KernelSignals::let_go(int fd) noexcept {
  const std::lock_guard lock(mutex);
  const std::unique_ptr<Holder> holder(find_holder(fd));
  if (holder == nullptr) return;
  (void)change(*holder, 0);
  std::atomic<Holder*>* link = &first_holder;
  while (*link != holder.get()) link = &link->load()->next;
  *link = holder->next.load();
  wait_for_handlers();
  ::close(fd);
}

void KernelSignals::raise(int number) noexcept {
  {
    const std::lock_guard lock(mutex);
    if ((held_by_others() & bit_of(number)) != 0) return;  // who were told when it came
  }
  (void)::kill(::getpid(), number);
}

UnclaimedSignal::UnclaimedSignal(int number) {
  know_of_forks();
  const std::lock_guard lock(mutex);
  if (!is_at_default(number)) return;
  ever_stood_in_for |= bit_of(number);
  fd_ = add_holder(bit_of(number), ::getpid());
  if (fd_ < 0) throw std::system_error(-fd_, std::generic_category(), "weir: signal");
}

UnclaimedSignal::~UnclaimedSignal() {
  if (fd_ >= 0) process_machine().signals().let_go(fd_);
}

bool UnclaimedSignal::take() { return process_machine().signals().take(fd_) != 0; }

}  // namespace weir::detail
