#include <weir/core/processor.h>
#include <weir/io/kernel_thread.h>
#include <weir/io/thread_probe.h>

#include <pthread.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

namespace weir::detail {
namespace {

/// What a new thread has to tell before its maker goes on. A promise would not do: one that is
/// given up allocates in its destructor.
class Beginning {
 public:
  void tell(EventLoop* loop, std::exception_ptr failure = nullptr) noexcept {
    const std::lock_guard lock(mutex_);  // whoever waits can go when we are out of it
    loop_ = loop;
    failure_ = std::move(failure);
    told_.notify_one();
  }
  /// The loop, or nullptr.
  EventLoop* wait() {
    std::unique_lock lock(mutex_);
    told_.wait(lock, [this] { return loop_ != nullptr || failure_ != nullptr; });
    return loop_;
  }
  [[nodiscard]] std::exception_ptr failure() { return std::move(failure_); }

 private:
  std::mutex mutex_;
  std::condition_variable told_;
  EventLoop* loop_ = nullptr;
  std::exception_ptr failure_;
};

}  // namespace

KernelThread::KernelThread(const LoopOptions& options) {
  Beginning beginning;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  let_be_asked(all, before);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);  // the new thread inherits it
  try {
    const Unbound unbound;
    thread_ = std::thread([&beginning, options] {
      // Not on this stack: in the child of a fork another thread may have that.
      std::unique_ptr<EventLoop> own;
      std::exception_ptr failure;
      try {
        if (options.cpu >= 0) bind_thread(options.cpu);
        own = std::make_unique<EventLoop>(options);
        if (!own->name().empty()) {
          pthread_setname_np(pthread_self(), own->name().substr(0, 15).c_str());
        }
        // Told in its first turn: whoever calls on the loop from then on finds it running, and
        // does not take it for one that may be used from any thread.
        own->post([&beginning, &own] { beginning.tell(&*own); });
      } catch (...) {
        failure = std::current_exception();
        own.reset();
      }
      if (own) {
        own->run();
      } else {
        beginning.tell(nullptr, std::move(failure));
      }
    });
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  loop_ = beginning.wait();
  if (loop_ == nullptr) {
    thread_.join();
    std::rethrow_exception(beginning.failure());
  }
  mailbox_ = loop_->mailbox();
}

KernelThread::~KernelThread() {
  if (process_ != ::getpid()) {
    // The child of a fork has not that thread, and may have others where its stack was.
    ::new (static_cast<void*>(&thread_)) std::thread();
    return;
  }
  mailbox_->request_stop();
  thread_.join();
}

}  // namespace weir::detail
