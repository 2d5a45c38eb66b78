#include <weir/core/assert.h>
#include <weir/core/log.h>
#include <weir/net/sender_core.h>
#include <weir/net/stream.h>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#ifndef POLLRDHUP
#define POLLRDHUP 0x2000
#endif

namespace weir {
namespace {

/// Segments of one send. More would seldom make a larger one: small messages are copied together.
constexpr std::size_t kSegmentsPerSend = 64;
/// Up to this size a copy behind what is queued is cheaper than a segment of its own.
constexpr std::size_t kCopyUpTo = 512;
/// The data of a recycled buffer for copies.
constexpr std::size_t kCopyBuffer = kSmallBuffer - sizeof(Buffer);
/// Receives in a row that fill their buffer, after which larger ones pay.
constexpr std::uint8_t kFullBuffers = 4;
/// In bulk, a receive of less than this does not need a large buffer: it is copied out, and after a
/// few of them in a row the next go to leased buffers again.
constexpr std::size_t kBulkPays = 8192;
/// How long a connection may hold on to a large buffer into which nothing comes.
constexpr auto kBulkIdle = std::chrono::seconds(1);

}  // namespace

/// A file from which a segment is sent: a buffer without bytes, so that it lives as long as a
/// segment refers to it.
class Stream::FileSource final : public Buffer, public FrameAllocated {
 public:
  FileSource(int fd, std::uint64_t from) noexcept
      : Buffer(owner(), nullptr, 0, 0), file(fd), offset(from) {}
  ~FileSource() { ::close(file); }

  int file;
  std::uint64_t offset;

 private:
  struct Owner final : BufferOwner {
    void release(Buffer& buffer) noexcept override { delete static_cast<FileSource*>(&buffer); }
  };
  static Owner& owner() noexcept {
    static constinit Owner instance;
    return instance;
  }
};

struct Stream::Extras : FrameAllocated {
  struct Linger : Timer {
    explicit Linger(Stream& of)
        : Timer([](Timer& timer) noexcept {
            Stream& owner = static_cast<Linger&>(timer).stream;
            // Unsent bytes end in RST, so that the peer does not take the part for the whole.
            owner.reset_ = owner.reset_ || owner.pending_ > 0;
            owner.abort();
            owner.conclude();
          }),
          stream(of) {}
    Stream& stream;
  };
  struct BulkIdle : Timer {
    explicit BulkIdle(Stream& of)
        : Timer([](Timer& timer) noexcept {
            Stream& owner = static_cast<BulkIdle&>(timer).stream;
            owner.full_buffers_ = 0;
            owner.loop_.engine().cancel(owner.receive_);
          }),
          stream(of) {}
    Stream& stream;
  };

  explicit Extras(Stream& stream) : linger(stream), bulk_idle(stream) {}

  Linger linger;
  BulkIdle bulk_idle;
  std::function<void(std::size_t)> on_high_water;
  bool crossed_high = false;
  std::shared_ptr<SenderCore> sender;
  std::string last_name;  // for a user who still has the connection when it has gone
  SocketAddress last_address;
  Slice slices[kSegmentsPerSend];  // of a send of several segments
  BufferRef file_block;            // what was read of a file
  Slice file_slice{};
};

void Stream::check(const ConnectionOptions& options) {
  const auto reject = [](const char* option, auto value, const char* why, const char* unit = "") {
    throw std::invalid_argument("weir: ConnectionOptions::" + std::string(option) + " is " +
                                std::to_string(value) + unit + "; " + why);
  };
  if (options.water_marks.high == 0) reject("water_marks.high", 0, "it must be at least 1");
  if (options.water_marks.low > options.water_marks.high) {
    reject("water_marks.low", options.water_marks.low,
           ("it must not be above high, " + std::to_string(options.water_marks.high)).c_str());
  }
  if (options.input_high == 0) reject("input_high", 0, "it must be at least 1");
  if (options.linger.count() < 0) {
    reject("linger", options.linger.count(), "it must not be negative", " ms");
  }
}

Stream::Stream(EventLoop& loop, Socket socket, const ConnectionOptions& options, StreamOwner* owner,
               std::uint64_t id)
    : loop_(loop),
      owner_(owner),
      id_(id),
      peer_(socket.peer_address()),
      fd_(socket.release()),
      linger_ms_(static_cast<std::uint32_t>(
          std::min<std::int64_t>(options.linger.count(), std::int64_t{1} << 31))),
      high_(options.water_marks.high),
      low_(options.water_marks.low),
      input_high_(options.input_high),
      receive_(OperationKind::receive, this, &Stream::on_receive),
      send_(OperationKind::send, this, &Stream::on_send) {
  receive_.fd = send_.fd = fd_;
  send_.slices = output_.front().slice();
  send_.size = 1;
}

Stream::~Stream() {
  if (reader_ != nullptr) reader_->stream = nullptr;  // it is about to resume
  if (extras_ != nullptr && extras_->sender != nullptr) extras_->sender->forget_stream();
}

Stream* Stream::adopt(EventLoop& loop, Socket socket, const ConnectionOptions& options,
                      StreamOwner* owner, std::uint64_t id, bool inherited) {
  if (!socket) throw std::invalid_argument("weir: TcpConnection: the socket is not open");
  if (!inherited) {
    Sockets& sockets = loop.sockets();
    // Neither means anything on a Unix socket; a connection that broke meanwhile shows in a read.
    (void)sockets.set(socket.fd(), Sockets::Option::no_delay, options.no_delay ? 1 : 0);
    if (options.keep_alive) (void)sockets.set(socket.fd(), Sockets::Option::keep_alive, 1);
  }
  auto* stream = new Stream(loop, std::move(socket), options, owner, id);
  loop.keep(*stream);
  stream->update_receiving();
  return stream;
}

Stream::Extras& Stream::extras() {
  if (extras_ == nullptr) {
    extras_ = std::make_unique<Extras>(*this);
    plain_ = false;
  }
  return *extras_;
}

void Stream::update_plain() noexcept {
  plain_ = !closing_ && !failed_ && !fin_wanted_ && extras_ == nullptr && senders_.empty() &&
           flushes_.empty() && !copy_buffer_;
}

// ---------------------------------------------------------------------------------------------
// Reading

void Stream::wait_slowly(Reader& reader) {
  if (reader_ != nullptr) {
    throw std::logic_error("weir: another read is already waiting on this connection");
  }
  reader_ = &reader;
  update_receiving();
}

Chunk Stream::take_exactly(std::size_t count) {
  if (count == 0) return {};
  Segment& front = input_.front();
  if (front.size == count) return take_some();
  if (front.size > count) {
    Chunk chunk(front.buffer, front.data, count);
    front.data += count;
    front.size -= count;
    consumed_input(count);
    return chunk;
  }
  BufferRef whole = make_buffer(count);
  std::size_t copied = 0;
  while (copied < count) {
    Segment& next = input_.front();
    const std::size_t part = std::min(next.size, count - copied);
    std::memcpy(whole->data() + copied, next.data, part);
    copied += part;
    next.data += part;
    next.size -= part;
    if (next.size == 0) input_.pop_front();
  }
  consumed_input(count);
  const std::byte* data = whole->data();
  return Chunk(std::move(whole), data, count);
}

std::size_t Stream::find(std::string_view delimiter, std::size_t most, std::size_t& scanned) {
  const std::size_t limit = std::min(most, unread_);
  if (limit < delimiter.size()) return 0;
  // A delimiter may begin in what was looked at before.
  std::size_t start = scanned < delimiter.size() ? 0 : scanned - (delimiter.size() - 1);
  std::size_t base = 0;  // where the piece begins
  for (std::uint32_t i = 0; i < input_.size() && base < limit; base += input_[i].size, ++i) {
    const Segment& piece = input_[i];
    const std::size_t end = std::min(base + piece.size, limit);
    while (start < end) {
      const auto* from = piece.data + (start - base);
      const void* hit = std::memchr(from, delimiter.front(), end - start);
      if (hit == nullptr) break;
      start = base + static_cast<std::size_t>(static_cast<const std::byte*>(hit) - piece.data);
      if (start + delimiter.size() > limit) break;
      // The rest may lie in the next pieces.
      std::size_t matched = 1;
      std::size_t at = start + 1 - base;
      for (std::uint32_t j = i; matched < delimiter.size(); ++matched, ++at) {
        while (at >= input_[j].size) at = 0, ++j;
        if (static_cast<char>(input_[j].data[at]) != delimiter[matched]) break;
      }
      if (matched == delimiter.size()) return start + matched;
      ++start;
    }
    start = std::max(start, end);
  }
  scanned = limit;
  return 0;
}

void Stream::on_receive(Operation& operation, Completion completion) noexcept {
  Stream& stream = *static_cast<Stream*>(operation.owner);
  if (completion.more != 0 && stream.plain_ && stream.unread_ == 0) {
    // Nearly always: some bytes, nothing before them, and somebody who waits for any.
    Buffer& buffer = *completion.buffer;
    const auto size = static_cast<std::size_t>(completion.result);
    if (size < buffer.capacity() && size < stream.input_high_) {
      stream.full_buffers_ = 0;
      stream.unread_ = size;
      stream.input_.push_first(BufferRef(buffer), buffer.data(), size);
      Reader* reader = stream.reader_;
      if (reader == nullptr || reader->waiter.linked()) return;
      if (reader->satisfied != nullptr) return stream.wake_reader();
      return reader->waiter.wake();
    }
  }
  stream.on_received(completion);
}

void Stream::on_received(Completion completion) noexcept {
  if (receive_.kind == OperationKind::poll) {
    // The peer's end, while nothing is being received. After a FIN there may be data before it,
    // which waits until there is room; a reset leaves nothing to wait for.
    end_seen_ = end_seen_ || completion.result > 0;
    if (completion.result > 0 && (completion.result & (POLLERR | POLLHUP)) != 0) {
      const int error = loop_.sockets().take_error(fd_);
      if (error > 0) fail(error);
    }
  } else {
    take_in(completion);
  }
  if (!completion.more) update_receiving();
  conclude();
}

void Stream::take_in(Completion completion) noexcept {
  if (bulk_) extras_->bulk_idle.disarm();
  if (completion.result <= 0) {
    bulk_buffer_.reset();
    switch (completion.result) {
      case 0:
        ended_ = true;
        wake_reader();
        break;
      case -ECANCELED:
        // Not by us: the engine has been abandoned, and gives nothing any more.
        if (!receive_.cancel_wanted) fail(ECANCELED);
        break;
      case -EINTR:
      case -EAGAIN:
        break;
      default:
        fail(-completion.result);
    }
    return;
  }
  const auto size = static_cast<std::size_t>(completion.result);
  BufferRef buffer = receive_.kind == OperationKind::receive ? BufferRef(*completion.buffer)
                                                             : std::move(bulk_buffer_);
  const bool large = size >= (bulk_ ? kBulkPays : std::size_t{buffer->capacity()});
  if (large) {
    full_buffers_ = static_cast<std::uint8_t>(std::min<int>(full_buffers_ + 1, kFullBuffers));
  } else if (bulk_ && full_buffers_ > 0) {
    --full_buffers_;  // the end of a message, it may be: bulk ends after a few of them
  } else {
    full_buffers_ = 0;
  }
  if (closing_ || failed_) return;
  const std::byte* data = buffer->data();
  try {
    append_input(std::move(buffer), data, size);
  } catch (...) {
    fail(ENOMEM);
    return;
  }
  wake_reader();
  if (receive_.in_flight() &&
      (unread_ >= input_high_ || (full_buffers_ >= kFullBuffers && !bulk_))) {
    update_receiving();
  }
}

void Stream::append_input(BufferRef buffer, const std::byte* data, std::size_t size) {
  if (!input_.empty() && size <= kCopyUpTo) {
    // So that small pieces do not each pin a buffer.
    Segment& back = input_.back();
    Buffer& last = *back.buffer;
    const std::byte* end = back.data + back.size;
    if (!last.shared() && static_cast<std::size_t>(last.data() + last.capacity() - end) >= size) {
      std::memcpy(last.data() + (end - last.data()), data, size);
      back.size += size;
      unread_ += size;
      return;
    }
  }
  if (buffer->capacity() >= kBulkBuffer && size < kBulkPays) {
    BufferRef small = make_buffer(size);
    std::memcpy(small->data(), data, size);
    data = small->data();
    buffer = std::move(small);
  }
  input_.push_back(Segment{std::move(buffer), data, size});
  unread_ += size;
}

void Stream::update_receiving() noexcept {
  if (fd_ < 0 || ended_ || failed_) {
    if (receive_.in_flight()) loop_.engine().cancel(receive_);
    return;
  }
  // Whoever waits for more gets it, whatever the mark says; and a close discards what comes.
  paused_ =
      !closing_ && !reader_waits() && unread_ >= (paused_ ? (input_high_ + 1) / 2 : input_high_);
  const bool bulk =
      !closing_ && full_buffers_ >= (bulk_ ? 1 : kFullBuffers) && input_high_ >= kBulkPays;
  if (receive_.in_flight()) {
    const bool right = receive_.kind == OperationKind::poll ? paused_ : !paused_ && bulk == bulk_;
    // A single large receive is not called off: it ends by itself.
    if (!right && receive_.kind != OperationKind::receive_into) loop_.engine().cancel(receive_);
    return;
  }
  bulk_ = false;
  if (paused_) {
    if (end_seen_) return;
    receive_.kind = OperationKind::poll;
    receive_.events = POLLRDHUP;
  } else if (bulk && prepare_bulk()) {
    bulk_ = true;
    receive_.kind = OperationKind::receive_into;
    receive_.data = bulk_buffer_->data();
    // The mark holds for one large receive as for many small ones.
    receive_.size =
        static_cast<std::uint32_t>(std::min<std::size_t>(bulk_buffer_->capacity(), input_high_));
  } else {
    receive_.kind = OperationKind::receive;
  }
  loop_.engine().submit(receive_);
}

bool Stream::prepare_bulk() noexcept {
  try {
    extras().bulk_idle.arm(loop_, after(loop_.now(), kBulkIdle));
    bulk_buffer_ = make_buffer(kBulkBuffer);
    return true;
  } catch (...) {
    full_buffers_ = 0;  // short of memory: small buffers do as well
    return false;
  }
}

void Stream::wake_reader() noexcept {
  if (!reader_waits()) return;
  if (!at_end() && reader_->satisfied != nullptr && !reader_->satisfied(*reader_)) return;
  reader_->waiter.wake();
}

// ---------------------------------------------------------------------------------------------
// Writing

bool Stream::try_send(Send& send) {
  drain_sender();  // in the order of the calls
  if (failed_ || fin_wanted_) {
    send.error = take_error();
    if (send.error == 0) send.error = EPIPE;
    return true;
  }
  if (pending_ < high_ && senders_.empty()) {
    accept(send);
    return pending_ < high_;
  }
  if (!send.buffer && send.size > 0) {  // the caller's bytes need not outlive the call
    send.buffer = make_buffer(send.size);
    std::memcpy(send.buffer->data(), send.data, send.size);
    send.data = send.buffer->data();
  }
  return false;
}

void Stream::take_over(const std::vector<std::string>& messages) noexcept {
  const bool was_below = pending_ < high_;
  try {
    for (const std::string& message : messages) {
      append_copy(reinterpret_cast<const std::byte*>(message.data()), message.size());
    }
  } catch (...) {
    fail(ENOMEM);  // they were promised
    return;
  }
  if (was_below && pending_ >= high_) extras_->crossed_high = true;
  queue_output();
}

void Stream::drain_sender() noexcept {
  if (extras_ != nullptr && extras_->sender != nullptr) extras_->sender->drain();
}

void Stream::wait_to_send(Send& send) noexcept {
  plain_ = false;
  senders_.push_back(send);
  if (extras_ != nullptr) publish_pending();
}

void Stream::stop_sending(Send& send) noexcept {
  send.unlink();
  if (pending_ <= low_) admit_senders();  // those behind it need not wait for it any more
  if (extras_ != nullptr) publish_pending();
}

void Stream::release(Send& send) noexcept {
  send.unlink();
  send.stream = nullptr;
  send.wake();
}

void Stream::accept(Send& send) {
  send.accepted = true;
  if (send.size == 0) return;
  const bool was_below = pending_ < high_;
  // What waits behind others must not pin much more memory than it has bytes.
  const bool keep =
      send.buffer && (output_.empty() || send.data == nullptr ||
                      send.size > std::max<std::size_t>(kCopyUpTo, send.buffer->capacity() / 2));
  if (keep) {
    output_.push_back(Segment{std::move(send.buffer), send.data, send.size});
    pending_ += send.size;
  } else {
    append_copy(send.data, send.size);
    send.buffer.reset();
  }
  if (extras_ != nullptr && was_below && pending_ >= high_) extras_->crossed_high = true;
  queue_output();
}

void Stream::append_copy(const std::byte* data, std::size_t size) {
  if (size == 0) return;
  if (!copy_buffer_ || copy_buffer_->capacity() - copied_ < size) {
    // Never in two parts, so that a failure leaves no half of a message.
    copy_buffer_ = make_buffer(std::max(size, kCopyBuffer));
    copied_ = 0;
    plain_ = false;
  }
  std::byte* to = copy_buffer_->data() + copied_;
  const bool extends = output_.size() > in_flight_ && output_.back().data != nullptr &&
                       output_.back().data + output_.back().size == to;
  if (extends) {
    output_.back().size += size;
  } else {
    output_.push_back(Segment{copy_buffer_, to, size});
  }
  std::memcpy(to, data, size);
  copied_ += static_cast<std::uint32_t>(size);
  pending_ += size;
}

void Stream::queue_output() noexcept {
  if (!output_.empty() && send_.may_change()) loop_.at_turn_end(*this);
}

void Stream::end_turn() noexcept {
  start_output();
  if (extras_ != nullptr) {
    publish_pending();
    if (std::exchange(extras_->crossed_high, false) && extras_->on_high_water) {
      // It is the user's, and may close this connection, but not end this object: held below.
      const auto function = extras_->on_high_water;
      const std::size_t pending = pending_;
      try {
        function(pending);
      } catch (...) {
        loop_.report_failure(std::current_exception(), "an on_high_water function");
      }
      return;
    }
  }
  conclude();
}

void Stream::start_output() noexcept {
  if (!send_.may_change() || output_.empty() || failed_ || fd_ < 0) return;
  try {
    if (output_.front().data == nullptr) {
      prepare_file();
    } else {
      prepare_send();
    }
  } catch (...) {
    in_flight_ = 0;
    fail(ENOMEM);
    return;
  }
  if (!send_.in_flight()) loop_.engine().submit(send_);
}

void Stream::prepare_send() {
  send_.kind = OperationKind::send;
  send_.fd = fd_;
  send_.size = in_flight_ = 1;
  send_.slices = output_.front().slice();
  if (output_.size() == 1) return;
  Slice* slices = extras().slices;
  std::uint32_t count = 0;
  for (; count < std::min<std::size_t>(output_.size(), kSegmentsPerSend); ++count) {
    if (output_[count].data == nullptr) break;
    slices[count] = {output_[count].data, output_[count].size};
  }
  send_.slices = slices;
  send_.size = in_flight_ = count;
}

/// Reads the next block of the file at the front, or sends the one that was read.
void Stream::prepare_file() {
  Extras& more = extras();
  Segment& front = output_.front();
  in_flight_ = 1;
  if (more.file_slice.size > 0) {
    send_.kind = OperationKind::send;
    send_.fd = fd_;
    send_.slices = &more.file_slice;
    send_.size = 1;
    return;
  }
  auto& source = static_cast<FileSource&>(*front.buffer);
  more.file_block = make_buffer(kBulkBuffer);
  send_.kind = OperationKind::read_file;
  send_.fd = source.file;
  send_.data = more.file_block->data();
  send_.offset = source.offset;
  send_.size = static_cast<std::uint32_t>(std::min(front.size, kBulkBuffer));
}

void Stream::on_file_read(Completion completion) noexcept {
  auto& source = static_cast<FileSource&>(*output_.front().buffer);
  if (completion.result <= 0) {
    // The length was promised to the peer, and the file has less.
    reset_ = true;
    fail(completion.result == 0 ? EIO : -completion.result);
    return;
  }
  const auto size = static_cast<std::size_t>(completion.result);
  source.offset += size;
  extras_->file_slice = {extras_->file_block->data(), size};
  start_output();
}

void Stream::on_send(Operation& operation, Completion completion) noexcept {
  Stream& stream = *static_cast<Stream*>(operation.owner);
  if (stream.plain_ && static_cast<std::size_t>(completion.result) == stream.pending_ &&
      stream.output_.size() == 1) {
    // Nearly always: all that there was has gone, and nobody waits for that.
    stream.in_flight_ = 0;
    stream.idle_rounds_ = 0;
    stream.sent_ += stream.pending_;
    stream.pending_ = 0;
    stream.output_.pop_front();
    return;
  }
  stream.on_output(completion);
}

void Stream::on_output(Completion completion) noexcept {
  in_flight_ = 0;
  if (failed_) {
    output_.clear();
    pending_ = 0;
  } else if (send_.kind == OperationKind::read_file) {
    on_file_read(completion);
  } else if (completion.result >= 0) {
    sent(static_cast<std::size_t>(completion.result));
    queue_output();
  } else if (completion.result == -EINTR || completion.result == -EAGAIN) {
    queue_output();
  } else {
    fail(-completion.result);
  }
  update_plain();
  conclude();
}

void Stream::sent(std::size_t count) noexcept {
  idle_rounds_ = 0;
  pending_ -= count;
  sent_ += count;
  while (count > 0) {
    Segment& front = output_.front();
    std::size_t part = std::min(count, front.size);
    if (front.data == nullptr) {
      part = std::min(part, extras_->file_slice.size);
      extras_->file_slice.data = static_cast<const std::byte*>(extras_->file_slice.data) + part;
      extras_->file_slice.size -= part;
      if (extras_->file_slice.size == 0) extras_->file_block.reset();
    } else {
      front.data += part;
    }
    front.size -= part;
    count -= part;
    if (front.size == 0) output_.pop_front();
  }
  if (output_.empty()) {
    copy_buffer_.reset();
    copied_ = 0;
  }
  if (pending_ <= low_ && !senders_.empty()) admit_senders();
  if (extras_ != nullptr) publish_pending();
  if (!flushes_.empty()) settle_flushes();
  if (fin_wanted_) send_fin_if_due();
}

void Stream::admit_senders() noexcept {
  while (Send* send = senders_.front()) {
    if (!send->accepted) {
      if (pending_ >= high_) return;
      try {
        accept(*send);
      } catch (...) {
        send->error = ENOMEM;
      }
      if (pending_ >= high_) return;  // it waits on, for its own bytes to go
    }
    release(*send);
  }
}

void Stream::settle_flushes() noexcept {
  while (Flush* flush = flushes_.front()) {
    if (flush->until > sent_) return;
    flush->unlink();
    flush->wake();
  }
}

bool Stream::try_flush(Flush& flush) noexcept {
  drain_sender();
  if (failed_ || fd_ < 0) {
    flush.error = take_error();
    if (flush.error == 0) flush.error = EPIPE;
    return true;
  }
  flush.until = sent_ + pending_;
  return pending_ == 0;
}

bool Stream::try_shutdown(Flush& flush) noexcept {
  if (try_flush(flush) && flush.error != 0) return true;
  fin_wanted_ = true;
  plain_ = false;
  close_sender();
  send_fin_if_due();
  // Those who were let in after the flush's bytes go before the FIN too: it waits for all.
  flush.until = ~std::uint64_t{0};
  return fin_sent_;
}

void Stream::send_fin_if_due() noexcept {
  if (fin_sent_ || failed_ || !output_.empty() || !senders_.empty()) return;
  fin_sent_ = true;
  (void)loop_.sockets().shutdown_send(fd_);  // if it is broken, reading shows it
  while (Flush* flush = flushes_.pop_front()) flush->wake();
}

void Stream::set_water_marks(WaterMarks marks) {
  ConnectionOptions options;
  options.water_marks = marks;
  check(options);
  high_ = marks.high;
  low_ = marks.low;
  if (extras_ != nullptr && extras_->sender != nullptr) extras_->sender->set_marks(high_, low_);
  if (pending_ <= low_) admit_senders();
}

void Stream::on_high_water(std::function<void(std::size_t)> function) {
  extras().on_high_water = std::move(function);
}

std::shared_ptr<SenderCore> Stream::sender_core() {
  Extras& more = extras();
  if (more.sender == nullptr) {
    more.sender = std::make_shared<SenderCore>(*this, loop_.mailbox(), high_, low_);
    if (failed_ || fin_wanted_ || fd_ < 0) more.sender->close();
    publish_pending();
  }
  return more.sender;
}

void Stream::publish_pending() noexcept {
  if (extras_->sender == nullptr) return;
  // Those who wait here came first, even where the queue is below the mark again.
  extras_->sender->publish(senders_.empty() ? pending_ : std::max(pending_, high_));
}

// ---------------------------------------------------------------------------------------------
// Ending

void Stream::end_waiting(int error) noexcept {
  while (Send* send = senders_.front()) {
    send->error = error;
    release(*send);
  }
  while (Flush* flush = flushes_.pop_front()) {
    flush->error = error;
    flush->wake();
  }
}

void Stream::close_sender() noexcept {
  if (extras_ == nullptr || extras_->sender == nullptr) return;
  extras_->sender->close();  // what other threads have handed over by now still goes out
}

void Stream::fail(int error) noexcept {
  if (failed_) return;
  failed_ = true;
  plain_ = false;
  // Told once: to whoever waits now, else to the next who asks.
  if (reader_waits() || (senders_.empty() && flushes_.empty())) error_ = error;
  end_waiting(error);
  close_sender();
  wake_reader();
  if (!send_.in_flight()) {
    output_.clear();
    pending_ = 0;
  }
  if (receive_.in_flight()) loop_.engine().cancel(receive_);
}

void Stream::close() noexcept {
  if (closing_) return;
  closing_ = true;
  fin_wanted_ = true;
  plain_ = false;
  close_sender();
  // Whoever still waits in another coroutine has nothing to wait for any more; messages that were
  // not accepted yet do not go out.
  if (Reader* reader = std::exchange(reader_, nullptr)) {
    reader->stream = nullptr;
    if (!reader->waiter.linked()) reader->waiter.wake();
  }
  end_waiting(ECANCELED);
  input_.clear();
  unread_ = 0;
  if (linger_ms_ == 0 && fd_ >= 0) {
    reset_ = reset_ || pending_ > 0;
    abort();
  } else if (paused_) {
    update_receiving();  // what comes is discarded, so that no RST answers it
  }
  queue_output();
}

void Stream::progress_close() noexcept {
  if (fd_ < 0) return;
  if (failed_) {
    abort();
    return;
  }
  if (output_.empty()) {
    // With both directions done, closing is all that is left; and at the end of the loop the
    // kernel sees to the rest, unless unread bytes would turn the FIN into an RST.
    if (ended_ || (loop_ending_ && loop_.sockets().unread_bytes(fd_) <= 0)) {
      abort();
      return;
    }
    send_fin_if_due();
  }
  try {
    if (auto& linger = extras().linger; !linger.armed()) {
      linger.arm(loop_, loop_.deadline_in(std::chrono::milliseconds(linger_ms_)));
    }
  } catch (...) {
    abort();
  }
}

void Stream::force_close() noexcept { cut(ECANCELED, true); }

void Stream::cut(int error, bool with_reset) noexcept {
  if (fd_ < 0) return;
  reset_ = reset_ || with_reset;
  fail(error);
  closing_ = true;
  fin_wanted_ = true;
  abort();
  conclude();
}

void Stream::abort() noexcept {
  failed_ = true;
  plain_ = false;
  if (receive_.in_flight()) loop_.engine().cancel(receive_);
  if (send_.in_flight()) loop_.engine().cancel(send_);
}

void Stream::close_and_conclude() noexcept {
  close();
  conclude();
}

void Stream::drop() noexcept {
  dropped_ = true;
  close_and_conclude();
}

void Stream::end_with_loop() noexcept {
  loop_ending_ = true;
  close_and_conclude();
}

void Stream::conclude() noexcept {
  if (closing_) progress_close();
  if (receive_.in_flight() || send_.in_flight()) return;
  if (fd_ >= 0) {
    // A broken connection keeps its descriptor until its user closes it.
    if (!failed_ || !closing_) return;
    if (!dropped_) keep_names();
    Sockets& sockets = loop_.sockets();
    if (reset_) (void)sockets.set(fd_, Sockets::Option::reset_on_close, 1);
    sockets.close(std::exchange(fd_, -1));
    static_cast<Link&>(static_cast<TurnEnd&>(*this)).unlink();
    static_cast<Link&>(static_cast<LoopResource&>(*this)).unlink();
    output_.clear();
    copy_buffer_.reset();
    if (extras_ != nullptr) extras_->linger.disarm();
    if (StreamOwner* owner = std::exchange(owner_, nullptr)) owner->stream_closed(*this);
  }
  if (dropped_) delete this;
}

void Stream::forget_owner() noexcept {
  if (!dropped_) keep_names();
  owner_ = nullptr;
}

void Stream::keep_names() noexcept {
  try {
    std::string last = name();
    const SocketAddress address = local_address();
    Extras& more = extras();
    more.last_name = std::move(last);
    more.last_address = address;
  } catch (...) {  // short of memory: the names are what it costs
  }
}

std::string Stream::name() const {
  if (extras_ != nullptr && !extras_->last_name.empty()) return extras_->last_name;
  const std::string_view owner = owner_ != nullptr ? owner_->owner_name() : "connection";
  return std::string(owner) + '-' + peer_address().to_string() + '#' + std::to_string(id_);
}

BufferRef Stream::file_part(int file, std::uint64_t offset) {
  const int own = ::fcntl(file, F_DUPFD_CLOEXEC, 0);  // the caller may close its own meanwhile
  if (own < 0) throw std::system_error(errno, std::generic_category(), "weir: send_file");
  FileSource* source = nullptr;
  try {
    source = new FileSource(own, offset);
  } catch (...) {
    ::close(own);
    throw;
  }
  return BufferRef(*source);
}

SocketAddress Stream::peer_address() const {
  if (const SocketAddress address = peer_.expand()) return address;
  RawAddress raw;
  if (fd_ < 0 || loop_.sockets().peer_address(fd_, raw) < 0) return {};
  return SocketAddress(raw);
}

SocketAddress Stream::local_address() const {
  if (extras_ != nullptr && extras_->last_address) return extras_->last_address;
  RawAddress raw;
  if (fd_ < 0 || loop_.sockets().local_address(fd_, raw) < 0) return {};
  return SocketAddress(raw);
}

ConnectionState Stream::state() const noexcept {
  if (fd_ < 0) return ConnectionState::disconnected;
  // Over, though its descriptor stays until the user closes it.
  if (!closing_ && (failed_ || (fin_sent_ && ended_))) return ConnectionState::disconnected;
  return fin_wanted_ ? ConnectionState::disconnecting : ConnectionState::connected;
}

}  // namespace weir
