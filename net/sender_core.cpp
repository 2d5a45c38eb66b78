#include <weir/net/connection.h>
#include <weir/net/sender_core.h>

#include <memory>
#include <new>
#include <utility>

namespace weir::detail {

SenderCore::SenderCore(Connection& connection, Outbox& outbox)
    : home_(&connection.loop()),
      outbox_(outbox.open() ? &outbox : nullptr),
      connection_(&connection),
      mailbox_(connection.loop().mailbox()),
      high_(outbox.marks().high),
      low_(outbox.marks().low) {}

SenderCore::~SenderCore() {
  if (mailbox_->is_of_parent()) become_parents();
}

/// In the child of a fork whoever had the lock is not there, and what it guards may be as a thread
/// of the parent was about to change it. Of that nothing is sent here, nor freed.
void SenderCore::become_parents() noexcept {
  outbox_ = nullptr;
  new (&mutex_) std::mutex;
  new (&queue_) std::vector<OtherMessage>;
  new (&waiting_) List<Node>;
}

std::unique_lock<std::mutex> SenderCore::locked() {
  if (mailbox_->is_of_parent()) become_parents();
  return std::unique_lock(mutex_);
}

/// A coroutine of the connection's own loop, with nothing of others before it, does without the
/// lock and the post.
bool SenderCore::try_send_here(OtherMessage& message) {
  const Scheduler* here = Scheduler::current_or_null();
  return here == home_ && here->running().scope() != nullptr && outbox_ != nullptr &&
         outbox_->try_take_over(message);
}

bool SenderCore::put(OtherMessage&& message) {
  if (outbox_ == nullptr || !waiting_.empty() ||
      queued_ + outbox_->level().pending_for_others() >= high_) {
    return false;
  }
  queue(std::move(message));
  return true;
}

/// Strong: first what may fail.
void SenderCore::queue(OtherMessage&& message) {
  const std::size_t size = message.size();
  queue_.reserve(queue_.size() + 1 > queue_.capacity() ? 2 * queue_.size() + 1 : 0);
  schedule();
  queue_.push_back(std::move(message));
  queued_ += size;
}

void SenderCore::schedule() {
  if (!scheduled_) mailbox_->post([core = shared_from_this()] { core->drain(); });
  scheduled_ = true;
  outbox_->level().others_came();
}

bool SenderCore::try_send(OtherMessage&& message) {
  if (try_send_here(message)) return true;
  const std::unique_lock lock = locked();
  return put(std::move(message));
}

bool SenderCore::send_or_wait(Node& node, std::coroutine_handle<> handle) {
  if (try_send_here(node.message)) return node.sent = true;
  const std::unique_lock lock = locked();
  if (outbox_ == nullptr) return true;
  if (put(std::move(node.message))) return node.sent = true;
  schedule();  // so that the outbox knows that somebody waits
  node.waiter.suspend(handle);
  waiting_.push_back(node);
  return false;
}

void SenderCore::forget(Node& node) noexcept {
  const std::unique_lock lock = locked();
  node.link.unlink();
  node.waiter.forget_wake();
}

bool SenderCore::open() {
  const std::unique_lock lock = locked();
  return outbox_ != nullptr;
}

void SenderCore::end(bool with_reset) {
  mailbox_->post([core = shared_from_this(), with_reset] {
    if (core->connection_ == nullptr) return;
    if (with_reset) {
      core->connection_->ending().cut(kClosedHere, true);
    } else {
      core->connection_->ending().close();
    }
  });
}

void SenderCore::set_marks(std::size_t high, std::size_t low) {
  const std::unique_lock lock = locked();
  high_ = high;
  low_ = low;
  admit_waiting();
}

void SenderCore::admit() noexcept {
  const std::unique_lock lock = locked();
  admit_waiting();
}

void SenderCore::admit_waiting() noexcept {
  if (outbox_ == nullptr || queued_ + outbox_->level().pending_for_others() > low_) return;
  while (Node* node = waiting_.front()) {
    if (queued_ + outbox_->level().pending_for_others() >= high_) return;
    try {
      queue(std::move(node->message));
      node->sent = true;
    } catch (...) {
      node->out_of_memory = true;
    }
    wake(*node);
  }
}

void SenderCore::wake(Node& node) noexcept {
  node.link.unlink();
  node.waiter.wake_from_anywhere();
}

void SenderCore::hand_over(bool last) {
  std::vector<OtherMessage> messages;
  Outbox* outbox = nullptr;
  std::size_t bytes = 0;
  {
    // With the same lock as the end: what was accepted before it goes out.
    const std::unique_lock lock = locked();
    scheduled_ = false;
    messages.swap(queue_);
    for (const OtherMessage& message : messages) bytes += message.size();
    outbox = last ? std::exchange(outbox_, nullptr) : outbox_;
    while (Node* node = last ? waiting_.front() : nullptr) wake(*node);
    if (outbox != nullptr && waiting_.empty()) outbox->level().others_left();
  }
  if (outbox == nullptr) return;
  if (!messages.empty()) outbox->take_over(std::move(messages));
  const std::unique_lock lock = locked();
  queued_ -= bytes;
  admit_waiting();
}

}  // namespace weir::detail
