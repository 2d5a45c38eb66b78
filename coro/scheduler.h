#pragma once

#include <weir/coro/flight_recorder.h>
#include <weir/coro/list.h>
#include <weir/coro/scope.h>

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <source_location>
#include <utility>

namespace weir {

using namespace std::chrono_literals;  // NOLINT: so that durations are written as 30s and 5ms

using Duration = std::chrono::steady_clock::duration;
using TimePoint = std::chrono::steady_clock::time_point;

}  // namespace weir

namespace weir::detail {

class Scheduler;
class Place;

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

/// A suspended coroutine, in a wait list or in its loop's ready queue. Lives in the frame of the
/// coroutine; its destructor takes it out of whichever list it is in, so a destroyed frame is
/// never resumed.
class Waiter {
 public:
  Waiter() noexcept {}  // NOLINT: the rest has no meaning before `suspend`

  /// An awaiter may move until it is awaited; a waiter that waits stays where it is.
  Waiter(Waiter&& other) noexcept : Waiter() { (void)other; }

  /// Notes whom to resume, and on which loop. To be called on that loop.
  void suspend(std::coroutine_handle<> handle) noexcept;

  /// Puts the waiter at the end of its loop's ready queue; the loop resumes it in its turn. To be
  /// called on that loop.
  void wake() noexcept;
  /// The same for one that is in no list.
  void wake_unlinked() noexcept;

  /// The same, also from other threads. Whoever calls it holds the lock that a drop of the waiter
  /// takes before it calls `forget_wake`, so that neither the waiter nor its loop can go meanwhile.
  /// It cannot fail.
  void wake_from_anywhere() noexcept;
  /// For the destructor of what may have been woken from anywhere; on its own loop. True if it was
  /// in a list until now: nobody has resumed it.
  bool forget_wake() noexcept;

  [[nodiscard]] Scheduler* scheduler() const noexcept { return scheduler_; }
  /// Of whoever waits, once it does.
  [[nodiscard]] const Scope* scope() const noexcept { return scope_; }

  /// Where its coroutine waits, as the promises of the library's begin with a Place: behind the
  /// frame's two functions (the Itanium ABI of GCC and Clang alike). Of others' promises it is
  /// anything, and looked at as such. Once suspended.
  [[nodiscard]] std::uint64_t place() const noexcept {
    std::uintptr_t where = 0;
    std::memcpy(&where, static_cast<const std::byte*>(frame_) + 2 * sizeof(void*), sizeof where);
    return where;
  }

  /// In a wait list, or woken.
  [[nodiscard]] bool linked() const noexcept { return link.linked(); }
  void unlink() noexcept { link.unlink(); }
  void mark_unlinked() noexcept { link.mark_unlinked(); }

  Link link;

 private:
  friend class Scheduler;

  void* frame_;  // of the coroutine; set with the rest by `suspend`
  Scheduler* scheduler_ = nullptr;
  Scope* scope_;
};

/// A deadline in a loop's timer queue; its destructor disarms it. `fire` runs in the loop's turn
/// and may wake waiters; it resumes nobody.
class Timer {
 public:
  using Handler = void (*)(Timer&) noexcept;

  explicit Timer(Handler fire) noexcept : fire_(fire) {}
  Timer(Timer&& other) noexcept : fire_(other.fire_) {}
  ~Timer() { disarm(); }

  /// To be called on `scheduler`'s thread. An armed timer moves to the new deadline.
  void arm(Scheduler& scheduler, TimePoint deadline);
  void disarm() noexcept;
  [[nodiscard]] bool armed() const noexcept { return link.linked(); }
  [[nodiscard]] TimePoint deadline() const noexcept { return deadline_; }

  Link link;  // the queue's

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

/// Owns a coroutine: a task of a group, or the body of a generator. The link stands in the group's
/// list, or in the scheduler's list of the doomed.
class Root {
 public:
  explicit Root(Scope* parent, Scope::Kind kind = Scope::Kind::task,
                std::source_location spawned = {}) noexcept
      : spawned_(spawned), scope_(parent, kind) {}

  [[nodiscard]] Scope& scope() noexcept { return scope_; }
  /// Who made it; a line of 0: the library, or it is not known.
  [[nodiscard]] std::source_location spawned() const noexcept { return spawned_; }
  /// Whose scope this is, of a task or a generator.
  [[nodiscard]] static Root& of(Scope& scope) noexcept { return *whole_of(scope, &Root::scope_); }

  /// Where its coroutine waits, which must be suspended; nullptr if it has ended.
  [[nodiscard]] virtual const Place* place() const noexcept = 0;

  /// The coroutine has come to its end, where it is suspended. It is destroyed as soon as control
  /// is back at who resumed it.
  virtual void finished() noexcept = 0;

  /// Destroys the coroutine, which must be suspended, and this object with it.
  virtual void destroy() noexcept = 0;

  Link link;

 protected:
  ~Root() = default;

 private:
  std::source_location spawned_;
  [[no_unique_address]] Scope scope_;  // what follows lies in its padding
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

  /// True if another thread is running this loop now: nothing of it may be touched then, `post`
  /// apart. From any thread.
  [[nodiscard]] virtual bool runs_elsewhere() const noexcept { return false; }

  /// Milliseconds of a clock that is looked at once a turn, from some point on; wraps around.
  /// From any thread.
  [[nodiscard]] std::uint32_t clock_ms() const noexcept {
    return clock_ms_.load(std::memory_order_relaxed);
  }

  /// Called where an exception has nobody left to go to: it is logged.
  virtual void report_failure(std::exception_ptr failure, const char* where) noexcept = 0;

  /// What runs on it now, and what is above that.
  [[nodiscard]] Running& running() noexcept { return now_running_; }
  [[nodiscard]] const Running& running() const noexcept { return now_running_; }

  /// Above all that runs on this loop: parent of what is made outside of any coroutine.
  [[nodiscard]] Scope& top_scope() noexcept { return top_; }

  /// To be asked by an awaitable that is ready at once: false for one in some hundred, which goes
  /// through the ready queue then. A coroutine that never has to wait leaves the others, the timers
  /// and the kernel their turn that way.
  [[nodiscard]] static bool may_go_on() noexcept {
    Scheduler* loop = current_;
    if (loop == nullptr || --loop->at_once_ != 0) [[likely]]
      return true;
    loop->at_once_ = kMostAtOnce;
    return false;
  }

  /// Resumes `handle` as part of `scope`, nested in whatever runs now; used to start a task.
  void run_in_scope(Scope* scope, std::coroutine_handle<> handle);

  /// Destroys `roots`: at once, or, where that would destroy a coroutine that is running now (the
  /// caller, one that started the caller, or one whose destructors run), as soon as those are
  /// suspended. Innermost first: what a frame owns goes before it.
  void destroy(List<Root>& roots) noexcept;
  void destroy(Root& root) noexcept;

  /// Those that had to wait for something that is over now.
  void destroy_waiting() noexcept {
    if (!doomed_.empty()) bury_doomed();
  }

  /// Destroys `root`, whose coroutine is suspending for good now, as soon as that is done.
  void destroy_finished(Root& root) noexcept { doom(root); }

  /// What came last: its thread notes, any reads.
  FlightRecorder flight{clock_ms_};

 protected:
  Scheduler() = default;
  virtual ~Scheduler() = default;

  static void set_current(Scheduler* scheduler) noexcept { current_ = scheduler; }
  void set_clock_ms(std::uint32_t now) noexcept { clock_ms_.store(now, std::memory_order_relaxed); }

  /// Whether `run_ready` has something to do.
  [[nodiscard]] bool has_ready() const noexcept { return !ready_.empty() || !doomed_.empty(); }

  /// The scope of the waiter that `run_ready` would resume first; nullptr if it would resume none.
  [[nodiscard]] const Scope* next_ready() const noexcept {
    const Waiter* next = ready_.front();
    return next != nullptr ? next->scope_ : nullptr;
  }

  /// In the child of a fork: whoever had the lock is not there.
  void renew_lock() noexcept { new (&woken_mutex_) std::mutex; }

  /// Ends the wait of a loop that sleeps, or the next one, so that it calls `take_woken`. From any
  /// thread.
  virtual void knock() noexcept = 0;
  /// Makes ready whom other threads have woken.
  void take_woken() noexcept;

  /// Resumes waiters in the order in which they were woken, `most` at the most; gives how many.
  std::size_t run_ready(std::size_t most);

  /// Destroys those of the doomed that do not run any more, innermost first.
  void bury_doomed() noexcept;

 private:
  friend class Waiter;
  friend class Timer;

  virtual void arm(Timer& timer) = 0;
  virtual void disarm(Timer& timer) noexcept = 0;

  static inline constinit thread_local Scheduler* current_ = nullptr;

  void doom(Root& root) noexcept;

  static constexpr std::uint32_t kMostAtOnce = 256;

  List<Waiter> ready_;
  std::mutex woken_mutex_;
  List<Waiter> woken_;  // by other threads
  List<Root> doomed_;
  std::uint32_t at_once_ = kMostAtOnce;  // left in this turn
  std::atomic<std::uint32_t> clock_ms_ = 0;
  Scope top_{nullptr, Scope::Kind::group};
  Running now_running_;
};

inline void Waiter::suspend(std::coroutine_handle<> handle) noexcept {
  frame_ = handle.address();
  scheduler_ = Scheduler::current_;
  scope_ = scheduler_->now_running_.scope();
}

inline void Waiter::wake() noexcept { scheduler_->ready_.push_back(*this); }
inline void Waiter::wake_unlinked() noexcept { scheduler_->ready_.push_unlinked(*this); }

inline void Timer::arm(Scheduler& scheduler, TimePoint deadline) {
  disarm();
  scheduler_ = &scheduler;
  deadline_ = deadline;
  scheduler.arm(*this);
}

inline void Timer::disarm() noexcept {
  if (armed()) scheduler_->disarm(*this);
}

}  // namespace weir::detail
