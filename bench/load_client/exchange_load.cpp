#include "exchange_load.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace load_client {
namespace {

constexpr std::size_t kConnectsAtOnce = 256;          // well below any backlog
constexpr std::size_t kConnectionsPerSource = 10000;  // see echo_load.cpp
// The side that closes first keeps the pair of ports in TIME_WAIT for a minute. In churn that is
// the client, so it takes turns with so many local addresses: some 1.8 million pairs.
constexpr unsigned kChurnSources = 64;
constexpr int kSendFlags = MSG_WAITALL | MSG_NOSIGNAL;

}  // namespace

ExchangeLoad::ExchangeLoad(Session& session)
    : session_(session),
      size_(session.options().size),
      slots_(session.options().connections),
      received_(echoes() ? slots_.size() * (size_ + 1) : 0) {}

ExchangeLoad::~ExchangeLoad() {
  for (const Slot& slot : slots_) {
    if (slot.fd >= 0) close_socket(slot.fd);
  }
}

void ExchangeLoad::start() {
  if (churns()) session_.begin();
  end_turn();
}

bool ExchangeLoad::finished() const {
  return session_.ended() && (!churns() || session_.outstanding() == 0);
}

void ExchangeLoad::end_turn() {
  // Churn opens its slots once and again as they become free; idle opens all, but not all at once.
  const std::size_t at_once = churns() ? slots_.size() : kConnectsAtOnce;
  while (opened_ < slots_.size() && opened_ - standing_ < at_once) open(opened_++);
}

unsigned ExchangeLoad::next_source(std::size_t index) {
  if (!churns()) return static_cast<unsigned>(index / kConnectionsPerSource);
  return session_.options().reset ? 0 : static_cast<unsigned>(exchanges_ % kChurnSources);
}

void ExchangeLoad::open(std::size_t index) {
  if (churns() && !session_.issue()) return;
  Slot& slot = slots_[index];
  slot.started = session_.now();
  slot.place = StreamPattern::start_of(index + exchanges_++);
  slot.received = 0;
  slot.fd = open_socket(session_.options(), next_source(index));
  if (session_.options().reset) {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    setsockopt(slot.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }

  // The whole exchange is one chain in one submission, and only its end, or a failure, is told.
  const bench::SocketAddress& server = session_.options().server;
  bench::Ring& ring = session_.ring();
  ring.reserve(3);
  io_uring_sqe* entry = ring.next_entry();
  io_uring_prep_connect(entry, slot.fd, server.native(), server.length);
  entry->user_data = user_data(Operation::connect, index);
  if (!echoes()) return;
  entry->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;

  entry = ring.next_entry();
  io_uring_prep_send(entry, slot.fd, session_.pattern().at(slot.place), size_, kSendFlags);
  entry->user_data = user_data(Operation::send, index);
  entry->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;

  receive_rest(index);
}

void ExchangeLoad::receive_rest(std::size_t index) {
  const Slot& slot = slots_[index];
  io_uring_sqe* entry = session_.ring().next_entry();
  io_uring_prep_recv(entry, slot.fd, received_bytes(index) + slot.received,
                     size_ + 1 - slot.received, 0);
  entry->user_data = user_data(Operation::receive, index);
}

void ExchangeLoad::complete(const io_uring_cqe& completion) {
  const std::size_t index = completion.user_data >> 3;
  switch (static_cast<Operation>(completion.user_data & 7)) {
    case Operation::connect:
      return connected(index, completion.res);
    case Operation::send:
      if (completion.res == -ECANCELED) return;  // the connect before it tells why
      throw RunError(completion.res < 0 ? describe("send", -completion.res)
                                        : "a send was cut short: the server has gone");
    case Operation::receive:
      return echoed(index, completion.res);
    case Operation::close:
      throw RunError(describe("close", -completion.res));
    case Operation::watch:
      throw RunError("the server has closed an idle connection");
    case Operation::input:
      return input_arrived();
  }
}

void ExchangeLoad::connected(std::size_t index, int result) {
  if (result < 0) {
    throw RunError(result == -EADDRNOTAVAIL ? "no local port is free (too many in TIME_WAIT)"
                                            : describe("connect", -result));
  }
  exchange_is_over(index);
}

void ExchangeLoad::echoed(std::size_t index, int result) {
  if (result == -ECANCELED) return;  // the connect or send before it tells why
  if (result < 0) throw RunError(describe("receive", -result));
  if (result == 0) throw RunError("the server has closed a connection");
  Slot& slot = slots_[index];
  slot.received += static_cast<std::size_t>(result);
  if (slot.received < size_) return receive_rest(index);
  if (slot.received > size_) throw RunError("more bytes came back than were sent");
  session_.check(slot.place, received_bytes(index), size_, index);
  exchange_is_over(index);
}

void ExchangeLoad::exchange_is_over(std::size_t index) {
  Slot& slot = slots_[index];
  if (!churns()) {
    if (++standing_ == slots_.size()) all_stand();
    return;
  }
  session_.count_request(slot.started);
  io_uring_sqe* entry = session_.ring().next_entry();
  io_uring_prep_close(entry, slot.fd);
  entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
  entry->user_data = user_data(Operation::close, index);
  slot.fd = -1;
  open(index);
}

void ExchangeLoad::all_stand() {
  for (std::size_t index = 0; index < slots_.size(); ++index) {
    io_uring_sqe* entry = session_.ring().next_entry();
    io_uring_prep_poll_add(entry, slots_[index].fd, POLLRDHUP);
    entry->user_data = user_data(Operation::watch, index);
  }
  session_.result().connects = standing_;
  session_.begin();
  watch_input();
  std::printf("idle %zu\n", standing_);
  std::fflush(stdout);
}

void ExchangeLoad::watch_input() {
  io_uring_sqe* entry = session_.ring().next_entry();
  io_uring_prep_poll_add(entry, STDIN_FILENO, POLLIN);
  entry->user_data = user_data(Operation::input, 0);
}

void ExchangeLoad::input_arrived() {
  char ignored[256];
  if (read(STDIN_FILENO, ignored, sizeof ignored) > 0) {
    watch_input();
  } else {
    session_.end();
  }
}

}  // namespace load_client
