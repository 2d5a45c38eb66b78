#include <weir/core/loop_thread.h>
#include <weir/core/machine.h>

#include <stdexcept>
#include <utility>

namespace weir {

EventLoopThread::EventLoopThread(LoopOptions options)
    : runner_(detail::current_machine().start_loop(options)),
      loop_(&runner_->loop()),
      mailbox_(loop_->mailbox()) {}

EventLoopThread::~EventLoopThread() { stop(); }

void EventLoopThread::stop() {
  const std::lock_guard lock(stopping_);
  runner_.reset();
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
      if (options.cpu >= 0) options.cpu += static_cast<int>(i);
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
  const std::lock_guard lock(stopping_);
  // All are told first, so that they end side by side.
  for (const auto& thread : threads_) thread->mailbox_->request_stop();  // some may have ended
  loops_.clear();
  threads_.clear();
}

}  // namespace weir
