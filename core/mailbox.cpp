#include <weir/core/engine.h>
#include <weir/core/mailbox.h>

#include <utility>

namespace weir::detail {

Mailbox::~Mailbox() { close(); }

void Mailbox::push(std::unique_ptr<Posted> work) {
  Posted* item = work.release();
  item->next_ = newest_.load(std::memory_order_relaxed);
  // seq_cst, as are the sleeper's store and its second look: one of the two sides sees the other.
  while (!newest_.compare_exchange_weak(item->next_, item, std::memory_order_seq_cst,
                                        std::memory_order_relaxed)) {
  }
  if (closed_.load(std::memory_order_seq_cst)) {
    close();
    return;
  }
  wake_sleeper();
}

void Mailbox::knock() noexcept {
  knocked_.store(true, std::memory_order_seq_cst);
  wake_sleeper();
}

void Mailbox::request_stop() {
  stop_requested_.store(true, std::memory_order_seq_cst);
  wake_sleeper();
}

bool Mailbox::take_stop_request() noexcept {
  return stop_requested_.load(std::memory_order_relaxed) &&
         stop_requested_.exchange(false, std::memory_order_acq_rel);
}

void Mailbox::wake_sleeper() {
  if (!asleep_.load(std::memory_order_seq_cst) ||
      !asleep_.exchange(false, std::memory_order_seq_cst)) {
    return;
  }
  const std::lock_guard lock(engine_mutex_);
  if (engine_ != nullptr) engine_->wake();
}

bool Mailbox::fall_asleep() noexcept {
  asleep_.store(true, std::memory_order_seq_cst);
  if (newest_.load(std::memory_order_seq_cst) == nullptr &&
      !knocked_.load(std::memory_order_seq_cst) &&
      !stop_requested_.load(std::memory_order_seq_cst)) {
    return true;
  }
  wake_up();
  return false;
}

Posted* Mailbox::reversed(Posted* newest) noexcept {
  Posted* oldest = nullptr;
  while (newest != nullptr) {
    Posted* next = std::exchange(newest->next_, oldest);
    oldest = newest;
    newest = next;
  }
  return oldest;
}

std::size_t Mailbox::run(Scheduler& loop) {
  if (newest_.load(std::memory_order_relaxed) == nullptr) return 0;
  std::size_t count = 0;
  for (Posted* item = reversed(newest_.exchange(nullptr, std::memory_order_acquire));
       item != nullptr; ++count) {
    const std::unique_ptr<Posted> work(std::exchange(item, item->next_));
    try {
      if (!of_parent_) work->run();  // the one before may have forked: the rest is the parent's
    } catch (...) {
      loop.report_failure(std::current_exception(), "a posted function");
    }
  }
  return count;
}

void Mailbox::close() noexcept {
  closed_.store(true, std::memory_order_seq_cst);
  {
    const std::lock_guard lock(engine_mutex_);
    engine_ = nullptr;
  }
  for (Posted* item = reversed(newest_.exchange(nullptr, std::memory_order_acq_rel));
       item != nullptr;) {
    Posted* next = item->next_;
    delete item;
    item = next;
  }
}

}  // namespace weir::detail
