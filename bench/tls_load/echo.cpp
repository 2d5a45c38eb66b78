#include "echo.h"

namespace tls_load {
namespace {

using load_client::RunError;
using load_client::StreamPattern;

constexpr std::size_t kConnectsAtOnce = 16;  // a handshake has its deadline, under callgrind too
constexpr std::size_t kConnectionsPerSource = 10000;  // of local ports
constexpr std::size_t kBuffer = 65536;
// After so many reads it is the turn of the other connections.
constexpr int kMostReads = 16;

}  // namespace

Echo::Echo(const Options& options, Run& run, Loop& loop, SSL_CTX* context)
    : options_(options),
      run_(run),
      loop_(loop),
      context_(context),
      size_(options.load.size),
      depth_(options.load.depth),
      connections_(options.load.connections),
      sent_at_(connections_.size() * depth_),
      buffer_(kBuffer),
      nanoseconds_apart_(options.load.rate > 0 ? 1e9 / options.load.rate : 0) {
  touched_.reserve(connections_.size());
}

void Echo::connect_more() {
  while (opened_ < connections_.size() && opened_ - standing_ < kConnectsAtOnce) {
    const auto index = static_cast<std::uint32_t>(opened_++);
    Connection& connection = connections_[index];
    connection.send_place = connection.receive_place = StreamPattern::start_of(index);
    connection.link = std::make_unique<Link>(options_.load, context_,
                                             static_cast<unsigned>(index / kConnectionsPerSource));
    loop_.watch(connection.link->fd(), {Kind::connection, index});
    shake(index);
  }
}

void Echo::shake(std::uint32_t index) {
  Connection& connection = connections_[index];
  const bool done = connection.link->shake();
  watch_writing(index);
  if (!done) return;
  connection.stands = true;
  if (++standing_ < connections_.size()) return;
  run_.result().connects = standing_;
  run_.begin();
  paced_from_ = run_.now();
  for (std::uint32_t each = 0; each < connections_.size(); ++each) touch(each);
}

void Echo::handle(Tag tag) {
  Connection& connection = connections_[tag.index];
  if (!connection.stands) {
    shake(tag.index);
    return connect_more();
  }
  read(tag.index);
  if (connection.unsent > 0) touch(tag.index);
}

void Echo::read(std::uint32_t index) {
  Link& link = *connections_[index].link;
  for (int i = 0; i < kMostReads || link.has_more(); ++i) {
    const std::size_t count = link.read(buffer_.data(), buffer_.size());
    if (count == 0) return;
    take_in(index, buffer_.data(), count);
    // Level-triggered: if the socket has more, it says so.
    if (!link.has_more()) return;
  }
}

void Echo::take_in(std::uint32_t index, const char* data, std::size_t count) {
  Connection& connection = connections_[index];
  if (count > connection.to_return) throw RunError("more bytes came back than were sent");
  run_.check(connection.receive_place, data, count, index);
  connection.receive_place = StreamPattern::advance(connection.receive_place, count);
  connection.to_return -= count;
  connection.returned += count;
  if (connection.returned < size_) return;

  const Clock::time_point* times = sent_at_.data() + index * depth_;
  do {
    connection.returned -= size_;
    run_.count_request(times[connection.oldest]);
    if (++connection.oldest == depth_) connection.oldest = 0;
    --connection.in_flight;
  } while (connection.returned >= size_);
  touch(index);
}

void Echo::touch(std::uint32_t index) {
  if (connections_[index].touched) return;
  connections_[index].touched = true;
  touched_.push_back(index);
}

Clock::time_point Echo::due() const {
  const bool paced = nanoseconds_apart_ != 0 && run_.begun() && !run_.ended();
  return paced ? due(due_) : Clock::time_point::max();
}

bool Echo::may_send(const Connection& connection, std::uint32_t index) const {
  if (connection.in_flight == depth_) return false;
  return nanoseconds_apart_ == 0 || connection.issued * connections_.size() + index < due_;
}

void Echo::end_turn() {
  while (due() <= run_.now()) touch(static_cast<std::uint32_t>(due_++ % connections_.size()));
  for (const std::uint32_t index : touched_) {
    connections_[index].touched = false;
    send(index);
  }
  touched_.clear();
}

void Echo::send(std::uint32_t index) {
  Connection& connection = connections_[index];
  Clock::time_point* times = sent_at_.data() + index * depth_;
  while (may_send(connection, index) && run_.issue()) {
    times[(connection.oldest + connection.in_flight) % depth_] =
        nanoseconds_apart_ == 0 ? run_.now() : due(connection.issued * connections_.size() + index);
    ++connection.in_flight;
    ++connection.issued;
    connection.to_return += size_;
    connection.unsent += size_;
  }
  while (connection.unsent > 0) {
    const std::size_t count =
        connection.link->write(run_.pattern().at(connection.send_place), connection.unsent);
    if (count == 0) break;
    connection.unsent -= count;
    connection.send_place = StreamPattern::advance(connection.send_place, count);
  }
  watch_writing(index);
}

void Echo::watch_writing(std::uint32_t index) {
  Connection& connection = connections_[index];
  const bool writing = connection.link->waits_to_write();
  if (writing == connection.watches_writing) return;
  connection.watches_writing = writing;
  loop_.watch_writing_too(connection.link->fd(), {Kind::connection, index}, writing);
}

}  // namespace tls_load
