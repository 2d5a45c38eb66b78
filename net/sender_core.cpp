#include <weir/net/sender_core.h>
#include <weir/net/stream.h>

#include <utility>

namespace weir {

SenderCore::SenderCore(Stream& stream, std::shared_ptr<Mailbox> mailbox, std::size_t high,
                       std::size_t low)
    : stream_(&stream), ending_(&stream), mailbox_(std::move(mailbox)), high_(high), low_(low) {}

bool SenderCore::put(std::string&& message) {
  if (stream_ == nullptr || !waiting_.empty() || queued_ + pending_ >= high_) return false;
  queued_ += message.size();
  queue_.push_back(std::move(message));
  schedule();
  return true;
}

void SenderCore::schedule() {
  if (std::exchange(scheduled_, true)) return;
  auto drain = [core = shared_from_this()] { core->drain(); };
  mailbox_->push(std::make_unique<PostedFunction<decltype(drain)>>(std::move(drain)));
}

bool SenderCore::try_send(std::string&& message) {
  const std::lock_guard lock(mutex_);
  return put(std::move(message));
}

bool SenderCore::send_now(Node& node) {
  const std::lock_guard lock(mutex_);
  if (stream_ == nullptr) return true;
  return node.sent = put(std::move(node.message));
}

bool SenderCore::send_or_wait(Node& node, std::coroutine_handle<> handle) {
  const std::lock_guard lock(mutex_);
  if (stream_ == nullptr) return true;
  if (put(std::move(node.message))) return node.sent = true;
  node.waiter.suspend(handle);
  waiting_.push_back(node);
  return false;
}

void SenderCore::forget(Node& node) {
  const std::lock_guard lock(mutex_);
  node.unlink();
}

bool SenderCore::open() const {
  const std::lock_guard lock(mutex_);
  return stream_ != nullptr;
}

void SenderCore::end(bool with_reset) {
  auto end = [core = shared_from_this(), with_reset] {
    if (core->ending_ == nullptr) return;
    if (with_reset) {
      core->ending_->force_close();
    } else {
      core->ending_->close_and_conclude();
    }
  };
  mailbox_->push(std::make_unique<PostedFunction<decltype(end)>>(std::move(end)));
}

void SenderCore::set_marks(std::size_t high, std::size_t low) {
  const std::lock_guard lock(mutex_);
  high_ = high;
  low_ = low;
  admit();
}

void SenderCore::publish(std::size_t pending) {
  const std::lock_guard lock(mutex_);
  pending_ = pending;
  admit();
}

void SenderCore::admit() {
  if (queued_ + pending_ > low_) return;
  while (Node* node = waiting_.front()) {
    if (queued_ + pending_ >= high_) return;
    node->unlink();  // or `put` would let it wait behind itself
    queued_ += node->message.size();
    queue_.push_back(std::move(node->message));
    schedule();
    node->sent = true;
    wake(*node);
  }
}

void SenderCore::wake(Node& node) {
  // Until its own loop takes it over the node stays ours: it may be dropped before.
  waking_.push_back(node);
  node.waiter.scheduler()->post_function([core = shared_from_this()] { core->wake_here(); });
}

void SenderCore::wake_here() {
  const std::lock_guard lock(mutex_);
  for (Node* node = waking_.front(); node != nullptr;) {
    Node* next = waking_.after(*node);
    if (node->waiter.scheduler() == Scheduler::current_or_null()) {
      node->unlink();
      node->waiter.wake();
    }
    node = next;
  }
}

void SenderCore::hand_over(bool last) {
  std::vector<std::string> messages;
  Stream* stream = nullptr;
  {
    // With the same lock as the end: what was accepted before it goes out.
    const std::lock_guard lock(mutex_);
    scheduled_ = false;
    messages.swap(queue_);
    pending_ += std::exchange(queued_, 0);
    stream = last ? std::exchange(stream_, nullptr) : stream_;
    while (Node* node = last ? waiting_.front() : nullptr) wake(*node);
  }
  if (stream != nullptr && !messages.empty()) stream->take_over(messages);
}

}  // namespace weir
