#include <weir/core/survey.h>
#include <weir/coro/place.h>
#include <weir/coro/scheduler.h>
#include <weir/io/symbols.h>
#include <weir/io/thread_probe.h>

#include <execinfo.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <thread>

namespace weir::detail {
namespace {

constexpr auto kPatience = std::chrono::milliseconds(50);
constexpr auto kPause = std::chrono::microseconds(200);
constexpr int kMostFrames = 64;
/// The handler's, and what the kernel returns from it to.
constexpr int kOwnFrames = 2;

enum State : int { idle, asked, answering, answered };

/// What the handler writes, on the thread that was asked.
struct Answer {
  std::atomic<int> state{idle};
  std::atomic<pid_t> thread{0};   // that is asked
  std::atomic<pid_t> unheard{0};  // that was sent a signal which has not come yet
  std::source_location task;
  std::source_location spawned;
  int count = 0;
  std::array<void*, kMostFrames> frames{};
};

constinit Answer answer;
constinit std::mutex one_at_a_time;

static_assert(std::atomic<int>::is_always_lock_free);

/// Of what this thread runs: where it awaited last, and who spawned it. Looks at nothing but the
/// task itself, which is there while it runs: a coroutine that it awaited may have gone.
void tell_task(Answer& to) noexcept {
  Scheduler* const loop = Scheduler::current_or_null();
  Scope* scope = loop == nullptr ? nullptr : loop->running().interrupted();
  while (scope != nullptr &&
         (scope->kind() == Scope::Kind::group || scope->kind() == Scope::Kind::branch)) {
    scope = scope->parent();
  }
  const Place* place = scope == nullptr ? nullptr : Root::of(*scope).place();
  to.task = place == nullptr ? std::source_location() : place->where();
  to.spawned = scope == nullptr ? std::source_location() : Root::of(*scope).spawned();
}

extern "C" void weir_tell_stack(int) {
  const int saved = errno;
  const pid_t self = ::gettid();
  if (answer.unheard == self) answer.unheard = 0;
  int expected = asked;
  if (answer.thread == self && answer.state.compare_exchange_strong(expected, answering)) {
    tell_task(answer);
    answer.count = ::backtrace(answer.frames.data(), kMostFrames);
    answer.state = answered;
  }
  errno = saved;
}

/// A file of proc(5) about the thread; empty if there is none.
std::string read_of(pid_t thread, const char* name) {
  std::string text;
  std::getline(std::ifstream("/proc/self/task/" + std::to_string(thread) + '/' + name), text);
  return text;
}

/// As `SigBlk` of the thread's status says. All where a debugger looks on, which would stop there.
std::uint64_t blocked_by(pid_t thread) {
  std::ifstream status("/proc/self/task/" + std::to_string(thread) + "/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("TracerPid:") && std::strtol(line.c_str() + 10, nullptr, 10) != 0) break;
    if (line.starts_with("SigBlk:")) return std::strtoull(line.c_str() + 7, nullptr, 16);
  }
  return ~std::uint64_t{0};
}

struct SystemCall {
  long number;
  const char* name;
  bool goes_on = false;  // behind a handler with SA_RESTART (signal(7))
};

constexpr SystemCall kSystemCalls[] = {
    {SYS_futex, "futex", true},
    {SYS_wait4, "wait4", true},
    {SYS_waitid, "waitid", true},
    {SYS_flock, "flock", true},
    {SYS_openat, "openat", true},
    {SYS_read, "read"},
    {SYS_write, "write"},
    {SYS_readv, "readv"},
    {SYS_writev, "writev"},
    {SYS_pread64, "pread64"},
    {SYS_pwrite64, "pwrite64"},
    {SYS_fsync, "fsync"},
    {SYS_fdatasync, "fdatasync"},
    {SYS_nanosleep, "nanosleep"},
    {SYS_clock_nanosleep, "clock_nanosleep"},
    {SYS_ppoll, "ppoll"},
    {SYS_pselect6, "pselect6"},
#ifdef SYS_poll
    {SYS_poll, "poll"},
    {SYS_select, "select"},
    {SYS_epoll_wait, "epoll_wait"},
#endif
    {SYS_epoll_pwait, "epoll_pwait"},
    {SYS_io_uring_enter, "io_uring_enter"},
    {SYS_connect, "connect"},
    {SYS_accept4, "accept4"},
    {SYS_recvfrom, "recvfrom"},
    {SYS_recvmsg, "recvmsg"},
    {SYS_sendto, "sendto"},
    {SYS_sendmsg, "sendmsg"},
};

struct KernelView {
  std::string words;
  bool can_be_asked = false;
};

/// `syscall` begins with a call's number, or is "running"; the third word of `stat` is the state.
KernelView kernel_view(pid_t thread) {
  const std::string stat = read_of(thread, "stat");
  const std::size_t name_ends = stat.rfind(')');
  if (name_ends == std::string::npos || name_ends + 2 >= stat.size()) return {};
  const bool runs = stat[name_ends + 2] == 'R';
  const std::string text = read_of(thread, "syscall");
  long number = -1;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || parsed.ec != std::errc() || number < 0) {
    return {runs ? "runs" : "waits", runs};
  }
  const auto* const call =
      std::find_if(std::begin(kSystemCalls), std::end(kSystemCalls),
                   [&](const SystemCall& one) { return one.number == number; });
  const bool known = call != std::end(kSystemCalls);
  KernelView view{(runs ? "runs in " : "waits in ") +
                      (known ? call->name : "system call " + std::to_string(number)),
                  known && call->goes_on};
  const std::string where = read_of(thread, "wchan");
  if (!where.empty() && where != "0") view.words += " (" + where + ')';
  return view;
}

struct sigaction own_action() noexcept {
  struct sigaction action{};
  action.sa_handler = weir_tell_stack;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  ::sigfillset(&action.sa_mask);
  return action;
}

/// The signals that may be taken, the first one first: far from both ends, where programs look.
constexpr int kFromTheEnd = 9;
int first_signal() noexcept { return SIGRTMAX - kFromTheEnd; }

/// Nobody has a handler for it, or ignores it; our own does not count.
bool is_free(int number) noexcept {
  struct sigaction now{};
  if (::sigaction(number, nullptr, &now) != 0 || (now.sa_flags & SA_SIGINFO) != 0) return false;
  return now.sa_handler == SIG_DFL || now.sa_handler == weir_tell_stack;
}

/// Takes a signal that nobody uses; 0: there is none.
int take_signal(std::uint64_t blocked) noexcept {
  const struct sigaction action = own_action();
  for (int number = first_signal(); number >= SIGRTMIN; --number) {
    if (((blocked >> (number - 1)) & 1) != 0 || !is_free(number)) continue;
    if (::sigaction(number, &action, nullptr) == 0) return number;
  }
  return 0;
}

void give_back(int number) noexcept {
  struct sigaction now{};
  if (::sigaction(number, nullptr, &now) != 0 || (now.sa_flags & SA_SIGINFO) != 0 ||
      now.sa_handler != weir_tell_stack) {
    return;
  }
  struct sigaction usual{};
  usual.sa_handler = SIG_DFL;
  (void)::sigaction(number, &usual, nullptr);
}

/// False: it has not answered, and the handler stays for when it does.
bool wait_for_answer() noexcept {
  for (auto waited = kPause; answer.state != answered && waited < kPatience; waited += kPause) {
    std::this_thread::sleep_for(kPause);
  }
  int expected = asked;
  if (answer.state.compare_exchange_strong(expected, idle)) return false;
  // It is at it.
  for (auto waited = kPause; answer.state != answered && waited < kPatience; waited += kPause) {
    std::this_thread::sleep_for(kPause);
  }
  return answer.state == answered;
}

bool ask(pid_t thread) {
  // Loads what it needs, and allocates, the first time: not in the handler.
  static const int loaded = [] {
    void* frame = nullptr;
    return ::backtrace(&frame, 1);
  }();
  if (loaded < 0 || answer.state == answering) return false;
  answer.thread = thread;
  answer.state = asked;
  int number = 0;
  if (answer.unheard != thread) {
    number = take_signal(blocked_by(thread));
    if (number == 0) {
      answer.state = idle;
      return false;
    }
    answer.unheard = thread;
    if (::syscall(SYS_tgkill, ::getpid(), thread, number) != 0) {
      answer.unheard = 0;
      answer.state = idle;
      give_back(number);
      return false;
    }
  }
  if (!wait_for_answer()) return false;
  if (number != 0) give_back(number);
  return true;
}

}  // namespace

ThreadView look_at_thread(pid_t thread) {
  // Of a thread that the child does not have.
  static const int at_fork = ::pthread_atfork(nullptr, nullptr, [] {
    new (&one_at_a_time) std::mutex;
    answer.state = idle;
    answer.unheard = 0;
  });
  (void)at_fork;
  const std::lock_guard lock(one_at_a_time);
  ThreadView view;
  KernelView kernel = kernel_view(thread);
  view.state = std::move(kernel.words);
  if (!kernel.can_be_asked || thread == ::gettid() || !ask(thread)) return view;
  view.task = answer.task;
  if (answer.spawned.line() > 0 && !only_hands_on(answer.spawned.file_name())) {
    view.spawned = answer.spawned;
  }
  Symbols symbols;
  for (int i = kOwnFrames; i < answer.count; ++i) {
    const auto address =
        reinterpret_cast<std::uintptr_t>(answer.frames[static_cast<std::size_t>(i)]);
    // The interrupted one is where it stands, the others are where they go on: behind the call.
    view.stack.push_back(symbols.describe(i == kOwnFrames ? address : address - 1));
  }
  answer.state = idle;
  return view;
}

void let_be_asked(sigset_t& all, const sigset_t& before) noexcept {
  for (int number = first_signal(); number >= SIGRTMIN; --number) {
    if (::sigismember(&before, number) != 0 || !is_free(number)) continue;
    ::sigdelset(&all, number);
    return;
  }
}

}  // namespace weir::detail
