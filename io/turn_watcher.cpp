#include <weir/core/log_line.h>
#include <weir/core/processor.h>
#include <weir/io/kernel_machine.h>
#include <weir/io/turn_watcher.h>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <new>
#include <string>
#include <system_error>

namespace weir::detail {
namespace {

/// Looks while a turn may last: of a stall that much is not seen, at the most.
constexpr int kLooks = 4;
constexpr Duration kShortestPause = std::chrono::milliseconds(1);
/// Its thread formats one line.
constexpr std::size_t kStack = 256 << 10;

void tell(const LogLine& line) noexcept {
  static constinit LogLimit limit("stalls of event loops");
  if (limit.admits(logging::Level::warning)) logging::write(logging::Level::warning, line);
}

LogLine describe(const TurnWatch& loop, TimePoint now) noexcept {
  LogLine line;
  line << "stall: the event loop ";
  if (!loop.of.empty()) line << "\"" << loop.of << "\" ";
  line << "on thread " << loop.thread << " has been in one turn for "
       << std::chrono::duration_cast<std::chrono::milliseconds>(now - loop.since).count()
       << " ms; whatever blocks or computes there belongs into co_await blocking(…)";
  return line;
}

}  // namespace

TurnWatcher& TurnWatcher::instance() noexcept {
  alignas(TurnWatcher) static char memory[sizeof(TurnWatcher)];
  static TurnWatcher* const made = new (memory) TurnWatcher;
  return *made;
}

TurnWatcher::TurnWatcher() noexcept {
  ::pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                   [] {
                     TurnWatcher& of = instance();
                     of.loops_.clear();
                     of.running_ = false;
                     new (&of.news_) std::condition_variable;  // of the thread in the parent
                     of.mutex_.unlock();
                   });
}

void TurnWatcher::add(TurnWatch& loop) noexcept {
  const std::lock_guard lock(mutex_);
  loop.thread = ::gettid();
  loop.seen = 0;
  const bool first = loops_.empty();
  const Duration pause = std::max(loop.limit / kLooks, kShortestPause);
  loops_.push_back(loop);
  const bool sooner = first || pause < pause_;
  if (sooner) pause_ = pause;
  if (!running_) {
    start();
  } else if (sooner) {
    news_.notify_one();
  }
}

void TurnWatcher::remove(TurnWatch& loop) noexcept {
  pthread_t ended{};
  {
    const std::lock_guard lock(mutex_);
    loop.link.unlink();
    if (!loops_.empty() || !running_) return;
    running_ = false;
    ended = thread_;
    news_.notify_one();
  }
  ::pthread_join(ended, nullptr);
}

void TurnWatcher::start() noexcept {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  for (const int own_fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) {
    ::sigdelset(&all, own_fault);
  }
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) != 0) return;
  ::pthread_attr_setstacksize(&attributes, kStack);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // the new thread inherits it
  const Unbound unbound;
  const auto run = [](void* watcher) -> void* {
    ::pthread_setname_np(::pthread_self(), "weir-watch");
    static_cast<TurnWatcher*>(watcher)->run();
    return nullptr;
  };
  running_ = ::pthread_create(&thread_, &attributes, run, this) == 0;  // or with the next loop
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_attr_destroy(&attributes);
}

void TurnWatcher::run() noexcept {
  std::unique_lock lock(mutex_);
  // Once the last loop has gone it is not the one any more, whoever came since.
  while (running_ && ::pthread_equal(thread_, ::pthread_self()) != 0) {
    const TimePoint now = kernel_now();
    if (TurnWatch* stalled = look(now)) {
      stalled->told = true;
      stalled->count_stall();
      const LogLine line = describe(*stalled, now);
      lock.unlock();  // the log has a lock of its own
      tell(line);
      lock.lock();
    } else {
      news_.wait_for(lock, pause_);
    }
  }
}

TurnWatch* TurnWatcher::look(TimePoint now) noexcept {
  for (TurnWatch* loop = loops_.front(); loop != nullptr; loop = loops_.after(*loop)) {
    const std::uint64_t turn = loop->turn();
    if (turn != loop->seen) {
      loop->seen = turn;
      loop->since = now;
      loop->told = false;
    } else if (turn != 0 && !loop->told && now - loop->since >= loop->limit) {
      return loop;
    }
  }
  return nullptr;
}

}  // namespace weir::detail
