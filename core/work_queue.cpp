#include <weir/core/processor.h>
#include <weir/core/work_queue.h>

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>
#include <utility>

namespace weir::detail {
namespace {

/// How long a thread waits for more to do.
constexpr auto kIdle = std::chrono::seconds(5);

int this_process() noexcept { return ::getpid(); }  // lint: allow(unrepeatable)

}  // namespace

void WorkQueue::push(std::shared_ptr<Work> work) {
  {
    const std::lock_guard lock(mutex_);
    if (process_ != this_process()) {
      process_ = this_process();
      threads_ = idle_ = 0;
    }
    jobs_.push_back(std::move(work));
    if (idle_ < jobs_.size() && threads_ < most_threads_) {
      try {
        start_thread();
        ++threads_;
      } catch (...) {
        if (threads_ == 0) {
          jobs_.pop_back();
          throw;
        }
      }
    }
  }
  news_.notify_one();
}

void WorkQueue::give_up(const Work& work) noexcept {
  std::shared_ptr<Work> given_up;  // its end is not under the lock
  const std::lock_guard lock(mutex_);
  if (jobs_.size() <= capacity_) return;
  const auto first = jobs_.begin() + static_cast<std::ptrdiff_t>(capacity_);
  const auto found =
      std::find_if(first, jobs_.end(), [&work](const auto& job) { return job.get() == &work; });
  if (found == jobs_.end()) return;
  given_up = std::move(*found);
  jobs_.erase(found);
}

void WorkQueue::finish() noexcept {
  std::unique_lock lock(mutex_);
  ending_ = true;
  news_.notify_all();
  if (process_ != this_process()) return;
  over_.wait(lock, [this] { return threads_ == 0; });
}

void WorkQueue::start_thread() {
  // The thread takes no signals: they are the program's.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    const Unbound unbound;
    std::thread([self = shared_from_this()] { self->work(); }).detach();
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void WorkQueue::work() {
  ::pthread_setname_np(::pthread_self(), "weir-blocking");
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    const bool more = news_.wait_for(lock, kIdle, [this] { return !jobs_.empty() || ending_; });
    --idle_;
    if (!more || jobs_.empty()) break;
    std::shared_ptr<Work> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job->run();
    job.reset();
    lock.lock();
  }
  --threads_;
  over_.notify_all();
}

}  // namespace weir::detail
