#include <weir/core/log_line.h>
#include <weir/core/processor.h>
#include <weir/core/task_words.h>
#include <weir/io/kernel_machine.h>
#include <weir/io/thread_probe.h>
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
/// Its thread formats some lines.
constexpr std::size_t kStack = 256 << 10;
/// Of a stack, in a line of the log.
constexpr std::size_t kMostCalls = 16;

constinit LogLimit limit("stalls of event loops");

LogLine describe(const TurnWatch& loop, TimePoint now) noexcept {
  LogLine line;
  line << "stall: the event loop ";
  if (!loop.of.empty()) line << "\"" << loop.of << "\" ";
  line << "on thread " << loop.thread << " has been in one turn for "
       << std::chrono::duration_cast<std::chrono::milliseconds>(now - loop.since).count() << " ms";
  return line;
}

void add_view(LogLine& line, const ThreadView& view) {
  if (view.task.line() != 0) {
    line << ", in the task that awaited last in " << words_of(view.task);
  } else if (view.spawned.line() != 0) {
    line << ", in the task that was spawned by " << words_of(view.spawned);
  }
  if (!view.state.empty()) line << ", and " << view.state;
}

void write_stack(int thread, const ThreadView& view) noexcept {
  if (view.stack.empty()) return;
  LogLine line;
  line << "stall: the stack of thread " << thread << ": ";
  for (std::size_t i = 0; i < std::min(view.stack.size(), kMostCalls); ++i) {
    if (i > 0) line << " < ";
    line << view.stack[i];
  }
  logging::write(logging::Level::warning, line);
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
                     of.watch_ = Watch::kept;
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
  loop.set_unwatched(false);
  const bool resting = watch_ == Watch::off;
  if (watch_ != Watch::kept) set_unwatched(false);
  const bool sooner = first || pause < pause_;
  if (sooner) pause_ = pause;
  if (!running_) {
    start();
  } else if (sooner || resting) {
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
    watch_ = Watch::kept;
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
      tell(lock, *stalled, now);
    } else {
      wait_for_next(lock);
    }
  }
}

/// Without the lock, but for what the loop has: the log has one of its own, and the thread is
/// waited for.
void TurnWatcher::tell(std::unique_lock<std::mutex>& lock, TurnWatch& stalled,
                       TimePoint now) noexcept {
  stalled.told = true;
  stalled.count_stall();
  LogLine line = describe(stalled, now);
  const int thread = stalled.thread;
  lock.unlock();
  if (limit.admits(logging::Level::warning)) {
    ThreadView view;
    try {
      view = look_at_thread(thread);
      add_view(line, view);
    } catch (...) {  // short of memory: without
    }
    line << "; whatever blocks or computes there belongs into co_await blocking(…)";
    logging::write(logging::Level::warning, line);
    write_stack(thread, view);
  }
  lock.lock();
}

/// When all loops wait they are told that they may not be looked at any more. If all wait a pause
/// later they are not: a turn that began before its loop could see that is seen by then. It is no
/// matter of memory order: a store is seen by others long before the pause is over. So a turn costs
/// no fence.
void TurnWatcher::wait_for_next(std::unique_lock<std::mutex>& lock) noexcept {
  if (!all_wait()) {
    if (watch_ == Watch::ending) set_unwatched(false);
  } else if (watch_ == Watch::kept) {
    set_unwatched(true);
  } else {
    watch_ = Watch::off;
    news_.wait(lock);
    return;
  }
  news_.wait_for(lock, pause_);
}

bool TurnWatcher::all_wait() noexcept {
  for (TurnWatch* loop = loops_.front(); loop != nullptr; loop = loops_.after(*loop)) {
    if (loop->turn() != 0) return false;
  }
  return true;
}

void TurnWatcher::set_unwatched(bool unwatched) noexcept {
  for (TurnWatch* loop = loops_.front(); loop != nullptr; loop = loops_.after(*loop)) {
    loop->set_unwatched(unwatched);
  }
  watch_ = unwatched ? Watch::ending : Watch::kept;
}

void TurnWatcher::wake(TurnWatch& loop) noexcept {
  const std::lock_guard lock(mutex_);
  loop.set_unwatched(false);
  const bool resting = watch_ == Watch::off;
  set_unwatched(false);
  if (resting) news_.notify_one();
}

std::uint64_t TurnWatcher::looks() noexcept {
  const std::lock_guard lock(mutex_);
  return looks_;
}

bool TurnWatcher::rests() noexcept {
  const std::lock_guard lock(mutex_);
  return watch_ == Watch::off;
}

void TurnWatch::wake_watcher() noexcept { TurnWatcher::instance().wake(*this); }

TurnWatch* TurnWatcher::look(TimePoint now) noexcept {
  ++looks_;
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
