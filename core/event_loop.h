#pragma once

#include <weir/core/all_loops.h>
#include <weir/core/engine.h>
#include <weir/core/histogram.h>
#include <weir/core/machine.h>
#include <weir/core/mailbox.h>
#include <weir/core/metrics.h>
#include <weir/core/options.h>
#include <weir/core/timer_wheel.h>
#include <weir/core/turn_watch.h>
#include <weir/coro/locals.h>
#include <weir/coro/owner.h>
#include <weir/coro/scheduler.h>
#include <weir/coro/task.h>
#include <weir/coro/task_group.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <source_location>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

namespace weir {

namespace detail {

class LogLine;
struct LoopReport;

/// Work for the end of the current turn, after everything that was ready has run: where a
/// connection sends at once all that was queued in the turn.
class TurnEnd {
 public:
  virtual void end_turn() noexcept = 0;

  [[nodiscard]] bool is_due() const noexcept { return link.linked(); }
  void call_off() noexcept { link.unlink(); }

  Link link;  // of those that are due

 protected:
  ~TurnEnd() = default;
};

/// Something that lives on a loop and that the kernel may still touch: the loop keeps it until it
/// has let go, and asks it to when the loop ends.
class LoopResource : public TurnEnd {
 public:
  /// The loop is being destroyed: finish what cannot wait, then leave the loop's list.
  virtual void end_with_loop() noexcept = 0;

  /// A run has ended by itself. True if this still has to finish something in the background, which
  /// it is to hurry up with; asked again each turn. It may end itself.
  virtual bool finish_with_run() noexcept { return false; }

  /// Adds what there is to tell of it. On the loop's thread.
  virtual void describe(LoopReport& /*report*/) const {}

  /// The name of the connection that the running coroutine, of this scope, is the handler of, or is
  /// below; false: of none. On the loop's thread.
  virtual bool write_handled(LogLine& /*to*/, const Scope& /*running*/) const noexcept {
    return false;
  }

  /// For one that has nothing to do at the end of a turn.
  void end_turn() noexcept override {}

  void unlink() noexcept { link.unlink(); }

  Link link;  // the loop's list, or of who sees to it in place of the loop

 protected:
  ~LoopResource() = default;
};

}  // namespace detail

/// One thread, one engine: resumes coroutines, fires timers, moves bytes.
///
/// May be made on one thread and run on another; from its first run on it belongs to that thread.
/// `post`, `stop` and `spawn` may be called from any thread, all else on the loop's own, or while
/// it does not run. Its destructor drops every task, finishes or ends what the kernel still does,
/// and waits for that: background closes for their `linger` at the most.
class EventLoop final : public detail::Scheduler {
 public:
  /// Throws `std::system_error`, whose text names the cause and the cure, where the engine asked
  /// for cannot be had, and `std::invalid_argument` for a bad option.
  explicit EventLoop(LoopOptions options = {});
  /// On an engine that was made elsewhere, and the machine that goes with it.
  EventLoop(LoopOptions options, detail::Machine& machine,
            std::unique_ptr<detail::IoEngine> engine);
  ~EventLoop() override;

  /// The loop that runs on this thread. Throws `std::logic_error` where none does.
  static EventLoop& current();
  [[nodiscard]] static EventLoop* current_or_null() noexcept {
    return static_cast<EventLoop*>(detail::Scheduler::current_or_null());
  }

  /// Runs until `stop`. A stop that came before the run ends it at once. May be run again.
  void run();

  /// Ends `run` after the current turn. From any thread. The tasks stay as they are.
  void stop();

  /// Calls `function` in a turn of this loop; from any thread. Calls of one thread stay in order.
  /// An exception that leaves it is logged. If the loop ends first, it is deleted uncalled.
  template <class Function>
  void post(Function&& function) {
    post_function(std::forward<Function>(function));
  }

  /// Starts a task of the loop's own, dropped with the loop at the latest; from any thread. An
  /// exception that leaves it is logged. It begins with the spawning task's values of each
  /// `TaskLocal`, which are copied for another loop.
  template <class T>
  void spawn(Task<T> task, std::source_location where = detail::kTracesTasks
                                                            ? std::source_location::current()
                                                            : std::source_location()) {
    if (in_loop_thread()) {
      spawn_here(std::move(task), where);
    } else {
      post_function([this, where, task = std::move(task),
                     locals = detail::current_locals_for_thread()]() mutable {
        const detail::LocalsHere spawning(std::move(locals));
        spawn_here(std::move(task), where);
      });
    }
  }

  /// The same with the task that a callable returns; it is called in a turn of the loop, and kept
  /// as long as the task: `loop.spawn([&, text]() -> Task<> { … })`.
  template <detail::TaskFunction Function>
  void spawn(Function function, std::source_location where = detail::kTracesTasks
                                                                 ? std::source_location::current()
                                                                 : std::source_location()) {
    spawn(detail::call_and_keep(std::move(function)), where);
  }

  /// Runs the loop until the task has finished, and the background closes of its connections with
  /// it, within their `linger`; gives the task's result or throws what it threw. If `stop` ends it
  /// before, the task is dropped and `std::errc::operation_canceled` thrown.
  template <class T>
  T run_until_complete(Task<T> task) {
    detail::Result<T> result;
    bool done = false;
    {
      Running running(*this);
      TaskGroup group(*this);
      group.spawn(complete(std::move(task), result, done));
      while (!done && !mailbox_->take_stop_request()) turn(&done);
      for (finishing_ = done; finishing_ && !mailbox_->take_stop_request();) {
        finishing_ = finish_run();
        if (finishing_) turn();
      }
      finishing_ = false;
      if (done) (void)mailbox_->take_stop_request();  // it has no run to end any more
    }
    if (!done) throw std::system_error(std::make_error_code(std::errc::operation_canceled));
    return result.take();
  }

  template <detail::TaskFunction Function>
  auto run_until_complete(Function function) {
    return run_until_complete(detail::call_and_keep(std::move(function)));
  }

  // In the loop of a host: GLib's, Qt's, libuv's.
  /// A descriptor that is readable when `run_ready` has something to do, and to be waited for by
  /// poll(2), epoll(7) or what the host has; it is the loop's, and always the same. From the first
  /// call on the loop runs on the calling thread, though only in `run_ready`: it is the thread's
  /// current one, no other may run there, and it is to be destroyed there. Throws
  /// `std::logic_error` if it runs already, `std::errc::operation_not_supported` in a simulation,
  /// `std::system_error` without descriptors.
  [[nodiscard]] int poll_fd();
  /// Does what there is to do without waiting, for a millisecond and a turn at the most, so that
  /// the host has its own. Also to be called after the host gave the loop's tasks something to do
  /// without `post` or `spawn` from another thread, neither of which needs that. False if `stop`
  /// was called. Throws `std::logic_error` on another thread, or before `poll_fd`.
  bool run_ready();

  /// The time of the turn, by the steady clock; in a simulation, the world's. Loop's thread.
  [[nodiscard]] TimePoint now() noexcept override;
  [[nodiscard]] TimePoint deadline_in(Duration delay) noexcept override;

  /// "io_uring", "epoll" or "simulation".
  [[nodiscard]] std::string_view engine_name() const noexcept { return engine_->name(); }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] Metrics metrics() const noexcept;

  /// True on the thread that is running this loop.
  [[nodiscard]] bool in_loop_thread() const noexcept {
    return detail::Scheduler::current_or_null() == this;
  }

  [[nodiscard]] bool runs_elsewhere() const noexcept override {
    return running_.load(std::memory_order_acquire) && !in_loop_thread();
  }

  // For what is built on the loop.

  /// Makes the loop the current one of this thread, without running it: what is made and spawned
  /// meanwhile is its own. While it does not run elsewhere.
  class Entered {
   public:
    explicit Entered(EventLoop& loop) noexcept : outer_(detail::Scheduler::current_or_null()) {
      set_current(&loop);
    }
    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;
    ~Entered() { set_current(outer_); }

   private:
    detail::Scheduler* outer_;
  };

  /// Calls the function on the loop's thread and returns when it is done: at once if that is this
  /// one, or if the loop does not run; else it waits, and if it runs a loop itself answers what is
  /// called on that meanwhile. A run that ends before the answer gives it.
  /// Rethrows what the function threw. It needs no memory.
  template <class Function>
  void call(Function function) {
    Call(*this, function).finish();
  }

  /// What this thread may do with it at once.
  enum class Access : std::uint8_t {
    none,    // another thread runs it, or visits it
    inside,  // this one does
    visit,   // this one does from now on
  };

  /// Has a loop that does not run for this thread alone, which may visit it again meanwhile: until
  /// then no run begins, and the loop does not end. What is called on it meanwhile is answered as
  /// it leaves.
  class Visit {
   public:
    explicit Visit(EventLoop& loop);
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;
    ~Visit();
    /// False: another thread runs or has it.
    [[nodiscard]] bool is_here() const noexcept { return access_ != Access::none; }

   private:
    EventLoop& loop_;
    const Access access_;
  };

  /// `call` in two steps, for who knows that the loop is there in the first of them only: from then
  /// on it answers before it ends. In the calling thread's frame, until it is answered. Where that
  /// thread runs a loop, this is guarded as that loop's own calls are: it answers them meanwhile,
  /// so that two loops may call each other.
  class Call {
   public:
    template <class Function>
    Call(EventLoop& loop, Function& function)
        : Call(loop, [](void* context) { (*static_cast<Function*>(context))(); }, &function) {}
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() = default;

    /// To be called, once.
    void finish();

    detail::Link link;  // of those that wait for the loop

   private:
    friend EventLoop;
    Call(EventLoop& loop, void (*function)(void*), void* context);

    void answer() noexcept;
    void wait();

    EventLoop& loop_;
    void (*const function_)(void*);
    void* const context_;
    EventLoop* const caller_;  // nullptr: a thread without a loop
    std::exception_ptr failure_;
    std::mutex own_mutex_;
    std::condition_variable own_changed_;
    std::mutex& mutex_;
    std::condition_variable& changed_;
    bool answered_ = false;
    Access access_ = Access::none;
  };

  /// One turn, for an engine whose `wait` does not block. On a thread where no loop runs, or
  /// nested in another loop's wait.
  void turn_once() {
    const Entered entered(*this);
    (void)mailbox_->take_stop_request();  // there is no `run` to end
    turn();
  }
  /// The same, with this in the place of what resumes those that are ready: it gives how many it
  /// has resumed.
  using Resume = std::size_t (*)(EventLoop& loop, void* context);
  void turn_once_by(Resume resume, void* context);

  [[nodiscard]] detail::IoEngine& engine() noexcept { return *engine_; }
  [[nodiscard]] detail::Machine& machine() noexcept { return machine_; }
  [[nodiscard]] detail::Sockets& sockets() noexcept { return machine_.sockets(); }

  /// In what a fork made: what its descriptors stand for is still another process's, too. They are
  /// closed, and nothing else is done to them.
  [[nodiscard]] bool is_of_parent() const noexcept { return of_parent_; }
  /// For the child of a fork. A thread that ran it, or had it for itself, is not there, and what
  /// others had asked of the loop is their parent's to do.
  void become_parents() noexcept;
  [[nodiscard]] const std::shared_ptr<detail::Mailbox>& mailbox() const noexcept {
    return mailbox_;
  }
  [[nodiscard]] const LoopOptions& options() const noexcept { return options_; }
  /// Where those of its connections count that nobody asks for counts: they need not look whether.
  [[nodiscard]] std::uint64_t& uncounted() noexcept { return uncounted_; }
  void keep(detail::LoopResource& resource) noexcept { resources_.push_back(resource); }
  /// What is to be told of the loop by those who look at it, but its tasks, which a `TaskSurvey`
  /// looks at. On its thread.
  void describe(detail::LoopReport& report, bool with_connections) const;
  /// The name of the connection whose handler runs now; nothing if none does. On its thread.
  void write_handled(detail::LogLine& to) const noexcept;
  /// Whether some thread runs it, which, and since when its turn lasts. From any thread.
  void describe_from_outside(detail::LoopReport& report) const noexcept;
  /// What holds signals for this loop (core/signal.cpp); nullptr: nothing yet.
  [[nodiscard]] detail::LoopResource*& signals() noexcept { return signals_; }
  void at_turn_end(detail::TurnEnd& work) noexcept {
    if (!work.is_due()) turn_end_.push_back(work);
  }

  void post(std::unique_ptr<detail::Posted> work) override { mailbox_->push(std::move(work)); }
  void report_failure(std::exception_ptr failure, const char* where) noexcept override;

 private:
  /// Makes the loop the current one of this thread while it runs.
  class Running {
   public:
    explicit Running(EventLoop& loop);
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    ~Running() { end(); }

   private:
    void end();

    EventLoop& loop_;
    std::optional<Entered> entered_;
    std::optional<detail::Run> run_;
    bool begun_ = false;  // as the machine knows
  };

  struct Hosted {
    Hosted(EventLoop& loop, int descriptor) : running(loop), fd(descriptor) {}
    Running running;
    int fd;
  };

  /// Of the loop's own tasks, which nobody joins.
  class Unjoined final : public TaskGroup::Watcher {
   public:
    explicit Unjoined(EventLoop& loop) noexcept : loop_(loop) {}
    void task_left() noexcept override {}
    bool handle_failure(const std::exception_ptr& failure, const void* /*kept*/) noexcept override {
      loop_.report_failure(failure, "a spawned task");
      return true;
    }

   private:
    EventLoop& loop_;
  };

  void answer_calls() noexcept;
  /// With `calls_mutex_` held.
  [[nodiscard]] Access begin_visit() noexcept;
  void end_visit(Access access) noexcept;
  [[nodiscard]] bool has_other_visitor() const noexcept;
  void wait_for_visitor(std::unique_lock<std::mutex>& lock);

  /// In one frame, which is there before the run: `take_result`'s might lack memory, and `done`
  /// would never come.
  template <class T>
  static Task<> complete(Task<T> task, detail::Result<T>& result, bool& done) {
    try {
      if constexpr (std::is_void_v<T>) {
        co_await std::move(task);
        result.set_value();
      } else {
        result.set_value(co_await std::move(task));
      }
    } catch (...) {
      result.set_exception(std::current_exception());
    }
    done = true;
  }

  template <class T>
  void spawn_here(Task<T> task, std::source_location where) {
    if (ending_) return;  // dropped, as all the others were
    tasks_->spawn(std::move(task), nullptr, where);
  }

  void knock() noexcept override { mailbox_->knock(); }
  void arm(detail::Timer& timer) override { timers_.arm(timer); }
  void disarm(detail::Timer& timer) noexcept override { timers_.disarm(timer); }
  /// Once `done` is set it does not sleep any more, nor once all is over that it still runs for.
  void turn(const bool* done = nullptr);
  void begin_turn();
  void end_turn(const bool* done);
  [[nodiscard]] bool is_over(const bool* done) noexcept;

  [[nodiscard]] std::uint64_t operations_moved() const noexcept;

  /// Whether something is still finishing in the background.
  bool finish_run() noexcept;

  /// Of a loop that is being destroyed: nothing keeps it any more.
  [[nodiscard]] bool has_ended() const noexcept { return resources_.empty() && engine_->idle(); }

  LoopOptions options_;
  std::string name_;
  detail::Machine& machine_;
  std::unique_ptr<detail::IoEngine> engine_;
  std::shared_ptr<detail::Mailbox> mailbox_;
  TimePoint now_;
  bool now_known_ = false;
  bool ending_ = false;
  bool finishing_ = false;            // a run whose task is done
  std::atomic<bool> running_{false};  // changes with `calls_mutex_` held
  std::mutex calls_mutex_;
  // For this loop's thread, while it waits for an answer, and for whoever waits for a visitor.
  std::condition_variable calls_changed_;
  std::thread::id visitor_;  // also the one that ends the loop
  bool of_parent_ = false;
  detail::List<Call> calls_;
  std::unique_ptr<Hosted> hosted_;  // from `poll_fd` on
  detail::TimerWheel timers_;
  detail::List<detail::TurnEnd> turn_end_;
  detail::List<detail::LoopResource> resources_;
  detail::LoopResource* signals_ = nullptr;  // one of them
  Metrics metrics_;
  detail::TurnWatch watch_;
  detail::Histogram turn_ms_taken_;
  std::uint64_t uncounted_ = 0;
  Unjoined unjoined_{*this};
  std::optional<TaskGroup> tasks_;
  std::atomic<int> thread_{0};              // that runs it, as the kernel numbers it
  std::optional<detail::LoopEntry> entry_;  // of one on the kernel
};

/// Runs the task on a fresh loop on this thread and gives its result, or throws what it threw.
template <class T>
T run(Task<T> task) {
  EventLoop loop;
  return loop.run_until_complete(std::move(task));
}
/// The same with the task that a callable returns, which is kept as long as the task.
template <detail::TaskFunction Function>
auto run(Function function) {
  EventLoop loop;
  return loop.run_until_complete(std::move(function));
}

}  // namespace weir
