#include <weir/net/connection.h>
#include <weir/net/file_source.h>
#include <weir/net/transmitter.h>

#include <poll.h>

#include <algorithm>
#include <cerrno>

namespace weir::detail {
namespace {

/// Segments of one send. More would seldom make a larger one: small messages are copied together.
constexpr std::uint32_t kSegmentsPerSend = 64;
/// A block of a file at the least; larger where the socket takes more at once.
constexpr std::size_t kFileBlock = 64 << 10;

}  // namespace

struct Transmitter::Work : FrameAllocated {
  Work() noexcept {}  // NOLINT(modernize-use-equals-default): the slices need no values

  Slice slices[kSegmentsPerSend];
  BufferRef block;  // what was read of a file, and is being sent
  Slice block_slice{nullptr, 0};
  Operation::FilePart part{nullptr, 0, 0};  // of the file that is being read
  std::size_t block_size = kFileBlock;
  bool file_waits = false;     // for the socket to take something
  SegmentQueue wire;           // what the transform made
  std::size_t stands_for = 0;  // bytes of the outbox
};

Transmitter::Transmitter(const Slice& first, int fd) noexcept
    : operation_(OperationKind::send, &Transmitter::on_complete) {
  operation_.fd = fd;
  operation_.send(&first, 1);
}

Transmitter::~Transmitter() = default;

inline Connection& Transmitter::connection() const noexcept {
  return *whole_of(const_cast<Transmitter&>(*this), &Connection::transmitter_);
}

Transmitter::Work& Transmitter::work() {
  if (work_ == nullptr) work_ = std::make_unique<Work>();
  return *work_;
}

bool Transmitter::idle() const noexcept { return work_ == nullptr || work_->wire.empty(); }

void Transmitter::be_plain() noexcept {
  operation_.fd = connection().fd();
  operation_.send(&connection().outbox().queue().front().slice, 1);
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
  if (work_ != nullptr) work_->stands_for = 0;
}

void Transmitter::advance_block(std::size_t used) noexcept {
  FileSource::of(connection().outbox().queue().front().buffer).offset += used;
  Slice& block = work_->block_slice;
  block = {static_cast<const std::byte*>(block.data) + used, block.size - used};
  if (block.size == 0) work_->block.reset();
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
    work_->block_slice = {work_->block->data(), static_cast<std::size_t>(result)};
    start();
  } else {
    // The length was promised to the peer, and the file has less.
    connection().ending().fail(result == 0 ? EIO : -result);
  }
}

/// What did not go is read again when it can.
void Transmitter::file_was_sent(std::size_t count) noexcept {
  FileSource::of(connection().outbox().queue().front().buffer).offset += count;
  Work& more = *work_;
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
    work_.reset();
  } else if (kind == OperationKind::read_file) {
    file_was_read(result);
  } else if (kind == OperationKind::poll && result > 0) {
    work_->file_waits = false;
  } else if (result >= 0 || result == -EINTR || result == -EAGAIN) {
    const auto count = static_cast<std::size_t>(std::max(result, 0));
    if (kind == OperationKind::send_now) file_was_sent(count);
    sent(count);
  } else {
    of.ending().fail(-result);
  }
  if (!in_flight()) {
    if (of.outbox().queue().empty() && idle()) work_.reset();
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
  SegmentQueue& wire = work_->wire;
  while (count > 0) {
    const std::size_t part = std::min(count, wire.front().size());
    wire.front().advance(part);
    count -= part;
    if (wire.front().size() == 0) wire.pop_front();
  }
  std::size_t left = 0;
  for (std::uint32_t i = 0; i < wire.size() && left < work_->stands_for; ++i)
    left += wire[i].size();
  const std::size_t unsent = std::min(left, work_->stands_for);
  if (const std::size_t gone = std::exchange(work_->stands_for, unsent) - unsent; gone > 0) {
    outbox.sent(gone);
  }
}

void Transmitter::stop() noexcept {
  if (operation_.in_flight()) connection().loop().engine().cancel(operation_);
}

}  // namespace weir::detail
