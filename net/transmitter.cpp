#include <weir/net/connection_extras.h>
#include <weir/net/file_source.h>
#include <weir/net/transmitter.h>

#include <poll.h>

#include <algorithm>
#include <cerrno>

namespace weir::detail {
Transmitter::Transmitter(const Slice& first, int fd) noexcept
    : operation_(OperationKind::send, &Transmitter::on_complete) {
  operation_.fd = fd;
  operation_.send(&first, 1);
}

inline Connection& Transmitter::connection() const noexcept {
  return *whole_of(const_cast<Transmitter&>(*this), &Connection::transmitter_);
}

Transmitter::Work& Transmitter::work() {
  auto& work = connection().extras().work;
  if (work == nullptr) work = std::make_unique<Work>();
  return *work;
}

Transmitter::Work* Transmitter::work_or_null() const noexcept {
  const auto& extras = connection().extras_;
  return extras == nullptr ? nullptr : extras->work.get();
}

void Transmitter::drop_work() noexcept {
  if (const auto& extras = connection().extras_; extras != nullptr) extras->work.reset();
}

bool Transmitter::idle() const noexcept {
  const Work* const made = work_or_null();
  return made == nullptr || made->wire.empty();
}

void Transmitter::be_plain() noexcept {
  operation_.fd = connection().fd();
  operation_.send(&connection().outbox().queue().alone(), 1);
}

void Transmitter::start() noexcept {
  if (!operation_.may_change() || connection().ending().is_mute()) return;
  try {
    if (!prepare()) return;
  } catch (const Broken& broken) {
    connection().outbox().queue().untake();
    connection().ending().fail(broken.failure);
    return;
  } catch (...) {
    connection().outbox().queue().untake();
    connection().ending().fail(ENOMEM);
    return;
  }
  if (!operation_.in_flight()) connection().loop().engine().submit(operation_);
}

bool Transmitter::prepare() {
  if (connection().transform() != nullptr) return prepare_wire();
  Outbox& outbox = connection().outbox();
  if (outbox.queue().empty()) return false;
  if (outbox.queue().front().is_file()) {
    prepare_file();
  } else {
    be_plain();
    outbox.queue().take_one();
    if (!outbox.queue().has_one()) {
      operation_.send(work().slices, outbox.queue().take(work().slices, kSegmentsPerSend));
    }
  }
  return true;
}

/// Has the transform make of what is queued, as far as it goes, what the wire gets.
bool Transmitter::prepare_wire() {
  Outbox& outbox = connection().outbox();
  Transform& transform = *connection().transform();
  Work& more = work();
  while (more.wire.empty()) {
    const bool file = !outbox.queue().empty() && outbox.queue().front().is_file();
    if (file && more.block_slice.size == 0 && !transform.has_output()) {
      read_block();
      return true;
    }
    const Slice* slices = more.slices;
    std::uint32_t count = 0;
    if (!file) {
      count = outbox.queue().take(more.slices, kSegmentsPerSend);
    } else if (more.block_slice.size > 0) {
      slices = &more.block_slice;
      count = 1;
    }
    const bool ending = outbox.finished() && !connection().ending().by_reset();
    const std::size_t used = transform.send({slices, count}, ending, more.wire);
    if (file) advance_block(used);
    if (used == 0) outbox.queue().untake();
    if (!more.wire.empty()) {
      more.stands_for = used;
    } else if (used > 0) {
      outbox.sent(used);
    } else {
      if (outbox.finished() || connection().ending().says_last()) connection().ending().send_fin();
      return false;
    }
  }
  be_plain();
  std::uint32_t count = 0;
  for (; count < std::min(more.wire.size(), kSegmentsPerSend); ++count) {
    more.slices[count] = more.wire[count].slice;
  }
  operation_.send(more.slices, count);
  return true;
}

void Transmitter::forget_plain() noexcept {
  if (Work* const made = work_or_null()) made->stands_for = 0;
}

void Transmitter::advance_block(std::size_t used) noexcept {
  FileSource::of(connection().outbox().queue().front().buffer).offset += used;
  Work& more = *work_or_null();
  Slice& block = more.block_slice;
  block = {static_cast<const std::byte*>(block.data) + used, block.size - used};
  if (block.size == 0) more.block.reset();
}

void Transmitter::read_block() {
  Outbox& outbox = connection().outbox();
  Work& more = work();
  more.block = make_buffer(kBulkBuffer);
  const FileSource& source = FileSource::of(outbox.queue().front().buffer);
  more.part = {
      more.block->data(), source.offset,
      static_cast<std::uint32_t>(std::min(outbox.queue().front().size(), more.block_size))};
  operation_.fd = source.file;
  operation_.read_file(more.part);
}

/// Reads the next block of the file at the front, or sends what the socket takes at once of the one
/// that was read; or waits until it takes something, without a block.
void Transmitter::prepare_file() {
  Outbox& outbox = connection().outbox();
  Work& more = work();
  be_plain();
  outbox.queue().take_one();
  if (more.block_slice.size > 0) {
    operation_.send_now(more.block_slice);
  } else if (more.file_waits) {
    operation_.poll(POLLOUT);
  } else {
    read_block();
  }
}

void Transmitter::file_was_read(int result) noexcept {
  if (result > 0) {
    Work& more = *work_or_null();
    more.block_slice = {more.block->data(), static_cast<std::size_t>(result)};
    start();
  } else {
    // The length was promised to the peer, and the file has less.
    connection().ending().fail(result == 0 ? EIO : -result);
  }
}

/// What did not go is read again when it can.
void Transmitter::file_was_sent(std::size_t count) noexcept {
  FileSource::of(connection().outbox().queue().front().buffer).offset += count;
  Work& more = *work_or_null();
  more.file_waits = count < more.block_slice.size;
  more.block_size =
      more.file_waits ? std::max(count, kFileBlock) : std::min(2 * more.block_size, kBulkBuffer);
  more.block_slice = {nullptr, 0};
  more.block.reset();
}

void Transmitter::on_complete(Operation& operation, Completion completion) noexcept {
  Transmitter& transmitter = *whole_of(operation, &Transmitter::operation_);
  Connection& connection = transmitter.connection();
  if (connection.outbox().sent_plain(completion.result)) return;
  transmitter.completed(completion);
}

void Transmitter::completed(Completion completion) noexcept {
  Connection& of = connection();
  const OperationKind kind = operation_.kind;
  const int result = completion.result;
  if (of.ending().is_mute()) {
    of.outbox().clear();
    drop_work();
  } else if (kind == OperationKind::read_file) {
    file_was_read(result);
  } else if (kind == OperationKind::poll && result > 0) {
    work_or_null()->file_waits = false;
  } else if (result >= 0 || result == -EINTR || result == -EAGAIN) {
    const auto count = static_cast<std::size_t>(std::max(result, 0));
    if (kind == OperationKind::send_now) file_was_sent(count);
    sent(count);
  } else {
    of.ending().fail(-result);
  }
  if (!in_flight()) {
    if (of.outbox().queue().empty() && idle()) drop_work();
    be_plain();
    if (!of.outbox().queue().empty() || of.transform() != nullptr) of.output_ready();
  }
  of.ending().conclude();
}

void Transmitter::sent(std::size_t count) noexcept {
  Outbox& outbox = connection().outbox();
  if (connection().transform() == nullptr) {
    if (count > 0) {
      outbox.sent(count);
    } else {
      outbox.queue().untake();
    }
    return;
  }
  Work& more = *work_or_null();
  SegmentQueue& wire = more.wire;
  while (count > 0) {
    const std::size_t part = std::min(count, wire.front().size());
    wire.front().advance(part);
    count -= part;
    if (wire.front().size() == 0) wire.pop_front();
  }
  std::size_t left = 0;
  for (std::uint32_t i = 0; i < wire.size() && left < more.stands_for; ++i) left += wire[i].size();
  const std::size_t unsent = std::min(left, more.stands_for);
  if (const std::size_t gone = std::exchange(more.stands_for, unsent) - unsent; gone > 0) {
    outbox.sent(gone);
  }
}

void Transmitter::stop() noexcept {
  if (operation_.in_flight()) connection().loop().engine().cancel(operation_);
}

}  // namespace weir::detail
