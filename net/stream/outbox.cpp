#include <weir/net/sender_core.h>
#include <weir/net/stream/outbox.h>
#include <weir/net/stream/sending.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace weir::detail {
namespace {

/// Up to this size a copy behind what is queued is cheaper than a segment of its own.
constexpr std::size_t kCopyUpTo = 512;
/// The data of a recycled buffer for copies.
constexpr std::size_t kCopyBuffer = kSmallBuffer - sizeof(Buffer);

}  // namespace

struct Outbox::Extras : FrameAllocated {
  List<Send> sends;
  List<Flush> flushes;
  Waiting* untold = nullptr;  // in the order in which they resume
  Waiting** last_untold = &untold;
  std::function<void(std::size_t)> on_high_water;
  bool crossed_high = false;
  std::shared_ptr<SenderCore> others;
};

Outbox::Outbox(Sink& sink, WaterMarks marks) noexcept
    : sink_(sink), high_(mark_of(marks.high)), low_(mark_of(marks.low)) {}

Outbox::~Outbox() {
  if (extras_ == nullptr) return;
  for (Waiting* waiting = extras_->untold; waiting != nullptr; waiting = waiting->next_untold) {
    waiting->untold = false;
  }
}

Outbox::Extras& Outbox::extras() {
  if (extras_ == nullptr) extras_ = std::make_unique<Extras>();
  return *extras_;
}

// ---- sending ------------------------------------------------------------------------------------

bool Outbox::try_send(Send& send) {
  take_from_others();  // in the order of the calls
  if (end_ != End::none) {
    send.failure = take_failure();
    return true;
  }
  if (pending() < high_ && !level_.has(OutboxLevel::kCrowd)) {
    accept(send);
    return pending() < high_;
  }
  if (!send.buffer && send.slice.size > 0) {  // the caller's bytes need not outlive the call
    send.buffer = make_buffer(send.slice.size);
    std::memcpy(send.buffer->data(), send.slice.data, send.slice.size);
    send.slice.data = send.buffer->data();
  }
  return false;
}

void Outbox::wait(Send& send) {
  extras().sends.push_back(send);
  level_.add(OutboxLevel::kCrowd);
}

void Outbox::drop(Send& send) noexcept {
  send.unlink();
  if (extras_->sends.empty()) level_.remove(OutboxLevel::kCrowd);
  finish_if_due();
}

void Outbox::accept(Send& send) {
  send.accepted = true;
  const Slice slice = send.slice;
  if (slice.size == 0) return;
  mix();
  const bool was_below = pending() < high_;
  // What waits behind others must not pin much more memory than it has bytes.
  const bool keep =
      send.buffer && (queue_.empty() || slice.data == nullptr ||
                      slice.size > std::max<std::size_t>(kCopyUpTo, send.buffer->capacity() / 2));
  if (keep) {
    append(std::move(send.buffer), slice);
  } else {
    append_copy(static_cast<const std::byte*>(slice.data), slice.size);
    send.buffer.reset();
  }
  added(was_below);
}

void Outbox::append(BufferRef&& buffer, const Slice& slice) {
  queue_.push_back(Segment{std::move(buffer), slice});
  level_.set_pending(pending() + slice.size);
}

void Outbox::append_copy(const std::byte* data, std::size_t size) {
  if (size == 0) return;
  if (!copy_buffer_ || copy_buffer_->capacity() - copied_ < size) {
    // Never in two parts, so that a failure leaves no half of a message.
    copy_buffer_ = make_buffer(std::max(size, kCopyBuffer));
    copied_ = 0;
  }
  std::byte* to = copy_buffer_->data() + copied_;
  const bool extends = queue_.size() > taken_ && !queue_.back().is_file() &&
                       queue_.back().data() + queue_.back().size() == to;
  if (extends) {
    queue_.back().slice.size += size;
  } else {
    queue_.push_back(Segment{copy_buffer_, {to, size}});
  }
  std::memcpy(to, data, size);
  copied_ += static_cast<std::uint32_t>(size);
  level_.set_pending(pending() + size);
}

/// The queue is not one message alone any more; the sink has that one.
void Outbox::mix() noexcept {
  if (level_.has(OutboxLevel::kMixed)) return;
  taken_ = queue_.empty() ? 0 : 1;
  level_.add(OutboxLevel::kMixed);
}

void Outbox::added(bool was_below) noexcept {
  if (was_below && pending() >= high_ && extras_ != nullptr) extras_->crossed_high = true;
  sink_.output_ready();
}

void Outbox::append_other(OtherMessage& message) {
  std::visit(
      [this](auto& bytes) {
        if (bytes.size() <= kCopyUpTo) {
          append_copy(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
        } else {
          Chunk kept = adopt(std::move(bytes));
          const Slice slice{kept.data(), kept.size()};
          append(std::move(kept).release_buffer(), slice);
        }
      },
      message);
}

void Outbox::take_over(std::vector<OtherMessage>&& messages) noexcept {
  const bool was_below = pending() < high_;
  mix();
  try {
    for (OtherMessage& message : messages) append_other(message);
  } catch (...) {
    sink_.output_failed(ENOMEM);  // they were promised
    return;
  }
  if (!queue_.empty()) added(was_below);
}

void Outbox::take_from_others() noexcept {
  if (level_.has(OutboxLevel::kOthers)) extras_->others->drain();
}

std::shared_ptr<SenderCore> Outbox::others() const noexcept {
  return extras_ == nullptr ? nullptr : extras_->others;
}

void Outbox::set_others(std::shared_ptr<SenderCore> others) { extras().others = std::move(others); }

void Outbox::admit() noexcept {
  if (!level_.has(OutboxLevel::kCrowd)) return;
  while (Send* send = extras_->sends.front()) {
    if (!send->accepted) {
      if (pending() >= high_) return;
      try {
        accept(*send);
      } catch (...) {
        send->failure = ENOMEM;
      }
      if (pending() >= high_) return;  // it waits on, for its own bytes to go
    }
    send->unlink();
    send->outbox = nullptr;
    send->wake();
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
  extras().on_high_water = std::move(function);
}

std::function<void(std::size_t)> Outbox::take_high_water() noexcept {
  if (extras_ == nullptr || !std::exchange(extras_->crossed_high, false)) return {};
  try {
    return extras_->on_high_water;  // a copy: it may set another
  } catch (...) {
    return {};
  }
}

// ---- going --------------------------------------------------------------------------------------

std::uint32_t Outbox::take(Slice* to, std::uint32_t most) noexcept {
  most = std::min(most, queue_.size());
  for (taken_ = 0; taken_ < most && !queue_[taken_].is_file(); ++taken_) {
    to[taken_] = queue_[taken_].slice;
  }
  return taken_;
}

void Outbox::sent(std::size_t count) noexcept {
  taken_ = 0;
  idle_rounds_ = stalled_rounds_ = 0;
  level_.set_pending(pending() - count);
  sent_ += count;
  while (count > 0) {
    Segment& front = queue_.front();
    const std::size_t part = std::min(count, front.size());
    front.advance(part);
    count -= part;
    if (front.size() == 0) queue_.pop_front();
  }
  if (queue_.empty()) {
    copy_buffer_.reset();
    copied_ = 0;
    level_.remove(OutboxLevel::kMixed);
  }
  if (pending() <= low_) {
    admit();
    if (level_.has(OutboxLevel::kOthers)) extras_->others->admit();
  }
  settle_flushes();
  finish_if_due();
}

void Outbox::settle_flushes() noexcept {
  if (!level_.has(OutboxLevel::kFlushes)) return;
  while (Flush* flush = extras_->flushes.front()) {
    if (flush->until > sent_) return;
    flush->unlink();
    flush->wake();
  }
  level_.remove(OutboxLevel::kFlushes);
}

bool Outbox::try_flush(Flush& flush) noexcept {
  take_from_others();
  if (end_ == End::broken) {
    flush.failure = take_failure();
    return true;
  }
  flush.until = accepted();
  return pending() == 0;
}

bool Outbox::try_end(Flush& flush) noexcept {
  if (try_flush(flush) && flush.failure != 0) return true;
  if (end_ == End::none) {
    end_ = End::wanted;
    level_.add(OutboxLevel::kEnding);
    if (const auto core = others()) core->close();  // what they have handed over still goes out
    finish_if_due();
  }
  // Those who were let in after the flush's bytes go before the end too: it waits for all.
  flush.until = ~std::uint64_t{0};
  return end_ == End::sent;
}

void Outbox::wait(Flush& flush) {
  extras().flushes.push_back(flush);
  level_.add(OutboxLevel::kFlushes);
}

void Outbox::finish_if_due() noexcept {
  if (end_ != End::wanted || !queue_.empty() || level_.has(OutboxLevel::kCrowd)) return;
  end_ = End::finished;
  sink_.output_finished();
}

void Outbox::ended() noexcept {
  end_ = End::sent;
  if (!level_.has(OutboxLevel::kFlushes)) return;
  while (Flush* flush = extras_->flushes.pop_front()) flush->wake();
  level_.remove(OutboxLevel::kFlushes);
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

void Outbox::close() noexcept {
  if (end_ == End::none) {
    end_ = End::wanted;
    level_.add(OutboxLevel::kEnding);
    if (const auto core = others()) core->close();
  }
  end_waiting(kClosedHere, false);  // messages that were not accepted yet do not go out
  finish_if_due();
}

void Outbox::clear() noexcept {
  queue_.clear();
  copy_buffer_.reset();
  level_.set_pending(0);
  taken_ = 0;
}

void Outbox::end_waiting(Failure failure, bool broken) noexcept {
  if (extras_ == nullptr) return;
  while (Send* send = extras_->sends.pop_front()) tell(*send, failure, broken);
  while (Flush* flush = extras_->flushes.pop_front()) tell(*flush, failure, broken);
  level_.remove(OutboxLevel::kCrowd);
  level_.remove(OutboxLevel::kFlushes);
}

void Outbox::tell(Waiting& waiting, Failure failure, bool broken) noexcept {
  waiting.failure = failure;
  if (broken) {
    waiting.untold = true;
    *extras_->last_untold = &waiting;
    extras_->last_untold = &waiting.next_untold;
  } else {
    waiting.outbox = nullptr;
  }
  waiting.wake();
}

void Outbox::forget(Waiting& waiting) noexcept {
  Waiting** link = &extras_->untold;
  while (*link != &waiting) link = &(*link)->next_untold;
  *link = waiting.next_untold;
  if (waiting.next_untold == nullptr) extras_->last_untold = link;
}

/// Told once, and not while others are about to be.
Failure Outbox::take_failure() noexcept {
  const bool others_hear = extras_ != nullptr && extras_->untold != nullptr;
  return failure_ == 0 || others_hear ? EPIPE : std::exchange(failure_, 0);
}

}  // namespace weir::detail
