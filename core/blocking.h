#pragma once

#include <weir/core/machine.h>
#include <weir/core/work_queue.h>
#include <weir/coro/locals.h>
#include <weir/coro/result.h>
#include <weir/coro/scheduler.h>
#include <weir/coro/task.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

namespace weir {

struct BlockingPoolOptions {
  std::size_t threads = 0;    // at the most; 0: as many as the machine has cores, 4 at the least
  std::size_t queue = 1'000;  // jobs that wait for a thread and are done in any case
};

namespace detail {

/// What the awaiter and the job share.
template <class Function>
class BlockingJob final : public Work {
 public:
  using T = std::invoke_result_t<Function&>;

  explicit BlockingJob(Function&& function) : function_(std::move(function)) {}

  void run() noexcept override {
    call();
    const std::lock_guard lock(mutex_);
    if (waiting_ != nullptr) waiting_->wake_from_anywhere();
  }

  void wait(Waiter& waiter) noexcept { waiting_ = &waiter; }  // before it is pushed
  /// The awaiter has resumed or goes.
  void forget() noexcept {
    const std::lock_guard lock(mutex_);
    if (waiting_ != nullptr) waiting_->forget_wake();
    waiting_ = nullptr;
  }
  T take() { return result_.take(); }

 private:
  void call() noexcept {
    const LocalsHere of_the_caller(std::move(locals_));
    try {
      if constexpr (std::is_void_v<T>) {
        (*function_)();
        result_.set_value();
      } else {
        result_.set_value((*function_)());
      }
    } catch (...) {
      result_.set_exception(std::current_exception());
    }
    function_.reset();
  }

  Locals locals_ = current_locals_for_thread();
  std::optional<Function> function_;
  Result<T> result_;
  std::mutex mutex_;  // guards the rest
  Waiter* waiting_ = nullptr;
};

/// See `blocking`.
template <class Function>
class [[nodiscard("co_await it")]] BlockingAwaiter {
  static_assert(!TaskFunction<Function>,
                "weir: blocking calls a function on a thread without a loop, and a coroutine would "
                "not run there. Await it, or run it on another loop: on(loop, …)");

  using Job = BlockingJob<Function>;

 public:
  static constexpr char kWaitsFor[] = "blocking";

  BlockingAwaiter(std::shared_ptr<WorkQueue> queue, Function&& function)
      : queue_(std::move(queue)), function_(std::move(function)) {}
  BlockingAwaiter(BlockingAwaiter&& other) noexcept(std::is_nothrow_move_constructible_v<Function>)
      : queue_(std::move(other.queue_)), function_(std::move(other.function_)) {}
  ~BlockingAwaiter() {
    if (job_ == nullptr) return;
    job_->forget();
    queue_->give_up(*job_);
  }

  static constexpr bool await_ready() noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    auto job = std::make_shared<Job>(std::move(function_));
    waiter_.suspend(handle);
    job->wait(waiter_);
    current_machine().start_work(*queue_, job);
    job_ = std::move(job);
  }
  typename Job::T await_resume() {
    const std::shared_ptr<Job> job = std::move(job_);
    job->forget();
    return job->take();
  }

 private:
  std::shared_ptr<WorkQueue> queue_;
  Function function_;
  Waiter waiter_;
  std::shared_ptr<Job> job_;
};

/// The process's own pool, which `blocking` uses.
const std::shared_ptr<WorkQueue>& process_work_queue();

}  // namespace detail

/// Threads for what blocks: files, a database's library, computing. Made as they are needed, named
/// "weir-blocking", without signals of the program's; each job goes to the next that is free, in
/// the order of the calls. Thread-safe. Its end waits for the jobs that are in its queue.
class BlockingPool {
 public:
  explicit BlockingPool(BlockingPoolOptions options = {});
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;
  ~BlockingPool() { queue_->finish(); }

  /// `co_await pool.run(function)`: as `blocking`, on this pool.
  template <class Function>
  auto run(Function function) {
    return detail::BlockingAwaiter<Function>(queue_, std::move(function));
  }

 private:
  friend const std::shared_ptr<detail::WorkQueue>& detail::process_work_queue();

  std::shared_ptr<detail::WorkQueue> queue_;
};

/// `co_await blocking(function)` calls the function in a thread of the process's pool (its options:
/// the defaults), and resumes here with what it returns or throws. If all threads are busy it waits
/// for its turn. Dropping it discards the result: a function that is called, or among the first
/// `BlockingPoolOptions::queue`, runs all the same, and what it captured lives until it has; one
/// behind those goes uncalled. It sees copies of this task's values of each `TaskLocal`. Makes no
/// coroutine frame. The process's end waits for what runs, but for a function that calls exit(3)
/// itself. A child of fork(2) does none of what its parent queued. Throws `std::bad_alloc`, and
/// `std::system_error` where no thread can be had.
///
/// In the simulation it is called on the world's thread after a delay that the seed decides.
///
/// On GCC 12 name the function first: `auto work = [data] { … }; co_await
/// blocking(std::move(work))`.
template <class Function>
  requires std::is_invocable_v<Function&>
auto blocking(Function function) {
  return detail::BlockingAwaiter<Function>(detail::process_work_queue(), std::move(function));
}

}  // namespace weir
