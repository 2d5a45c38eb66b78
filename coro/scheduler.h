#pragma once

#include <weir/coro/list.h>

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

namespace weir {

using namespace std::chrono_literals;  // NOLINT: so that durations are written as 30s and 5ms

using Duration = std::chrono::steady_clock::duration;
using TimePoint = std::chrono::steady_clock::time_point;

}  // namespace weir

namespace weir::detail {

class Scheduler;
class Locals;
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

/// A node of the tree of what owns what: a task group stands below the task that made it, the
/// group's tasks below the group. It answers one question: would destroying this end the very
/// coroutine that is running now? Then the destruction waits until that coroutine suspends.
///
/// A scope of a task has that task's values of `TaskLocal`; what only groups or serves others (a
/// `TaskGroup`, the body of a generator) stands for the task above it.
class Scope {
 public:
  /// `task` and `generator` are the scopes of a `Root`. `branch`: a task that its parent's frames
  /// own, and that need not be known to the parent.
  enum class Kind : std::uint8_t { task, group, generator, branch };

  explicit Scope(Scope* parent, Kind kind = Kind::task) noexcept : parent_(parent), kind_(kind) {
    if (kind != Kind::branch) link();
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  /// What stands below it goes to its parent: it may outlive this scope.
  ~Scope() {
    if (kind_ != Kind::branch || has_extra_ || below_.first_child != nullptr) end();
  }

  /// True if `inner` is this scope or stands below it.
  [[nodiscard]] bool contains(const Scope* inner) const noexcept {
    while (inner != nullptr && inner != this) inner = inner->parent_;
    return inner != nullptr;
  }

  [[nodiscard]] Scope* parent() const noexcept { return parent_; }
  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  /// When it ran last, by its loop's `clock_ms`: it has waited since.
  [[nodiscard]] std::uint32_t ran_ms() const noexcept { return ran_ms_; }
  void runs_at(std::uint32_t clock_ms) noexcept { ran_ms_ = clock_ms; }

  /// The scopes right below but branches, the latest first; nullptr: none, or no more.
  [[nodiscard]] Scope* first_below() noexcept;
  [[nodiscard]] Scope* next() const noexcept { return next_; }
  [[nodiscard]] Scope* previous() const noexcept { return previous_; }

  // For a scope without a parent that marks a place among others, for who goes through them:
  /// Behind all that stand below that one, of which there are some.
  void stand_last_below(Scope& parent) noexcept;
  /// In front of that one, which has a parent.
  void stand_before(Scope& sibling) noexcept;
  void stand_nowhere() noexcept;

  /// Moves the scope, with all that stands below it, below `parent`, which is none of those.
  void attach(Scope* parent) noexcept;

  /// For a branch, once.
  void stand_below(Scope* parent) noexcept { parent_ = parent; }

  /// The values of the task that the scope belongs to; nullptr if it has none.
  [[nodiscard]] const Locals* locals() const noexcept {
    const Scope* task = this;
    while (task != nullptr && task->is_helper()) task = task->parent_;
    return task != nullptr && task->has_extra_ ? task->own_locals() : nullptr;
  }
  /// Gives it these. False where no task stands above. Throws `std::bad_alloc`.
  bool set_locals(Locals&& locals);
  /// A task that begins: it has what runs on this thread now has, `by` being the scope of that.
  /// Throws `std::bad_alloc`.
  void inherit_locals(const Scope* by) {
    if (by == nullptr || by->locals() != nullptr) inherit_current_locals();
  }

 private:
  friend class Scheduler;

  /// In place of `below_.first_child`, for one that has values: the others need not pay for them.
  struct Extra;

  /// Stands for the task above it.
  [[nodiscard]] bool is_helper() const noexcept {
    return kind_ == Kind::group || kind_ == Kind::generator;
  }
  [[nodiscard]] Scope*& first_child() noexcept;
  [[nodiscard]] const Locals* own_locals() const noexcept;
  void inherit_current_locals();
  void end() noexcept;
  [[gnu::noinline]] void hand_over_children() noexcept;
  [[gnu::noinline]] void drop_locals() noexcept;
  void link() noexcept;
  void unlink() noexcept;
  /// Says whether what this is the scope of is doomed.
  void set_doomed(bool doomed) noexcept;
  static void add_doomed(Scope* from, std::uint32_t count) noexcept;

  Scope* parent_;
  union {
    Scope* first_child = nullptr;
    Extra* extra;  // if `has_extra_`
  } below_;
  Scope* next_ = nullptr;
  Scope* previous_ = nullptr;
  std::uint32_t doomed_count_ = 0;  // of the doomed from here down
  std::uint32_t ran_ms_ = 0;
  bool doomed_ = false;
  bool has_extra_ = false;
  Kind kind_;
};

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
  explicit Root(Scope* parent, Scope::Kind kind = Scope::Kind::task) noexcept
      : scope_(parent, kind) {}

  [[nodiscard]] Scope& scope() noexcept { return scope_; }
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

  /// Enters a scope for its own life: what owns the scope is not destroyed meanwhile.
  class Inside {
   public:
    Inside(Scheduler& scheduler, Scope* scope) noexcept
        : scheduler_(scheduler),
          scope_(std::exchange(scheduler.scope_, scope)),
          outer_(std::exchange(scheduler.outer_, this)) {}
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    ~Inside() {
      scheduler_.scope_ = scope_;
      scheduler_.outer_ = outer_;
    }

   private:
    friend class Scheduler;

    Scheduler& scheduler_;
    Scope* scope_;  // that it was entered from, where something runs too
    Inside* outer_;
  };

  /// The same while what the scope belongs to is destroyed: it is there no more at the end, and so
  /// is nobody's who interrupts this thread.
  class Burial {
   public:
    Burial(Scheduler& scheduler, Scope& scope) noexcept
        : hidden_(scheduler.burying_), inside_(scheduler, &scope) {}

   private:
    /// Counted in an order that a handler of signals sees.
    class Hidden {
     public:
      explicit Hidden(std::atomic<int>& count) noexcept : count_(count) {
        add(1);
        std::atomic_signal_fence(std::memory_order_seq_cst);
      }
      Hidden(const Hidden&) = delete;
      Hidden& operator=(const Hidden&) = delete;
      ~Hidden() {
        std::atomic_signal_fence(std::memory_order_seq_cst);
        add(-1);
      }

     private:
      void add(int more) const noexcept {
        count_.store(count_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
      }

      std::atomic<int>& count_;
    };

    Hidden hidden_;
    Inside inside_;
  };

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

  /// The owner of the coroutine that runs now, or nullptr outside of any.
  [[nodiscard]] Scope* current_scope() const noexcept { return scope_; }

  /// The same for a handler of signals that has interrupted this thread anywhere: nullptr also
  /// where the owner may be going.
  [[nodiscard]] Scope* interrupted_scope() const noexcept {
    return burying_.load(std::memory_order_relaxed) == 0 ? scope_ : nullptr;
  }

  /// Above all that runs on this loop: parent of what is made outside of any coroutine.
  [[nodiscard]] Scope& top_scope() noexcept { return top_; }

  /// What runs goes on as part of another scope of the same owner: of one above or below it.
  void go_on_in(Scope* scope) noexcept { scope_ = scope; }

  /// Whether a coroutine or destructor of `scope`, or of what stands below it, is running now.
  [[nodiscard]] bool runs_in(const Scope& scope) const noexcept;

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
  Scope* scope_ = nullptr;
  std::atomic<int> burying_ = 0;  // destructions under way, of what `scope_` may belong to
  Inside* outer_ = nullptr;       // a task started by a running one runs nested in it
};

inline void Waiter::suspend(std::coroutine_handle<> handle) noexcept {
  frame_ = handle.address();
  scheduler_ = Scheduler::current_;
  scope_ = scheduler_->scope_;
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
