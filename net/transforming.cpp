#include <weir/net/connection.h>
#include <weir/net/transforming.h>

#include <utility>

namespace weir::detail {

inline Connection& Transforming::connection() const noexcept {
  return *whole_of(const_cast<Transforming&>(*this), &Connection::transforming_);
}

void Transforming::begin(std::unique_ptr<Transform> transform) {
  Connection& of = connection();
  transform_ = std::move(transform);
  of.outbox().level().add(OutboxLevel::kTransformed);
  while (Chunk chunk = of.inbox().take_some()) {
    const std::byte* data = chunk.data();
    const std::size_t size = chunk.size();
    worked(transform_->receive(std::move(chunk).release_buffer(), data, size, of.inbox()));
  }
  if (of.receiver().at_end()) peer_ended();
  of.receiver().update();
}

void Transforming::end() noexcept {
  Connection& of = connection();
  transform_.reset();
  of.outbox().level().remove(OutboxLevel::kTransformed);
  if (of.receiver().at_end() && !of.inbox().at_end()) of.inbox().end();
  of.receiver().update();
  if (of.outbox().pending() > 0) {
    of.output_ready();
  } else if (of.outbox().finished()) {
    of.ending().send_fin();
  }
}

void Transforming::worked(Failure failure) noexcept {
  Connection& of = connection();
  if (transform_->has_output()) {
    if (failure != 0 && !of.ending().is_closing()) of.ending().will_say_last();
    of.output_ready();
  }
  if (failure != 0) of.ending().fail(failure);
}

void Transforming::peer_ended() noexcept {
  Connection& of = connection();
  if (transform_ == nullptr || of.ending().is_closing()) return of.inbox().end();
  worked(transform_->receive_end(of.inbox()));
}

}  // namespace weir::detail
