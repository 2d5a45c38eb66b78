#pragma once

#include <weir/coro/list.h>

#include <chrono>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <memory>

namespace weir {

using namespace std::chrono_literals;  // NOLINT: so that durations are written as 30s and 5ms

using Duration = std::chrono::steady_clock::duration;
using TimePoint = std::chrono::steady_clock::time_point;

class Scheduler;

/// `now + delay`, saturating: a delay that reaches past the clock's range means "never".
[[nodiscard]] constexpr TimePoint after(TimePoint now, Duration delay) noexcept {
  if (delay <= Duration::zero()) return now;
  return delay > TimePoint::max() - now ? TimePoint::max() : now + delay;
}

/// A delay in any unit as a `Duration`, saturating, rounded up.
template <class Rep, class Period>
[[nodiscard]] constexpr Duration to_duration(std::chrono::duration<Rep, Period> delay) noexcept {
  using Seconds = std::chrono::duration<double>;
  if (Seconds(delay) >= Seconds(Duration::max())) return Duration::max();
  if (Seconds(delay) <= Seconds(Duration::min())) return Duration::min();
  return std::chrono::ceil<Duration>(delay);
}

/// A node of the tree of what owns what: a task group stands below the task that made it, the
/// group's tasks below the group. It answers one question: would destroying this end the very
/// coroutine that is running now? Then the destruction waits until that coroutine suspends.
class Scope {
 public:
  explicit Scope(Scope* parent) noexcept { attach(parent); }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope() { detach(); }

  /// True if `inner` is this scope or stands below it.
  [[nodiscard]] bool contains(const Scope* inner) const noexcept {
    while (inner != nullptr && inner != this) inner = inner->parent_;
    return inner != nullptr;
  }

  void attach(Scope* parent) noexcept;
  void detach() noexcept;

 private:
  Scope* parent_ = nullptr;
  Scope* first_child_ = nullptr;
  Scope* next_ = nullptr;
  Scope* previous_ = nullptr;
};

/// A suspended coroutine, in a wait list or in its loop's ready queue. Lives in the frame of the
/// coroutine; its destructor takes it out of whichever list it is in, so a destroyed frame is
/// never resumed.
class Waiter : public Link {
 public:
  Waiter() noexcept {}  // NOLINT: the rest has no meaning before `suspend`

  /// An awaiter may move until it is awaited; a waiter that waits stays where it is.
  Waiter(Waiter&& other) noexcept : Waiter() { (void)other; }

  /// Notes whom to resume, and on which loop. To be called on that loop.
  void suspend(std::coroutine_handle<> handle) noexcept;

  /// Puts the waiter at the end of its loop's ready queue; the loop resumes it in its turn. To be
  /// called on that loop.
  void wake() noexcept;

  [[nodiscard]] Scheduler* scheduler() const noexcept { return scheduler_; }

 private:
  friend class Scheduler;

  void* frame_;  // of the coroutine; set with the rest by `suspend`
  Scheduler* scheduler_ = nullptr;
  Scope* scope_;
};

/// A deadline in a loop's timer queue; its destructor disarms it. `fire` runs in the loop's turn
/// and may wake waiters; it resumes nobody.
class Timer : public Link {
 public:
  using Handler = void (*)(Timer&) noexcept;

  explicit Timer(Handler fire) noexcept : fire_(fire) {}
  Timer(Timer&& other) noexcept : fire_(other.fire_) {}
  ~Timer() { disarm(); }

  /// To be called on `scheduler`'s thread. An armed timer moves to the new deadline.
  void arm(Scheduler& scheduler, TimePoint deadline);
  void disarm() noexcept;
  [[nodiscard]] bool armed() const noexcept { return linked(); }
  [[nodiscard]] TimePoint deadline() const noexcept { return deadline_; }

 private:
  friend class TimerWheel;

  Handler fire_;
  Scheduler* scheduler_ = nullptr;
  TimePoint deadline_{};
  std::uint16_t slot_ = 0;  // where the timer wheel keeps it
};

/// Work posted to a loop from another thread. Deleted unrun if the loop ends first.
class Posted {
 public:
  Posted() noexcept = default;
  Posted(const Posted&) = delete;
  Posted& operator=(const Posted&) = delete;
  virtual ~Posted() = default;
  virtual void run() = 0;

 private:
  friend class Mailbox;
  Posted* next_ = nullptr;
};

template <class Function>
class PostedFunction final : public Posted {
 public:
  explicit PostedFunction(Function&& function) : function_(std::move(function)) {}
  explicit PostedFunction(const Function& function) : function_(function) {}
  void run() override { function_(); }

 private:
  Function function_;
};

/// Owns a coroutine that nobody awaits: a task of a group. The link stands in the group's list, or
/// in the scheduler's list of the doomed.
class Root : public Link {
 public:
  explicit Root(Scope* parent) noexcept : scope_(parent) {}

  [[nodiscard]] Scope& scope() noexcept { return scope_; }

  /// The coroutine has come to its end, where it is suspended. It is destroyed as soon as control
  /// is back at who resumed it.
  virtual void finished() noexcept = 0;

  /// Destroys the coroutine, which must be suspended, and this object with it.
  virtual void destroy() noexcept = 0;

 protected:
  ~Root() = default;

 private:
  Scope scope_;
};

/// What coroutines need of a loop, and all that this layer knows of one.
class Scheduler {
 public:
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  /// The loop that runs on this thread. Throws `std::logic_error` where none does.
  static Scheduler& current();
  [[nodiscard]] static Scheduler* current_or_null() noexcept { return current_; }

  /// Cached per turn of the loop, monotonic.
  [[nodiscard]] virtual TimePoint now() noexcept = 0;

  /// `delay` from this very moment, not from the start of the turn: nothing that is armed with it
  /// ends early. Saturating.
  [[nodiscard]] virtual TimePoint deadline_in(Duration delay) noexcept = 0;

  /// Runs `work` in a turn of this loop. From any thread; the one member that may be.
  virtual void post(std::unique_ptr<Posted> work) = 0;

  template <class Function>
  void post_function(Function&& function) {
    using Stored = PostedFunction<std::decay_t<Function>>;
    post(std::make_unique<Stored>(std::forward<Function>(function)));
  }

  /// Called where an exception has nobody left to go to: it is logged.
  virtual void report_failure(std::exception_ptr failure, const char* where) noexcept = 0;

  /// The owner of the coroutine that runs now, or nullptr outside of any.
  [[nodiscard]] Scope* current_scope() const noexcept { return scope_; }

  /// Resumes `handle` as part of `scope`, nested in whatever runs now; used to start a task.
  void run_in_scope(Scope* scope, std::coroutine_handle<> handle);

  /// Destroys `root`: at once, or, where that would destroy a coroutine that is running now (the
  /// caller, or one that started the caller), as soon as those are suspended.
  void destroy(Root& root) noexcept;

  /// Destroys `root`, whose coroutine is suspending for good now, as soon as that is done.
  void destroy_finished(Root& root) noexcept { doomed_.push_back(root); }

 protected:
  Scheduler() = default;
  virtual ~Scheduler() = default;

  static void set_current(Scheduler* scheduler) noexcept { current_ = scheduler; }

  [[nodiscard]] bool has_ready() const noexcept { return !ready_.empty(); }

  /// Resumes waiters in the order in which they were woken, `most` at the most; gives how many.
  std::size_t run_ready(std::size_t most);

  /// Those that do not run any more, innermost first.
  void bury_doomed() noexcept;

 private:
  friend class Waiter;
  friend class Timer;

  virtual void arm(Timer& timer) = 0;
  virtual void disarm(Timer& timer) noexcept = 0;

  static inline constinit thread_local Scheduler* current_ = nullptr;

  /// What runs now, innermost first: a task started by a running one runs nested in it.
  struct Running {
    Scope* scope;
    Running* outer;
  };

  [[nodiscard]] bool runs_in(const Scope& scope) const noexcept;
  [[nodiscard]] bool owns_doomed(Root& root) noexcept;

  List<Waiter> ready_;
  List<Root> doomed_;
  Scope* scope_ = nullptr;
  Running* outer_ = nullptr;
};

inline void Waiter::suspend(std::coroutine_handle<> handle) noexcept {
  frame_ = handle.address();
  scheduler_ = Scheduler::current_;
  scope_ = scheduler_->scope_;
}

inline void Waiter::wake() noexcept { scheduler_->ready_.push_back(*this); }

inline void Timer::arm(Scheduler& scheduler, TimePoint deadline) {
  disarm();
  scheduler_ = &scheduler;
  deadline_ = deadline;
  scheduler.arm(*this);
}

inline void Timer::disarm() noexcept {
  if (linked()) scheduler_->disarm(*this);
}

}  // namespace weir
