#include <weir/core/loop_thread.h>

#include <pthread.h>

#include <csignal>
#include <future>
#include <stdexcept>
#include <utility>

namespace weir {

EventLoopThread::EventLoopThread(LoopOptions options) {
  if (EventLoop* outer = EventLoop::current_or_null()) machine_ = outer->engine().machine();
  if (machine_ != nullptr) {
    loop_ = &machine_->start_loop(options);
    mailbox_ = loop_->mailbox();
    return;
  }
  std::promise<EventLoop*> made;
  std::future<EventLoop*> loop = made.get_future();
  std::exception_ptr failure;  // written before `made` is set
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // the new thread inherits it
  try {
    thread_ = std::thread([made = std::move(made), &failure, options]() mutable {
      std::optional<EventLoop> own;
      try {
        own.emplace(options);
        if (!own->name().empty()) {
          pthread_setname_np(pthread_self(), own->name().substr(0, 15).c_str());
        }
        // Told in its first turn: whoever calls on the loop from then on finds it running, and
        // does not take it for one that may be used from any thread.
        own->post([&made, &own] { made.set_value(&*own); });
      } catch (...) {
        failure = std::current_exception();
        own.reset();
      }
      if (own) {
        own->run();
      } else {
        made.set_value(nullptr);
      }
    });
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  loop_ = loop.get();
  if (loop_ == nullptr) {
    thread_.join();
    std::rethrow_exception(std::move(failure));
  }
  mailbox_ = loop_->mailbox();
}

EventLoopThread::~EventLoopThread() { stop(); }

void EventLoopThread::stop() {
  if (machine_ != nullptr) {
    if (loop_ != nullptr) machine_->end_loop(*std::exchange(loop_, nullptr));
    return;
  }
  if (!thread_.joinable()) return;
  mailbox_->request_stop();
  thread_.join();
  loop_ = nullptr;
}

EventLoopThreadPool::EventLoopThreadPool(LoopOptions options)
    : options_(options), name_(options.name) {
  options_.name = name_;
}

EventLoopThreadPool::~EventLoopThreadPool() { stop(); }

void EventLoopThreadPool::start(std::size_t threads) {
  if (threads == 0) throw std::invalid_argument("weir: EventLoopThreadPool: 0 threads");
  if (!threads_.empty()) throw std::logic_error("weir: EventLoopThreadPool was started already");
  try {
    for (std::size_t i = 0; i < threads; ++i) {
      LoopOptions options = options_;
      const std::string name = name_.empty() ? std::string() : name_ + "-" + std::to_string(i);
      options.name = name;
      threads_.push_back(std::make_unique<EventLoopThread>(options));
      loops_.push_back(&threads_.back()->loop());
    }
  } catch (...) {
    stop();
    throw;
  }
}

EventLoop& EventLoopThreadPool::next() {
  if (loops_.empty()) throw std::logic_error("weir: EventLoopThreadPool was not started");
  return *loops_[next_.fetch_add(1, std::memory_order_relaxed) % loops_.size()];
}

void EventLoopThreadPool::stop() {
  // All are told first, so that they end side by side.
  for (const auto& thread : threads_) thread->mailbox_->request_stop();  // some may have ended
  loops_.clear();
  threads_.clear();
}

}  // namespace weir
