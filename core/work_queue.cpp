#include <weir/core/processor.h>
#include <weir/core/work_queue.h>

#include <pthread.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <new>
#include <thread>
#include <utility>

namespace weir::detail {
namespace {

/// How long a thread waits for more to do.
constexpr auto kIdle = std::chrono::seconds(5);

/// The queue whose work this thread does.
constinit thread_local const WorkQueue* worked_on = nullptr;

}  // namespace

/// Whoever forks finds all locks free on both sides. Never destroyed: others may be, at the exit.
class WorkQueue::All {
 public:
  static All& instance() noexcept {
    alignas(All) static char memory[sizeof(All)];
    static All* const made = new (memory) All;
    return *made;
  }

  void add(WorkQueue& queue) noexcept {
    const std::lock_guard lock(mutex_);
    queues_.push_back(queue);
  }
  void remove(WorkQueue& queue) noexcept {
    const std::lock_guard lock(mutex_);
    queue.link.unlink();
  }

 private:
  All() noexcept {
    ::pthread_atfork([] { instance().lock(); },
                     [] {
                       instance().for_each([](WorkQueue& queue) { queue.mutex_.unlock(); });
                       instance().mutex_.unlock();
                     },
                     [] {
                       instance().for_each([](WorkQueue& queue) { queue.begin_in_child(); });
                       instance().mutex_.unlock();
                     });
  }

  void lock() noexcept {
    mutex_.lock();
    for_each([](WorkQueue& queue) { queue.mutex_.lock(); });
  }
  template <class Function>
  void for_each(Function function) noexcept {
    for (WorkQueue* queue = queues_.front(); queue != nullptr; queue = queues_.after(*queue)) {
      function(*queue);
    }
  }

  std::mutex mutex_;
  List<WorkQueue> queues_;
};

WorkQueue::WorkQueue(std::size_t threads, std::size_t capacity, const char* name, int nice)
    : most_threads_(threads), capacity_(capacity), name_(name), nice_(nice) {
  All::instance().add(*this);
}

/// On the last of the threads, as a rule, which nobody joins then.
WorkQueue::~WorkQueue() {
  All::instance().remove(*this);
  for (std::list<std::thread>* threads : {&running_, &ended_}) {
    for (std::thread& thread : *threads) thread.detach();
  }
}

/// Locked so far.
void WorkQueue::begin_in_child() noexcept {
  of_parent_ = jobs_.size();
  threads_ = idle_ = 0;
  new (&running_) std::list<std::thread>;  // they are not there
  new (&ended_) std::list<std::thread>;
  // Also where a job forked: that goes on as the program.
  worked_on = nullptr;
  new (&news_) std::condition_variable;  // of those who wait in the parent
  new (&over_) std::condition_variable;
  mutex_.unlock();
}

void WorkQueue::push(std::shared_ptr<Work> work) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(work));
    if (idle_ < waiting() && threads_ < most_threads_) {
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
  if (waiting() <= capacity_) return;
  const auto behind = first() + static_cast<std::ptrdiff_t>(capacity_);
  const auto found =
      std::find_if(behind, jobs_.end(), [&work](const auto& job) { return job.get() == &work; });
  if (found == jobs_.end()) return;
  given_up = std::move(*found);
  jobs_.erase(found);
}

void WorkQueue::finish() noexcept {
  std::unique_lock lock(mutex_);
  ending_ = true;
  news_.notify_all();
  const std::size_t own = worked_on == this ? 1 : 0;
  over_.wait(lock, [this, own] { return threads_ == own; });
  std::list<std::thread> ended;
  ended.swap(ended_);
  lock.unlock();
  for (std::thread& thread : ended) thread.join();
}

void WorkQueue::start_thread() {
  // The thread takes no signals: they are the program's.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    const Unbound unbound;
    for (; !ended_.empty(); ended_.pop_front()) ended_.front().join();
    const auto here = running_.emplace(running_.end());
    try {
      *here = std::thread([self = shared_from_this(), here] { self->work(here); });
    } catch (...) {
      running_.erase(here);
      throw;
    }
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void WorkQueue::work(std::list<std::thread>::iterator self) {
  ::pthread_setname_np(::pthread_self(), name_);
  // Of this thread alone, on Linux; a nicer one can always be had.
  if (nice_ != 0) ::setpriority(PRIO_PROCESS, 0, ::getpriority(PRIO_PROCESS, 0) + nice_);
  worked_on = this;
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    const bool more = news_.wait_for(lock, kIdle, [this] { return waiting() > 0 || ending_; });
    --idle_;
    if (!more || waiting() == 0) break;
    std::shared_ptr<Work> job = std::move(*first());
    jobs_.erase(first());
    lock.unlock();
    job->run();
    job.reset();
    lock.lock();
  }
  --threads_;
  // In a child that a job forked and that goes on as the program, `self` is in a list that is gone.
  if (worked_on == this) ended_.splice(ended_.end(), running_, self);
  over_.notify_all();
}

}  // namespace weir::detail
