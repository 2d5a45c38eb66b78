#pragma once

#include <weir/core/engine.h>
#include <weir/core/mailbox.h>
#include <weir/core/metrics.h>
#include <weir/core/options.h>
#include <weir/core/timer_wheel.h>
#include <weir/coro/scheduler.h>
#include <weir/coro/task.h>
#include <weir/coro/task_group.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

namespace weir {

/// Something that lives on a loop and that the kernel may still touch: the loop keeps it until it
/// has let go, and asks it to when the loop ends.
class LoopResource : public Link {
 public:
  /// The loop is being destroyed: finish what cannot wait, then leave the loop's list.
  virtual void end_with_loop() noexcept = 0;

 protected:
  ~LoopResource() = default;
};

/// Work for the end of the current turn, after everything that was ready has run: where a
/// connection sends at once all that was queued in the turn.
class TurnEnd : public TaggedLink<TurnEnd> {
 public:
  virtual void end_turn() noexcept = 0;

 protected:
  ~TurnEnd() = default;
};

/// One thread, one engine: resumes coroutines, fires timers, moves bytes.
///
/// May be made on one thread and run on another; from its first run on it belongs to that thread.
/// `post`, `stop` and `spawn` may be called from any thread, all else on the loop's own, or while
/// it does not run. Its destructor drops every task, finishes or ends what the kernel still does,
/// and waits for that: background closes for their `linger` at the most.
class EventLoop final : public Scheduler {
 public:
  /// Throws `std::system_error`, whose text names the cause and the cure, where the engine asked
  /// for cannot be had, and `std::invalid_argument` for a bad option.
  explicit EventLoop(LoopOptions options = {});
  /// On an engine that was made elsewhere.
  EventLoop(LoopOptions options, std::unique_ptr<IoEngine> engine);
  ~EventLoop() override;

  /// The loop that runs on this thread. Throws `std::logic_error` where none does.
  static EventLoop& current();
  [[nodiscard]] static EventLoop* current_or_null() noexcept {
    return static_cast<EventLoop*>(Scheduler::current_or_null());
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
  /// exception that leaves it is logged.
  template <class T>
  void spawn(Task<T> task) {
    if (in_loop_thread()) {
      spawn_here(std::move(task));
    } else {
      post_function([this, task = std::move(task)]() mutable { spawn_here(std::move(task)); });
    }
  }

  /// Runs the loop until the task has finished, and gives its result or throws what it threw. If
  /// `stop` ends it before, the task is dropped and `std::errc::operation_canceled` thrown.
  template <class T>
  T run_until_complete(Task<T> task) {
    detail::Result<T> result;
    bool done = false;
    {
      Running running(*this);
      TaskGroup group(*this);
      group.spawn(complete(std::move(task), result, done));
      while (!done && !mailbox_->take_stop_request()) turn(&done);
    }
    if (!done) throw std::system_error(std::make_error_code(std::errc::operation_canceled));
    return result.take();
  }

  [[nodiscard]] TimePoint now() noexcept override;
  [[nodiscard]] TimePoint deadline_in(Duration delay) noexcept override;

  /// "io_uring", "epoll" or "simulation".
  [[nodiscard]] std::string_view engine_name() const noexcept { return engine_->name(); }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] Metrics metrics() const noexcept;

  /// True on the thread that is running this loop.
  [[nodiscard]] bool in_loop_thread() const noexcept {
    return Scheduler::current_or_null() == this;
  }

  /// True if another thread is running this loop now.
  [[nodiscard]] bool runs_elsewhere() const noexcept {
    return running_.load(std::memory_order_acquire) && !in_loop_thread();
  }

  // For what is built on the loop.

  /// Makes the loop the current one of this thread, without running it: what is made and spawned
  /// meanwhile is its own. While it does not run elsewhere.
  class Entered {
   public:
    explicit Entered(EventLoop& loop) noexcept : outer_(Scheduler::current_or_null()) {
      set_current(&loop);
    }
    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;
    ~Entered() { set_current(outer_); }

   private:
    Scheduler* outer_;
  };

  /// Calls the function on the loop's thread and returns when it is done: at once if that is this
  /// one, or if the loop does not run; else it waits. A run that ends meanwhile answers before.
  /// Rethrows what the function threw.
  void call(const std::function<void()>& function);

  /// One turn, for an engine whose `wait` does not block. On a thread where no loop runs, or
  /// nested in another loop's wait.
  void turn_once() {
    const Entered entered(*this);
    (void)mailbox_->take_stop_request();  // there is no `run` to end
    turn();
  }

  [[nodiscard]] IoEngine& engine() noexcept { return *engine_; }
  [[nodiscard]] Sockets& sockets() noexcept { return engine_->sockets(); }
  [[nodiscard]] const std::shared_ptr<Mailbox>& mailbox() const noexcept { return mailbox_; }
  [[nodiscard]] const LoopOptions& options() const noexcept { return options_; }
  void keep(LoopResource& resource) noexcept { resources_.push_back(resource); }
  void at_turn_end(TurnEnd& work) noexcept {
    if (!static_cast<Link&>(work).linked()) turn_end_.push_back(work);
  }

  void post(std::unique_ptr<Posted> work) override { mailbox_->push(std::move(work)); }
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
  };

  struct Call;  // what another thread waits for in `call`
  /// Answers this one, unless it has been, or the oldest. False if there is none.
  bool answer_call(std::uint64_t number = 0);

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
  void spawn_here(Task<T> task) {
    if (ending_) return;  // dropped, as all the others were
    tasks_->spawn(log_failure(std::move(task)));
  }
  template <class T>
  Task<> log_failure(Task<T> task) {
    try {
      co_await std::move(task);
    } catch (...) {
      report_failure(std::current_exception(), "a spawned task");
    }
  }

  void arm(Timer& timer) override { timers_.arm(timer); }
  void disarm(Timer& timer) noexcept override { timers_.disarm(timer); }
  /// Once `done` is set it does not sleep any more.
  void turn(const bool* done = nullptr);

  /// Of a loop that is being destroyed: nothing keeps it any more.
  [[nodiscard]] bool has_ended() const noexcept { return resources_.empty() && engine_->idle(); }

  LoopOptions options_;
  std::string name_;
  std::unique_ptr<IoEngine> engine_;
  std::shared_ptr<Mailbox> mailbox_;
  TimePoint now_;
  bool now_known_ = false;
  bool ending_ = false;
  std::atomic<bool> running_{false};  // ends with `calls_mutex_` held
  std::mutex calls_mutex_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::uint64_t last_call_ = 0;
  TimerWheel timers_;
  List<TurnEnd, TurnEnd> turn_end_;
  List<LoopResource> resources_;
  Metrics metrics_;
  std::optional<TaskGroup> tasks_;
};

/// Runs the task on a fresh loop on this thread and gives its result, or throws what it threw.
template <class T>
T run(Task<T> task) {
  EventLoop loop;
  return loop.run_until_complete(std::move(task));
}

}  // namespace weir
