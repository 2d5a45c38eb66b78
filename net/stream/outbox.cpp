#include <weir/coro/frame_allocator.h>
#include <weir/net/sender_core.h>
#include <weir/net/stream/out_waiters.h>
#include <weir/net/stream/outbox.h>
#include <weir/net/stream/sending.h>

#include <cerrno>
#include <cstring>

namespace weir::detail {

struct Outbox::Extras : FrameAllocated {
  Waiters waiters;
  HighWater high_water;
  std::shared_ptr<SenderCore> others;
};

Outbox::Outbox(Sink& sink, WaterMarks marks) noexcept
    : high_(mark_of(marks.high)), sink_(sink), low_(mark_of(marks.low)) {}

Outbox::~Outbox() = default;

Outbox::Extras& Outbox::extras() {
  if (extras_ == nullptr) extras_ = std::make_unique<Extras>();
  return *extras_;
}

// ---- sending ------------------------------------------------------------------------------------

bool Outbox::try_send(Send& send) {
  if (level_.has(OutboxLevel::kOthers)) extras_->others->drain();  // in the order of the calls
  if (end_ != End::none) {
    send.failure = take_failure();
    return true;
  }
  if (pending() < high_ && !level_.has(OutboxLevel::kCrowd)) {
    // It will wait, and is not to lack memory for that once it is accepted.
    if (pending() + send.bytes >= high_) (void)extras();
    accept(send);
    return pending() < high_;
  }
  if (!send.buffer && send.bytes > 0) {  // the caller's bytes need not outlive the call
    send.buffer = make_buffer(send.bytes);
    std::memcpy(send.buffer->data(), send.data, send.bytes);
    send.data = send.buffer->data();
  }
  return false;
}

void Outbox::wait(Send& send) {
  extras().waiters.add(send);
  level_.add(OutboxLevel::kCrowd);
}

void Outbox::drop(Send& send) noexcept {
  send.unlink();
  if (extras_->waiters.first_send() == nullptr) level_.remove(OutboxLevel::kCrowd);
  finish_if_due();
}

void Outbox::accept(Send& send) {
  send.accepted = true;
  if (send.bytes == 0) return;
  mix(sink_.looks_again());
  const bool was_below = pending() < high_;
  queue_.add(std::move(send.buffer), {send.data, send.bytes});
  level_.set_pending(pending() + send.bytes);
  added(was_below);
}

void Outbox::added(bool was_below) noexcept {
  if (was_below && pending() >= high_ && extras_ != nullptr) extras_->high_water.cross();
  sink_.output_ready();
}

void Outbox::take_over(std::vector<OtherMessage>&& messages) noexcept {
  const bool was_below = pending() < high_;
  mix(sink_.looks_again());
  try {
    for (OtherMessage& message : messages) {
      const std::size_t size = message.size();
      queue_.add(message);
      level_.set_pending(pending() + size);
    }
  } catch (...) {
    sink_.output_failed(ENOMEM);  // they were promised
    return;
  }
  if (!queue_.empty()) added(was_below);
}

bool Outbox::try_send_copy(const std::byte* data, std::size_t size) {
  if (level_.has(OutboxLevel::kEnding)) return false;  // its loop may have gone
  sink_.check_thread();
  if (!takes_alone(size)) return size > 0 && try_send_behind(data, size);
  BufferRef buffer = OutQueue::copy_of(data, size);
  data = buffer->data();
  // As `try_send_plain` does; that it may has been asked.
  level_.set_pending(size);
  queue_.push_alone(std::move(buffer), data, size);
  sink_.output_alone();
  return true;
}

bool Outbox::try_take_over(OtherMessage& message) {
  const std::size_t size = message.size();
  if (size > OutQueue::kCopyUpTo) {
    if (!takes_alone(size)) return false;
    Chunk kept = adopt(std::move(message));
    const std::byte* data = kept.data();
    BufferRef buffer = std::move(kept).release_buffer();
    return try_send_plain(buffer, data, size);
  }
  return try_send_copy(reinterpret_cast<const std::byte*>(message.view().data()), size);
}

std::shared_ptr<SenderCore> Outbox::others() const noexcept {
  return extras_ == nullptr ? nullptr : extras_->others;
}

void Outbox::set_others(std::shared_ptr<SenderCore> others) { extras().others = std::move(others); }

void Outbox::admit() noexcept {
  if (!level_.has(OutboxLevel::kCrowd)) return;
  while (Send* send = extras_->waiters.first_send()) {
    if (!send->accepted) {
      if (pending() >= high_) return;
      try {
        accept(*send);
      } catch (...) {
        send->failure = ENOMEM;
      }
      if (pending() >= high_) return;  // it waits on, for its own bytes to go
    }
    Waiters::let_go(*send);
  }
  level_.remove(OutboxLevel::kCrowd);
}

void Outbox::set_marks(WaterMarks marks) {
  high_ = mark_of(marks.high);
  low_ = mark_of(marks.low);
  if (pending() <= low_) admit();
  if (const auto core = others()) core->set_marks(high_, low_);
}

void Outbox::on_high_water(std::function<void(std::size_t)> function) {
  extras().high_water.set(std::move(function));
}

HighWater* Outbox::high_water() const noexcept {
  return extras_ == nullptr ? nullptr : &extras_->high_water;
}

// ---- going --------------------------------------------------------------------------------------

void Outbox::sent(std::size_t count) noexcept {
  rounds_.reset();
  level_.set_pending(pending() - count);
  sent_ += count;
  queue_.remove(count);
  if (queue_.empty()) level_.remove(OutboxLevel::kMixed);
  if (pending() <= low_) {
    admit();
    if (level_.has(OutboxLevel::kOthers)) extras_->others->admit();
  }
  if (level_.has(OutboxLevel::kFlushes)) extras_->waiters.settle(sent_, level_);
  finish_if_due();
}

bool Outbox::try_flush(Flush& flush) noexcept {
  if (level_.has(OutboxLevel::kOthers)) extras_->others->drain();
  if (end_ == End::broken) {
    flush.failure = take_failure();
    return true;
  }
  flush.bytes = accepted();
  return pending() == 0;
}

bool Outbox::try_end(Flush& flush) noexcept {
  if (try_flush(flush) && flush.failure != 0) return true;
  want_end();
  // Those who were let in after the flush's bytes go before the end too: it waits for all.
  flush.bytes = ~std::uint64_t{0};
  return end_ == End::sent;
}

void Outbox::wait(Flush& flush) {
  extras().waiters.add(flush);
  level_.add(OutboxLevel::kFlushes);
}

void Outbox::finish_if_due() noexcept {
  if (end_ != End::wanted || !queue_.empty() || level_.has(OutboxLevel::kCrowd)) return;
  end_ = End::finished;
  sink_.output_finished();
}

void Outbox::ended() noexcept {
  end_ = End::sent;
  if (level_.has(OutboxLevel::kFlushes)) extras_->waiters.settle(~std::uint64_t{0}, level_);
}

// ---- ending -------------------------------------------------------------------------------------

void Outbox::fail(Failure failure) noexcept {
  if (end_ == End::broken) return;
  end_ = End::broken;
  failure_ = failure;
  level_.add(OutboxLevel::kEnding);
  if (const auto core = others()) core->close();
  end_waiting(failure, true);
}

/// What is queued still goes out, and what the others have handed over by now.
void Outbox::want_end() noexcept {
  if (end_ != End::none) return;
  end_ = End::wanted;
  level_.add(OutboxLevel::kEnding);
  if (const auto core = others()) core->close();
  finish_if_due();
}

void Outbox::close() noexcept {
  want_end();
  end_waiting(kClosedHere, false);  // messages that were not accepted yet do not go out
  finish_if_due();
}

void Outbox::end_waiting(Failure failure, bool broken) noexcept {
  if (extras_ == nullptr) return;
  extras_->waiters.end(failure, broken);
  level_.remove(OutboxLevel::kCrowd);
  level_.remove(OutboxLevel::kFlushes);
}

void Outbox::forget(Waiting& waiting) noexcept { extras_->waiters.forget(waiting); }

/// Told once, and not while others are about to be.
Failure Outbox::take_failure() noexcept {
  const bool others_hear = extras_ != nullptr && extras_->waiters.hears();
  return failure_ == 0 || others_hear ? EPIPE : std::exchange(failure_, 0);
}

}  // namespace weir::detail
