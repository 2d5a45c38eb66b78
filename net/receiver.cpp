#include <weir/net/connection_extras.h>
#include <weir/net/receiver.h>

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>

#ifndef POLLRDHUP
#define POLLRDHUP 0x2000
#endif

namespace weir::detail {
namespace {

/// Receives in a row that fill their buffer, after which larger ones pay.
constexpr std::uint8_t kFullBuffers = 4;
/// In bulk, a receive of less than this does not need a large buffer: after a few of them in a row
/// the next go to leased buffers again.
constexpr std::size_t kBulkPays = 8192;
/// How long a connection may hold on to a large buffer into which nothing comes.
constexpr auto kBulkIdle = std::chrono::seconds(1);

}  // namespace

inline Connection& Receiver::connection() const noexcept {
  return *whole_of(const_cast<Receiver&>(*this), &Connection::receiver_);
}

Receiver::Bulk* Receiver::bulk() const noexcept {
  const auto& extras = connection().extras_;
  return extras == nullptr ? nullptr : extras->bulk.get();
}

void Receiver::end_bulk() noexcept {
  if (const auto& extras = connection().extras_; extras != nullptr) extras->bulk.reset();
}

void Receiver::end_idle_bulk() noexcept {
  full_buffers_ = 0;
  connection().loop().engine().cancel(operation_);
}

Receiver::Receiver(int fd, bool of_unix_socket) noexcept
    : operation_(OperationKind::receive, &Receiver::on_complete) {
  operation_.fd = fd;
  operation_.one_result = of_unix_socket;
}

void Receiver::on_complete(Operation& operation, Completion completion) noexcept {
  Receiver& receiver = *whole_of(operation, &Receiver::operation_);
  Connection& connection = receiver.connection();
  if (completion.more != 0 && receiver.mode_ == Mode::flowing && receiver.full_buffers_ == 0) {
    Buffer& buffer = *completion.buffer;
    const auto size = static_cast<std::size_t>(completion.result);
    if (size < buffer.capacity() && connection.inbox().takes_plain(size)) {
      connection.identity().count_received(size);
      connection.inbox().push_plain(buffer, size);
      return;
    }
  }
  receiver.completed(completion);
}

void Receiver::completed(Completion completion) noexcept {
  if (operation_.kind != OperationKind::poll) {
    take_in(completion);
  } else if (completion.result > 0) {
    polled(completion.result);
  }
  if (completion.more == 0) update();
  connection().ending().conclude();
}

void Receiver::polled(int events) noexcept {
  const bool hung_up = (events & (POLLERR | POLLHUP)) != 0;
  int error = hung_up ? connection().loop().sockets().take_error(operation_.fd) : 0;
  if (mode_ == Mode::doubted) {
    // Both directions are over, and we have not ended ours.
    if (error == 0 && (events & POLLHUP) != 0 && !connection().ending().fin_is_out())
      error = ECONNRESET;
    if (error == 0) {
      mode_ = Mode::ended;
      connection().transforming().peer_ended();
    }
  } else if (mode_ == Mode::held) {
    // After a FIN there may be data before it, which waits until there is room; a reset leaves
    // nothing to wait for.
    mode_ = Mode::held_at_end;
  }
  if (error > 0) connection().ending().fail(error);
}

void Receiver::take_in(Completion completion) noexcept {
  if (completion.result > 0) {
    const auto size = static_cast<std::size_t>(completion.result);
    BufferRef buffer =
        bulk() == nullptr ? BufferRef(*completion.buffer) : std::move(bulk()->buffer);
    note_size(size, buffer->capacity());
    deliver(std::move(buffer), size);
    return;
  }
  end_bulk();
  // Whoever heard of a reset first leaves the others an end of the stream.
  if (mode_ == Mode::stopped) return;
  switch (completion.result) {
    case 0:
      return came_to_end();
    case -ECANCELED:
      // Not by us: the engine has been abandoned, and gives nothing any more.
      if (!operation_.cancel_wanted) connection().ending().fail(ECANCELED);
      return;
    case -EINTR:
    case -EAGAIN:
      return;
    default:
      connection().ending().fail(-completion.result);
  }
}

void Receiver::note_size(std::size_t size, std::size_t room) noexcept {
  const bool large = size >= (bulk() != nullptr ? kBulkPays : room);
  if (large) {
    full_buffers_ = static_cast<std::uint8_t>(std::min<int>(full_buffers_ + 1, kFullBuffers));
  } else if (bulk() != nullptr && full_buffers_ > 0) {
    --full_buffers_;  // the end of a message, it may be: bulk ends after a few of them
  } else if (!wants_bulk()) {
    full_buffers_ = 0;  // and otherwise it is the end of the message that has bulk begin
  }
}

void Receiver::came_to_end() noexcept {
  if (connection().ending().doubts_end()) {
    mode_ = Mode::doubted;
    return;
  }
  mode_ = Mode::ended;
  connection().transforming().peer_ended();
}

void Receiver::deliver(BufferRef buffer, std::size_t size) noexcept {
  Inbox& inbox = connection().inbox();
  const std::byte* data = buffer->data();
  if (mode_ == Mode::discarding) return connection().ending().discard(size);
  if (mode_ == Mode::stopped) return;
  if (mode_ == Mode::first) look_at_first({data, size});
  try {
    if (Transform* transform = connection().transform()) {
      const std::size_t before = inbox.unread();
      const Failure failure = transform->receive(std::move(buffer), data, size, inbox);
      connection().identity().count_received(inbox.unread() - before);
      connection().transforming().worked(failure);
      if (mode_ == Mode::discarding || mode_ == Mode::stopped) return;
      if (in_flight() && !connection().wants_input(false)) update();
    } else {
      inbox.push(std::move(buffer), data, size);
      connection().identity().count_received(size);
    }
  } catch (...) {
    return connection().ending().fail(ENOMEM);
  }
  if (in_flight() && (inbox.full() || (wants_bulk() && bulk() == nullptr))) update();
}

/// A client that was meant for another port gets an answer that tells it nothing.
void Receiver::look_at_first(std::span<const std::byte> bytes) noexcept {
  mode_ = Mode::flowing;
  const auto is = [&bytes](std::size_t at, int value) {
    return std::to_integer<int>(bytes[at]) == value;
  };
  // A record of the handshake, of any version, that holds a ClientHello (RFC 8446, 4 and 5.1).
  if (bytes.size() > 5 && is(0, 22) && is(1, 3) && is(5, 1)) connection().identity().tell_of_tls();
}

void Receiver::discard() noexcept {
  if (mode_ != Mode::ended && mode_ != Mode::stopped) mode_ = Mode::discarding;
  update();
}

void Receiver::stop() noexcept {
  mode_ = mode_ == Mode::ended ? Mode::ended : Mode::stopped;
  update();
}

Receiver::Mode Receiver::next_mode() const noexcept {
  switch (mode_) {
    case Mode::first:
    case Mode::flowing:
    case Mode::transformed:
    case Mode::held:
    case Mode::held_at_end: {
      const bool held = mode_ == Mode::held || mode_ == Mode::held_at_end;
      if (!connection().wants_input(held)) return held ? mode_ : Mode::held;
      if (connection().transform() != nullptr) return Mode::transformed;
      return mode_ == Mode::first ? Mode::first : Mode::flowing;
    }
    case Mode::doubted:
    case Mode::ended:
    case Mode::discarding:
    case Mode::stopped:
      break;
  }
  return mode_;
}

bool Receiver::wants_bulk() const noexcept {
  return (mode_ == Mode::flowing || mode_ == Mode::transformed) &&
         full_buffers_ >= (bulk() != nullptr ? 1 : kFullBuffers) &&
         connection().inbox().high() >= kBulkPays;
}

void Receiver::update() noexcept {
  mode_ = next_mode();
  const bool polls = mode_ == Mode::held || mode_ == Mode::doubted;
  const bool flows = mode_ == Mode::first || mode_ == Mode::flowing || mode_ == Mode::transformed;
  const bool receives = flows || (mode_ == Mode::discarding && connection().ending().may_discard());
  connection().inbox().set_flowing(flows);
  if (!operation_.in_flight()) {
    if (polls || receives) start();
    return;
  }
  const bool right = operation_.kind == OperationKind::poll
                         ? polls
                         : receives && wants_bulk() == (bulk() != nullptr);
  // A single large receive is not called off to do something else: it ends by itself.
  const bool ends = operation_.kind == OperationKind::receive_into && (polls || receives);
  if (!right && !ends) connection().loop().engine().cancel(operation_);
}

void Receiver::start() noexcept {
  if (mode_ == Mode::held || mode_ == Mode::doubted) {
    operation_.poll(POLLRDHUP);
    end_bulk();
  } else if (wants_bulk() && prepare_bulk()) {
    // The mark holds for one large receive as for many small ones.
    const std::size_t most =
        std::min<std::size_t>(bulk()->buffer->capacity(), connection().inbox().high());
    operation_.receive_into(bulk()->buffer->data(), static_cast<std::uint32_t>(most));
  } else {
    operation_.receive();
    end_bulk();
  }
  connection().loop().engine().submit(operation_);
}

bool Receiver::prepare_bulk() noexcept {
  try {
    auto& bulk = connection().extras().bulk;
    if (bulk == nullptr) bulk = std::make_unique<Bulk>(*this);
    EventLoop& loop = connection().loop();
    bulk->idle.arm(loop, after(loop.now(), kBulkIdle));
    bulk->buffer = make_buffer(kBulkBuffer);
    return true;
  } catch (...) {
    full_buffers_ = 0;  // short of memory: small buffers do as well
    return false;
  }
}

}  // namespace weir::detail
