#include <weir/core/event_loop.h>
#include <weir/core/log.h>

#include <algorithm>
#include <exception>
#include <future>
#include <stdexcept>
#include <utility>

namespace weir {
namespace {

/// Coroutines resumed in one turn before the engine is looked at again: enough to pay for the
/// system call, few enough that a task that never waits starves nobody.
constexpr std::size_t kReadyBatch = 256;

std::unique_ptr<IoEngine> make_own_engine(const LoopOptions& options) {
  EventLoop* outer = EventLoop::current_or_null();
  if (outer != nullptr && outer->engine().machine() != nullptr) {
    throw std::logic_error(
        "weir: a simulated host has no loops but its World's: use TcpServer(EventLoop::current(), "
        "...) and start in place of run, and EventLoopThread for a further loop");
  }
  return make_engine(options);
}

}  // namespace

/// The waiting thread's frame has what it refers to, until the promise is kept.
struct EventLoop::Call {
  std::uint64_t number;
  const std::function<void()>& function;
  std::exception_ptr& failure;
  std::promise<void> done;
};

EventLoop::EventLoop(LoopOptions options) : EventLoop(options, make_own_engine(options)) {}

EventLoop::EventLoop(LoopOptions options, std::unique_ptr<IoEngine> engine)
    : options_(options),
      name_(options.name),
      engine_(std::move(engine)),
      mailbox_(std::make_shared<Mailbox>(*engine_)),
      now_(engine_->now()),
      timers_(now_) {
  options_.name = name_;
  tasks_.emplace(*this);
}

EventLoop::~EventLoop() {
  try {
    engine_->attach();
  } catch (const std::logic_error&) {
    engine_->abandon();
  } catch (const std::exception& failure) {
    engine_->abandon();
    report_failure(std::make_exception_ptr(failure), "the end of an event loop");
  }
  const Entered entered(*this);
  ending_ = true;
  tasks_.reset();
  List<LoopResource> ending;
  ending.splice_back(resources_);
  while (LoopResource* resource = ending.pop_front()) {
    resources_.push_back(*resource);
    resource->end_with_loop();
  }
  while (!has_ended()) {
    try {
      (void)mailbox_->take_stop_request();  // it would keep us from sleeping
      turn();
    } catch (...) {
      report_failure(std::current_exception(), "the end of an event loop");
      engine_->abandon();
    }
  }
  mailbox_->close();
}

EventLoop& EventLoop::current() { return static_cast<EventLoop&>(Scheduler::current()); }

EventLoop::Running::Running(EventLoop& loop) : loop_(loop) {
  if (loop.running_.exchange(true, std::memory_order_acq_rel)) {
    throw std::logic_error("weir: this event loop is running already");
  }
  entered_.emplace(loop);
  try {
    loop.engine_->attach();
  } catch (...) {
    end();
    throw;
  }
}

void EventLoop::Running::end() {
  for (;;) {
    while (loop_.answer_call()) continue;
    const std::lock_guard lock(loop_.calls_mutex_);
    if (!loop_.calls_.empty()) continue;
    entered_.reset();
    loop_.running_.store(false, std::memory_order_release);
    return;
  }
}

bool EventLoop::answer_call(std::uint64_t number) {
  std::unique_ptr<Call> call;
  {
    const std::lock_guard lock(calls_mutex_);
    const auto found = std::find_if(calls_.begin(), calls_.end(), [number](const auto& waiting) {
      return number == 0 || waiting->number == number;
    });
    if (found == calls_.end()) return false;
    call = std::move(*found);
    calls_.erase(found);
  }
  try {
    call->function();
  } catch (...) {
    call->failure = std::current_exception();
  }
  call->done.set_value();
  return true;
}

void EventLoop::call(const std::function<void()>& function) {
  std::unique_lock lock(calls_mutex_);
  if (!runs_elsewhere()) {
    lock.unlock();
    const bool inside = in_loop_thread();
    {
      const Entered entered(*this);
      function();
    }
    // A loop of a simulated machine does run: it has its turn when the caller's is over.
    if (!inside && engine_->machine() != nullptr) engine_->wake();
    return;
  }
  // Beside the promise, so that the other thread has let go of the exception when we look at it.
  std::exception_ptr failure;
  const std::uint64_t number = ++last_call_;
  auto call = std::make_unique<Call>(Call{number, function, failure, {}});
  std::future<void> answered = call->done.get_future();
  post_function([this, number] { answer_call(number); });  // which waits for the lock
  calls_.push_back(std::move(call));
  lock.unlock();  // from here on the loop may be gone
  answered.get();
  if (failure != nullptr) std::rethrow_exception(std::move(failure));
}

void EventLoop::run() {
  const Running running(*this);
  while (!mailbox_->take_stop_request()) turn();
}

void EventLoop::stop() { mailbox_->request_stop(); }

TimePoint EventLoop::now() noexcept {
  if (!now_known_) {
    now_ = engine_->now();
    now_known_ = true;
  }
  return now_;
}

TimePoint EventLoop::deadline_in(Duration delay) noexcept {
  now_ = engine_->now();
  now_known_ = true;
  return after(now_, delay);
}

void EventLoop::turn(const bool* done) {
  mailbox_->wake_up();
  ++metrics_.turns;
  metrics_.posted += mailbox_->run(*this);
  metrics_.resumed += run_ready(kReadyBatch);
  if (!timers_.empty()) metrics_.timers_fired += timers_.expire(now());
  while (TurnEnd* work = turn_end_.pop_front()) work->end_turn();
  const bool over = done != nullptr ? *done : ending_ && has_ended();
  if (over || has_ready() || !mailbox_->fall_asleep()) {
    engine_->wait(TimePoint::min());
  } else {
    engine_->wait(timers_.next());
  }
  now_known_ = false;
}

Metrics EventLoop::metrics() const noexcept {
  Metrics metrics = metrics_;
  engine_->add_metrics(metrics);
  return metrics;
}

void EventLoop::report_failure(std::exception_ptr failure, const char* where) noexcept {
  try {
    std::rethrow_exception(std::move(failure));
  } catch (const std::exception& exception) {
    log::write(log::Level::error, std::string("exception left ") + where + ": " + exception.what());
  } catch (...) {
    log::write(log::Level::error, std::string("exception of unknown type left ") + where);
  }
}

}  // namespace weir
