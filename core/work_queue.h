#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

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
class WorkQueue : public std::enable_shared_from_this<WorkQueue> {
 public:
  WorkQueue(std::size_t threads, std::size_t capacity) noexcept
      : most_threads_(threads), capacity_(capacity) {}

  /// Throws `std::system_error` if there is no thread and none can be had.
  void push(std::shared_ptr<Work> work);
  /// Takes work back that stands behind the first `capacity` ones. What is nearer its turn is done.
  void give_up(const Work& work) noexcept;
  /// Waits until all is done. Nothing is pushed any more.
  void finish() noexcept;

 private:
  void start_thread();
  void work();

  const std::size_t most_threads_;
  const std::size_t capacity_;
  std::mutex mutex_;
  std::condition_variable news_;
  std::condition_variable over_;
  std::deque<std::shared_ptr<Work>> jobs_;
  std::size_t threads_ = 0;
  std::size_t idle_ = 0;
  bool ending_ = false;
  int process_ = 0;  // that the threads belong to: a child of fork(2) has none of them
};

}  // namespace weir::detail
