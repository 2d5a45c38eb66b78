#include <weir/core/assert.h>
#include <weir/core/flight_words.h>
#include <weir/core/log_context.h>
#include <weir/core/log_json.h>
#include <weir/core/log_line.h>
#include <weir/core/log_queue.h>
#include <weir/core/logging.h>
#include <weir/core/processor.h>
#include <weir/core/stderr.h>

#include <pthread.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

namespace weir::detail {
namespace {

using logging::Format;
using logging::Level;
using namespace std::chrono_literals;

constexpr Duration kForEver = std::chrono::hours(24 * 365);
constexpr auto kPatience = 1s;  // with a logger that takes nothing

constinit std::atomic<Format> format{Format::text};
constinit thread_local LogTap* thread_tap = nullptr;
constinit thread_local bool is_log_thread = false;

// A simulated world does not come here.
auto wall_time() noexcept { return std::chrono::system_clock::now(); }  // lint: allow(unrepeatable)
auto steady_time() noexcept {
  return std::chrono::steady_clock::now();  // lint: allow(unrepeatable)
}

spdlog::level::level_enum translate(Level level) noexcept {
  switch (level) {
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warning:
      return spdlog::level::warn;
    case Level::error:
      break;
  }
  return spdlog::level::err;
}

/// Without a lock, also none of stdio's: it is used by the log's thread only, and a write that
/// blocks holds up neither an exit nor a fork.
class StderrSink final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    write_stderr({text.data(), text.size()});
  }
  void flush_() override {}
};

constexpr const char* kTextPattern = "%Y-%m-%d %H:%M:%S.%e [%n] [%l] %v";

std::shared_ptr<spdlog::logger> make_default() {
  auto logger = std::make_shared<spdlog::logger>("weir", std::make_shared<StderrSink>());
  logger->set_pattern(kTextPattern);
  logger->set_level(spdlog::level::info);
  logger->set_error_handler([](const std::string&) {});
  return logger;
}

void hand(spdlog::logger* logger, std::chrono::system_clock::time_point time, Level level,
          std::string_view text) noexcept {
  try {
    if (logger == nullptr) return;
    logger->log(time, {}, translate(level), spdlog::string_view_t(text.data(), text.size()));
  } catch (...) {
    // A message that cannot be written has nobody to be reported to.
  }
}

/// A line that was written as JSON, `fields` being what its thread wrote.
void hand_json(spdlog::logger* logger, std::chrono::system_clock::time_point time, Level level,
               std::string_view fields) noexcept {
  char text[kLongestJsonHead + LogQueue::kLongest];
  std::size_t size = write_json_head(text, time, level);
  size += fields.copy(text + size, sizeof text - size);
  hand(logger, time, level, {text, size});
}

/// One of the log's own.
void hand_own(spdlog::logger* logger, std::chrono::system_clock::time_point time, Level level,
              std::string_view text) noexcept {
  if (format.load(std::memory_order_relaxed) == Format::text) {
    return hand(logger, time, level, text);
  }
  char fields[2048];
  hand_json(logger, time, level, {fields, write_json_fields(fields, {}, text)});
}

/// Blocks what somebody else in the process is to get, so that a thread made now does as well.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    ::sigfillset(&all);
    for (const int own_fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) {
      ::sigdelset(&all, own_fault);
    }
    ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

}  // namespace

/// The queue, its thread and the logger. The thread is never joined: it may stand in a write for
/// ever, and an exit must not wait for it. Whoever forks finds the lock free on both sides; the
/// child, which has only the thread that forked, starts a thread of its own with its next line.
class Log {
 public:
  /// Never destroyed: other objects of static duration may log in their destructors. Without memory
  /// from the heap, which may have run out.
  static Log& instance() noexcept {
    alignas(Log) static char memory[sizeof(Log)];
    static Log* const made = new (memory) Log;
    return *made;
  }

  bool wants(Level level) noexcept {
    const std::lock_guard lock(mutex_);
    return wants_locked(level);
  }

  void write(Level level, std::string_view text, bool is_json = false) noexcept {
    const std::lock_guard lock(mutex_);
    if (!wants_locked(level)) return;
    queue_.push(wall_time(), level, text, is_json);
    if (start()) news_.notify_one();
  }

  bool admits(LogLimit& limit, Level level) noexcept {
    const std::lock_guard lock(mutex_);
    if (!wants_locked(level)) return false;
    const auto now = steady_time();
    if (limit.epoch_ != epoch_ || now - limit.second_ >= 1s) {
      limit.epoch_ = epoch_;
      limit.second_ = now;
      limit.lines_ = 0;
    }
    if (limit.lines_ < LogLimit::kLinesPerSecond) {
      ++limit.lines_;
      return true;
    }
    limit.level_ = level;
    if (limit.left_out_++ == 0) {
      if (limited_ == nullptr) {
        limits_due_ = limit.second_ + 1s;
        news_.notify_one();
      }
      limit.next_ = std::exchange(limited_, &limit);
    }
    return false;
  }

  bool flush(Duration limit) noexcept {
    if (is_log_thread) return false;
    std::unique_lock lock(mutex_);
    if (!running_ && queue_.empty()) return true;
    if (!start()) return false;
    asked_up_to_ = queue_.pushed();
    const std::uint64_t ticket = ++asked_;
    news_.notify_one();
    return progress_.wait_for(lock, std::min(limit, kForEver), [&] { return answered_ >= ticket; });
  }

  void set_logger(std::shared_ptr<spdlog::logger> logger) {
    flush(kPatience);
    {
      const std::lock_guard lock(mutex_);
      logger_.swap(logger);
      is_default_ = false;
      ++epoch_;
    }
    flush(kPatience);  // the thread has let go of the old one
  }

 private:
  using Lock = std::unique_lock<std::mutex>;

  Log() noexcept {
    ::pthread_atfork([] { instance().before_fork(); }, [] { instance().after_fork(); },
                     [] { instance().after_fork_in_child(); });
  }

  bool wants_locked(Level level) const noexcept {
    if (is_default_) return level >= Level::info;
    return logger_ != nullptr && logger_->should_log(translate(level));
  }

  bool start() noexcept {
    if (running_) return true;
    static const int at_exit = std::atexit([] { instance().flush_at_exit(); });
    (void)at_exit;
    const SignalsBlocked for_it;
    const Unbound unbound;
    pthread_t thread{};
    const auto run = [](void* log) -> void* {
      is_log_thread = true;
      ::pthread_setname_np(::pthread_self(), "weir-log");  // of another it takes a descriptor
      static_cast<Log*>(log)->run();
      return nullptr;
    };
    if (::pthread_create(&thread, nullptr, run, this) != 0) return false;  // with a later line
    ::pthread_detach(thread);
    running_ = true;
    return true;
  }

  [[noreturn]] void run() noexcept {
    Lock lock(mutex_);
    for (;;) {
      const bool limits_due = limited_ != nullptr && steady_time() >= limits_due_;
      const bool asked = answered_ != asked_ && queue_.gone() >= asked_up_to_;
      if (limits_due || asked) say_left_out(lock);
      if (asked) {
        answer(lock);
      } else if (!queue_.empty()) {
        deliver(lock);
      } else if (limited_ != nullptr) {
        news_.wait_until(lock, limits_due_);
      } else {
        news_.wait(lock);
      }
    }
  }

  /// Calls the function with the logger, without the lock.
  template <class F>
  void with_logger(Lock& lock, bool is_json, const F& function) noexcept {
    while (forking_ > 0) news_.wait(lock);
    busy_ = true;
    {
      auto logger = logger_;
      const bool is_default = is_default_;
      lock.unlock();
      try {
        function(is_default ? default_logger(is_json) : logger.get());
      } catch (...) {
        // There was no memory for the default logger, or a user's cannot be flushed.
      }
    }
    lock.lock();
    busy_ = false;
    progress_.notify_all();
  }

  /// On the log's thread.
  static spdlog::logger* default_logger(bool is_json) {
    static const auto* const made = new std::shared_ptr<spdlog::logger>(make_default());
    static bool was_json = false;
    if (std::exchange(was_json, is_json) != is_json) {
      (*made)->set_pattern(is_json ? "%v" : kTextPattern);
    }
    return made->get();
  }
  static bool wants_json() noexcept {
    return format.load(std::memory_order_relaxed) == Format::json;
  }

  void deliver(Lock& lock) noexcept {
    const std::uint64_t lost = queue_.take_lost();
    const LogQueue::Header line = queue_.pop(text_);
    if (lost > 0) {
      with_logger(lock, wants_json(), [&](spdlog::logger* logger) {
        hand_own(
            logger, line.time, Level::warning,
            LogLine() << lost << " lines of the log before this one are lost: too many at once");
      });
    }
    with_logger(lock, line.is_json, [&](spdlog::logger* logger) {
      (line.is_json ? hand_json : hand)(logger, line.time, line.level, {text_, line.size});
    });
  }

  /// Those that come back meanwhile have their turn a second later.
  void say_left_out(Lock& lock) noexcept {
    saying_ = std::exchange(limited_, nullptr);
    while (LogLimit* limit = saying_) {
      saying_ = std::exchange(limit->next_, nullptr);
      const std::uint64_t count = std::exchange(limit->left_out_, 0);
      const Level level = limit->level_;
      with_logger(lock, wants_json(), [&](spdlog::logger* logger) {
        hand_own(logger, wall_time(), level,
                 LogLine() << "left out " << count << " lines more: " << limit->what_);
      });
    }
  }

  void answer(Lock& lock) noexcept {
    const std::uint64_t answered = asked_;
    with_logger(lock, wants_json(), [](spdlog::logger* logger) {
      if (logger != nullptr) logger->flush();
    });
    answered_ = answered;
    progress_.notify_all();
  }

  void flush_at_exit() noexcept {
    if (!stuck_at_exit_) stuck_at_exit_ = !flush(kPatience);
  }

  /// A user's logger has locks of its own, which the child should find free: the thread calls it
  /// no more until the fork is over.
  void before_fork() noexcept {
    Lock lock(mutex_);
    ++forking_;
    if (!is_default_ && !is_log_thread) progress_.wait_for(lock, 100ms, [this] { return !busy_; });
    lock.release();
  }

  void after_fork() noexcept {
    --forking_;
    news_.notify_one();
    mutex_.unlock();
  }

  void after_fork_in_child() noexcept {
    queue_.clear();
    for (LogLimit** list : {&limited_, &saying_}) {
      while (LogLimit* limit = *list) {
        *list = std::exchange(limit->next_, nullptr);
        limit->left_out_ = 0;
      }
    }
    forking_ = 0;
    running_ = busy_ = is_log_thread = false;
    answered_ = asked_;
    new (&news_) std::condition_variable;  // of those who waited in the parent
    new (&progress_) std::condition_variable;
    mutex_.unlock();
  }

  friend struct AtExit;

  std::mutex mutex_;
  std::condition_variable news_;      // for the thread
  std::condition_variable progress_;  // for those who wait for it
  std::shared_ptr<spdlog::logger> logger_;
  bool is_default_ = true;
  bool running_ = false;
  bool busy_ = false;  // in the logger
  bool stuck_at_exit_ = false;
  std::uint64_t epoch_ = 1;  // of the logger
  std::uint64_t asked_ = 0;  // to flush; the same for all that were asked before it is answered
  std::uint64_t asked_up_to_ = 0;
  std::uint64_t answered_ = 0;
  int forking_ = 0;  // threads that do
  LogLimit* limited_ = nullptr;
  LogLimit* saying_ = nullptr;  // those of them that the thread is about to tell of
  std::chrono::steady_clock::time_point limits_due_{};
  char text_[LogQueue::kLongest];  // the thread's own
  LogQueue queue_;
};

/// Once more, for what objects of static duration have said in their destructors: those are older
/// than the first line, at which the log registers itself.
struct AtExit {
  AtExit() = default;
  AtExit(const AtExit&) = delete;
  AtExit& operator=(const AtExit&) = delete;
  ~AtExit() { Log::instance().flush_at_exit(); }
} const at_exit;

LogTap* set_log_tap(LogTap* tap) noexcept { return std::exchange(thread_tap, tap); }

bool flush_log(Duration limit) noexcept { return Log::instance().flush(limit); }

bool LogLimit::admits(Level level) noexcept {
  return thread_tap != nullptr || Log::instance().admits(*this, level);
}

}  // namespace weir::detail

namespace weir::logging {

void set_format(Format format) noexcept { detail::format.store(format, std::memory_order_relaxed); }

void set_logger(std::shared_ptr<spdlog::logger> logger) {
  detail::Log::instance().set_logger(std::move(logger));
}

bool enabled(Level level) noexcept {
  return detail::thread_tap != nullptr || detail::Log::instance().wants(level);
}

namespace {

void write_plain(Level level, std::string_view message) noexcept {
  if (detail::thread_tap != nullptr) {
    detail::thread_tap->take(level, message);
  } else {
    detail::Log::instance().write(level, message);
  }
}

[[gnu::noinline]] void write_json(std::string_view context, Level level,
                                  std::string_view message) noexcept {
  char text[detail::LogQueue::kLongest];
  const std::size_t size = detail::write_json_fields(text, context, message);
  detail::Log::instance().write(level, {text, size}, true);
}

[[gnu::noinline]] void write_with(std::string_view context, Level level,
                                  std::string_view message) noexcept {
  char text[detail::LogQueue::kLongest];
  std::size_t size = 0;
  for (const std::string_view part :
       {std::string_view("["), context, std::string_view("] "), message}) {
    size += part.copy(text + size, sizeof text - size);
  }
  write_plain(level, {text, size});
}

}  // namespace

void write(Level level, std::string_view message) noexcept {
  const std::string_view context = detail::log_context();
  if (detail::format.load(std::memory_order_relaxed) == Format::json &&
      detail::thread_tap == nullptr) {
    if (enabled(level)) write_json(context, level, message);
  } else if (context.empty()) {
    write_plain(level, message);
  } else if (enabled(level)) {
    write_with(context, level, message);
  }
}

}  // namespace weir::logging

namespace weir {

void assertion_failed(const char* condition, const char* file, int line) noexcept {
  const detail::SignalsBlocked sigpipe;
  (void)logging::flush(detail::kPatience);  // it may tell how it came to that
  char text[1024];
  std::snprintf(text, sizeof text, "weir: assertion failed: %s (%s:%d); please report this\n",
                condition, file, line);
  detail::write_stderr_within(detail::kPatience, text);
  detail::write_last_events(detail::kPatience);
  std::abort();
}

}  // namespace weir
