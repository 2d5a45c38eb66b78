#pragma once

#include <weir/coro/list.h>

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

namespace weir::detail {

/// Something to be done off the loops.
class Work {
 public:
  Work() = default;
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;
  virtual ~Work() = default;
  virtual void run() noexcept = 0;
};

/// Threads that do work in the order in which it came. They are made as there is work, up to a
/// limit, and end when there has been none for a while. From any thread.
///
/// The child of a fork(2) has none of the threads, and makes some of its own; what waited for one
/// is the parent's, which does it.
class WorkQueue : public std::enable_shared_from_this<WorkQueue> {
 public:
  /// Threads of that name, which have so much less of a share of a processor, by nice(2).
  WorkQueue(std::size_t threads, std::size_t capacity, const char* name = "weir-blocking",
            int nice = 0);
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;
  ~WorkQueue();

  /// Throws `std::system_error` if there is no thread and none can be had.
  void push(std::shared_ptr<Work> work);
  /// Takes work back that stands behind the first `capacity` ones. What is nearer its turn is done.
  void give_up(const Work& work) noexcept;
  /// Waits until all is done and the threads have gone; on a thread of its own, whose work ends the
  /// process, until all but that thread have ended. Nothing is pushed any more.
  void finish() noexcept;

 private:
  class All;  // there are in the process
  friend class List<WorkQueue>;
  friend struct Hook;

  void begin_in_child() noexcept;
  void start_thread();
  void work(std::list<std::thread>::iterator self);
  /// The first that is this process's.
  [[nodiscard]] auto first() noexcept {
    return jobs_.begin() + static_cast<std::ptrdiff_t>(of_parent_);
  }
  [[nodiscard]] std::size_t waiting() const noexcept { return jobs_.size() - of_parent_; }

  const std::size_t most_threads_;
  const std::size_t capacity_;
  const char* const name_;
  const int nice_;
  std::mutex mutex_;
  std::condition_variable news_;
  std::condition_variable over_;
  std::deque<std::shared_ptr<Work>> jobs_;
  std::size_t threads_ = 0;
  std::list<std::thread> running_;
  std::list<std::thread> ended_;  // to be joined: what is the thread's alone may end after it
  std::size_t idle_ = 0;
  std::size_t of_parent_ = 0;  // jobs at the front
  bool ending_ = false;
  Link link;
};

}  // namespace weir::detail
