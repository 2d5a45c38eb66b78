#include <weir/net/stream/out_waiters.h>

namespace weir::detail {

Outbox::Waiters::~Waiters() {
  for (Waiting* waiting = untold_; waiting != nullptr; waiting = waiting->next_untold) {
    waiting->untold = false;
    waiting->outbox = nullptr;
  }
}

void Outbox::Waiters::let_go(Send& send) noexcept {
  send.unlink();
  send.outbox = nullptr;
  send.wake();
}

void Outbox::Waiters::settle(std::uint64_t gone, OutboxLevel& level) noexcept {
  while (Flush* flush = flushes_.front()) {
    if (flush->bytes > gone) return;
    flush->unlink();
    flush->wake();
  }
  level.remove(OutboxLevel::kFlushes);
}

void Outbox::Waiters::end(Failure failure, bool broken) noexcept {
  while (Send* send = sends_.pop_front()) tell(*send, failure, broken);
  while (Flush* flush = flushes_.pop_front()) tell(*flush, failure, broken);
}

void Outbox::Waiters::tell(Waiting& waiting, Failure failure, bool broken) noexcept {
  waiting.failure = failure;
  if (broken) {
    waiting.untold = true;
    waiting.next_untold = nullptr;
    *last_untold_ = &waiting;
    last_untold_ = &waiting.next_untold;
  } else {
    waiting.outbox = nullptr;
  }
  waiting.wake();
}

void Outbox::Waiters::forget(Waiting& waiting) noexcept {
  Waiting** link = &untold_;
  while (*link != &waiting) link = &(*link)->next_untold;
  *link = waiting.next_untold;
  if (waiting.next_untold == nullptr) last_untold_ = link;
}

}  // namespace weir::detail
