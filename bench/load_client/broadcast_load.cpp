#include "broadcast_load.h"

#include <sys/socket.h>

#include <cerrno>

namespace load_client {
namespace {

constexpr std::size_t kConnectsAtOnce = 256;          // well below any backlog
constexpr std::size_t kConnectionsPerSource = 10000;  // see echo_load.cpp
constexpr int kSendFlags = MSG_WAITALL | MSG_NOSIGNAL;
constexpr long long kSettleNanoseconds = 300'000'000;

}  // namespace

BroadcastLoad::BroadcastLoad(Session& session)
    : session_(session),
      size_(session.options().size),
      members_(session.options().connections, Member{.place = StreamPattern::start_of(0)}) {}

BroadcastLoad::~BroadcastLoad() {
  for (const Member& member : members_) {
    if (member.fd >= 0) close_socket(member.fd);
  }
}

void BroadcastLoad::complete(const io_uring_cqe& completion) {
  const std::size_t index = completion.user_data >> 2;
  switch (static_cast<Operation>(completion.user_data & 3)) {
    case Operation::connect:
      return connected(completion.res);
    case Operation::settle:
      return begin();
    case Operation::receive:
      return received(index, completion);
    case Operation::send:  // told only if it failed
      throw RunError(completion.res < 0 ? describe("send", -completion.res)
                                        : "a send was cut short: the server has gone");
  }
}

void BroadcastLoad::connect_more() {
  while (opened_ < members_.size() && opened_ - standing_ < kConnectsAtOnce) {
    const std::size_t index = opened_++;
    members_[index].fd =
        open_socket(session_.options(), static_cast<unsigned>(index / kConnectionsPerSource));
    io_uring_sqe* entry = session_.ring().next_entry();
    const bench::SocketAddress& server = session_.options().server;
    io_uring_prep_connect(entry, members_[index].fd, server.native(), server.length);
    entry->user_data = user_data(Operation::connect, index);
  }
}

void BroadcastLoad::connected(int result) {
  if (result < 0) throw RunError(describe("connect", -result));
  ++standing_;
  connect_more();
  if (standing_ == members_.size()) settle();
}

// That a connection stands does not say that the server has taken it in; who is missing would miss
// the first message.
void BroadcastLoad::settle() {
  static __kernel_timespec delay{.tv_sec = 0, .tv_nsec = kSettleNanoseconds};
  io_uring_sqe* entry = session_.ring().next_entry();
  io_uring_prep_timeout(entry, &delay, 0, 0);
  entry->user_data = user_data(Operation::settle, 0);
}

void BroadcastLoad::begin() {
  session_.result().connects = standing_;
  for (std::size_t index = 0; index < members_.size(); ++index) arm_receive(index);
  session_.begin();
}

void BroadcastLoad::arm_receive(std::size_t index) {
  io_uring_sqe* entry = session_.ring().next_entry();
  io_uring_prep_recv_multishot(entry, members_[index].fd, nullptr, 0, 0);
  entry->flags |= IOSQE_BUFFER_SELECT;
  entry->buf_group = bench::BufferRing::group;
  entry->user_data = user_data(Operation::receive, index);
}

void BroadcastLoad::received(std::size_t index, const io_uring_cqe& completion) {
  Member& member = members_[index];
  if ((completion.flags & IORING_CQE_F_BUFFER) != 0) {
    const auto id = static_cast<std::uint16_t>(completion.flags >> IORING_CQE_BUFFER_SHIFT);
    if (completion.res > 0) {
      const auto count = static_cast<std::size_t>(completion.res);
      if (count > member.expected) throw RunError("more bytes came than were sent");
      session_.check(member.place, session_.buffers().data(id), count, index);
      member.place = StreamPattern::advance(member.place, count);
      member.expected -= count;
      if (member.expected == 0) {
        session_.count_request(sent_at_);
        --undelivered_;
      }
    }
    session_.buffers().give_back(id);
  }
  if (completion.res == 0) throw RunError("the server has closed a connection");
  if (completion.res < 0 && completion.res != -ENOBUFS) {
    throw RunError(describe("receive", -completion.res));
  }
  if ((completion.flags & IORING_CQE_F_MORE) == 0) arm_receive(index);
}

void BroadcastLoad::end_turn() {
  if (undelivered_ != 0 || !session_.begun() || session_.ended()) return;
  for (Member& member : members_) {
    if (!session_.issue()) break;  // never: there is no limit, and the run is not over
    member.expected = size_;
    ++undelivered_;
  }
  sent_at_ = session_.now();
  io_uring_sqe* entry = session_.ring().next_entry();
  io_uring_prep_send(entry, members_.front().fd, session_.pattern().at(place_), size_, kSendFlags);
  entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
  entry->user_data = user_data(Operation::send, 0);
  place_ = StreamPattern::advance(place_, size_);
}

}  // namespace load_client
