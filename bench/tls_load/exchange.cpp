#include "exchange.h"

#include <algorithm>
#include <cstdio>

namespace tls_load {
namespace {

using load_client::RunError;
using load_client::StreamPattern;

constexpr std::size_t kConnectsAtOnce = 16;  // a handshake has its deadline, under callgrind too
constexpr std::size_t kConnectionsPerSource = 10000;
// The side that closes first keeps the pair of ports in TIME_WAIT for a minute.
constexpr unsigned kChurnSources = 64;

}  // namespace

Exchange::Exchange(const Options& options, Run& run, Loop& loop, SSL_CTX* context)
    : options_(options),
      run_(run),
      loop_(loop),
      context_(context),
      size_(options.load.size),
      slots_(options.load.connections),
      buffer_(std::max<std::size_t>(size_, SSL3_RT_MAX_PLAIN_LENGTH)) {}

void Exchange::start() {
  if (churns()) run_.begin();
  end_turn();
}

void Exchange::end_turn() {
  const std::size_t at_once = churns() ? slots_.size() : kConnectsAtOnce;
  while (opened_ < slots_.size() && opened_ - standing_ < at_once) {
    open(static_cast<std::uint32_t>(opened_++));
  }
}

void Exchange::open(std::uint32_t index) {
  if (churns() && !run_.issue()) return;
  Slot& slot = slots_[index];
  slot.started = run_.now();
  slot.place = StreamPattern::start_of(index + exchanges_);
  slot.sent = slot.received = 0;
  slot.shaken = slot.watches_writing = false;
  const std::uint64_t source =
      churns() ? exchanges_ % kChurnSources : index / kConnectionsPerSource;
  ++exchanges_;
  slot.link = std::make_unique<Link>(options_.load, context_, static_cast<unsigned>(source),
                                     options_.resume ? &slot.session : nullptr);
  loop_.watch(slot.link->fd(), {Kind::connection, index});
  go_on(index);
}

void Exchange::handle(Tag tag) {
  if (tag.kind == Kind::input) return input_arrived();
  Slot& slot = slots_[tag.index];
  if (slot.link == nullptr) return;
  // Between the handshake of one and that of all, and after: tickets, or the end.
  if (slot.over) {
    (void)slot.link->read(buffer_.data(), buffer_.size());
    return;
  }
  go_on(tag.index);
}

void Exchange::go_on(std::uint32_t index) {
  Slot& slot = slots_[index];
  Link& link = *slot.link;
  if (!slot.shaken && link.shake()) {
    slot.shaken = true;
    if (options_.resume && slot.exchanges > 0 && !link.resumed()) {
      throw RunError("the server did not resume a session");
    }
    if (!echoes()) return is_over(index);
  }
  while (slot.shaken && slot.sent < size_) {
    const std::size_t count =
        link.write(run_.pattern().at(slot.place) + slot.sent, size_ - slot.sent);
    if (count == 0) break;
    slot.sent += count;
  }
  while (slot.shaken && slot.sent == size_) {
    const std::size_t count = link.read(buffer_.data(), buffer_.size());
    if (count == 0) break;
    if (count > size_ - slot.received) throw RunError("more bytes came back than were sent");
    run_.check(StreamPattern::advance(slot.place, slot.received), buffer_.data(), count, index);
    slot.received += count;
    if (slot.received == size_) return is_over(index);
  }
  if (link.waits_to_write() != slot.watches_writing) {
    slot.watches_writing = link.waits_to_write();
    loop_.watch_writing_too(link.fd(), {Kind::connection, index}, slot.watches_writing);
  }
}

void Exchange::is_over(std::uint32_t index) {
  Slot& slot = slots_[index];
  ++slot.exchanges;
  if (!churns()) {
    slot.over = true;
    if (++standing_ == slots_.size()) all_stand();
    return;
  }
  run_.count_request(slot.started);
  slot.link.reset();
  open(index);
}

void Exchange::all_stand() {
  run_.result().connects = standing_;
  run_.begin();
  loop_.watch(STDIN_FILENO, {Kind::input, 0});
  std::printf("idle %zu\n", standing_);
  std::fflush(stdout);
}

void Exchange::input_arrived() {
  char ignored[256];
  if (::read(STDIN_FILENO, ignored, sizeof ignored) <= 0) run_.end();
}

}  // namespace tls_load
