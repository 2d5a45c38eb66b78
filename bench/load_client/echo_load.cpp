#include "echo_load.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>

namespace load_client {
namespace {

constexpr std::size_t kConnectsAtOnce = 256;  // well below any backlog
// Of some 28,000 local ports connect() takes every other one first, and then looks at all of those
// before each of the rest.
constexpr std::size_t kConnectionsPerSource = 10000;
constexpr int kSendFlags = MSG_WAITALL | MSG_NOSIGNAL;

}  // namespace

EchoLoad::EchoLoad(Session& session)
    : session_(session),
      size_(session.options().size),
      depth_(session.options().depth),
      connections_(session.options().connections),
      sent_at_(connections_.size() * depth_),
      slow_(session),
      nanoseconds_apart_(session.options().rate > 0 ? 1e9 / session.options().rate : 0) {
  touched_.reserve(connections_.size());
}

EchoLoad::~EchoLoad() {
  for (const Connection& connection : connections_) {
    if (connection.fd >= 0) close_socket(connection.fd);
  }
}

void EchoLoad::start() {
  slow_.connect();
  connect_more();
}

void EchoLoad::complete(const io_uring_cqe& completion) {
  const std::size_t index = completion.user_data >> 2;
  switch (static_cast<Operation>(completion.user_data & 3)) {
    case Operation::receive:
      return received(index, completion);
    case Operation::send:
      return sent(index, completion.res);
    case Operation::connect:
      return connected(completion.res);
    case Operation::pace:
      pace_armed_ = false;
      return;
  }
}

void EchoLoad::connect_more() {
  while (opened_ < connections_.size() && opened_ - standing_ < kConnectsAtOnce) {
    const std::size_t index = opened_++;
    Connection& connection = connections_[index];
    connection.fd =
        open_socket(session_.options(), static_cast<unsigned>(index / kConnectionsPerSource));
    connection.send_place = connection.receive_place = StreamPattern::start_of(index);
    const int on = 1;
    setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    io_uring_sqe* entry = session_.ring().next_entry();
    const bench::SocketAddress& server = session_.options().server;
    io_uring_prep_connect(entry, connection.fd, server.native(), server.length);
    entry->user_data = user_data(Operation::connect, index);
  }
}

void EchoLoad::connected(int result) {
  if (result < 0) throw RunError(describe("connect", -result));
  ++standing_;
  connect_more();
  if (standing_ < connections_.size()) return;

  session_.result().connects = standing_;
  session_.begin();
  paced_from_ = session_.now();
  for (std::size_t index = 0; index < connections_.size(); ++index) {
    arm_receive(index);
    touch(index);
  }
}

void EchoLoad::arm_receive(std::size_t index) {
  io_uring_sqe* entry = session_.ring().next_entry();
  io_uring_prep_recv_multishot(entry, connections_[index].fd, nullptr, 0, 0);
  entry->flags |= IOSQE_BUFFER_SELECT;
  entry->buf_group = bench::BufferRing::group;
  entry->user_data = user_data(Operation::receive, index);
}

void EchoLoad::received(std::size_t index, const io_uring_cqe& completion) {
  if ((completion.flags & IORING_CQE_F_BUFFER) != 0) {
    const auto id = static_cast<std::uint16_t>(completion.flags >> IORING_CQE_BUFFER_SHIFT);
    if (completion.res > 0) {
      take_in(index, session_.buffers().data(id), static_cast<std::size_t>(completion.res));
    }
    session_.buffers().give_back(id);
  }
  if (completion.res == 0) throw RunError("the server has closed a connection");
  if (completion.res < 0 && completion.res != -ENOBUFS) {
    throw RunError(describe("receive", -completion.res));
  }
  // All buffers go back within the turn, so after ENOBUFS there are some again.
  if ((completion.flags & IORING_CQE_F_MORE) == 0) arm_receive(index);
}

void EchoLoad::take_in(std::size_t index, const char* data, std::size_t count) {
  Connection& connection = connections_[index];
  if (count > connection.to_return) throw RunError("more bytes came back than were sent");
  session_.check(connection.receive_place, data, count, index);
  connection.receive_place = StreamPattern::advance(connection.receive_place, count);
  connection.to_return -= count;
  connection.returned += count;
  if (connection.returned < size_) return;

  const Clock::time_point* times = sent_at_.data() + index * depth_;
  do {
    connection.returned -= size_;
    session_.count_request(times[connection.oldest]);
    if (++connection.oldest == depth_) connection.oldest = 0;
    --connection.in_flight;
  } while (connection.returned >= size_);
  touch(index);
}

void EchoLoad::sent(std::size_t index, int result) {
  Connection& connection = connections_[index];
  connection.sending = false;
  if (result < 0) throw RunError(describe("send", -result));
  if (static_cast<std::size_t>(result) != connection.sending_bytes) {
    throw RunError("a send was cut short: the server has gone");
  }
  touch(index);
}

void EchoLoad::touch(std::size_t index) {
  if (connections_[index].touched) return;
  connections_[index].touched = true;
  touched_.push_back(index);
}

// Marks the connections whose messages are due, and sees to being woken for the next one.
void EchoLoad::keep_pace() {
  if (nanoseconds_apart_ == 0 || !session_.begun() || session_.ended()) return;
  for (; due(due_) <= session_.now(); ++due_) touch(due_ % connections_.size());
  if (pace_armed_) return;
  pace_armed_ = true;
  const auto time = std::chrono::duration_cast<std::chrono::nanoseconds>(
      due(due_).time_since_epoch());  // of CLOCK_MONOTONIC
  next_due_.tv_sec = time.count() / 1'000'000'000;
  next_due_.tv_nsec = time.count() % 1'000'000'000;
  io_uring_sqe* entry = session_.ring().next_entry();
  io_uring_prep_timeout(entry, &next_due_, 0, IORING_TIMEOUT_ABS);
  entry->user_data = user_data(Operation::pace, 0);
}

bool EchoLoad::may_send(const Connection& connection, std::size_t index) const {
  if (connection.in_flight == depth_) return false;
  return nanoseconds_apart_ == 0 || connection.issued * connections_.size() + index < due_;
}

void EchoLoad::end_turn() {
  slow_.turn();
  keep_pace();
  for (const std::size_t index : touched_) {
    connections_[index].touched = false;
    send(index);
  }
  touched_.clear();
}

void EchoLoad::send(std::size_t index) {
  Connection& connection = connections_[index];
  if (connection.sending) return;
  Clock::time_point* times = sent_at_.data() + index * depth_;
  std::size_t bytes = 0;
  while (may_send(connection, index) && session_.issue()) {
    times[(connection.oldest + connection.in_flight) % depth_] =
        nanoseconds_apart_ == 0 ? session_.now()
                                : due(connection.issued * connections_.size() + index);
    ++connection.in_flight;
    ++connection.issued;
    bytes += size_;
  }
  if (bytes == 0) return;

  io_uring_sqe* entry = session_.ring().next_entry();
  io_uring_prep_send(entry, connection.fd, session_.pattern().at(connection.send_place), bytes,
                     kSendFlags);
  entry->user_data = user_data(Operation::send, index);
  if (depth_ == 1) {
    // The next send follows the echo of this one, and an echo proves that the send is over: no need
    // to hear of it. Failures are still told.
    entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
  } else {
    connection.sending = true;
  }
  connection.sending_bytes = bytes;
  connection.to_return += bytes;
  connection.send_place = StreamPattern::advance(connection.send_place, bytes);
}

}  // namespace load_client
