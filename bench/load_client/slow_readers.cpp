#include "slow_readers.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace load_client {
namespace {

using namespace std::chrono_literals;

// With 20 ms between the turns: 200 kB/s per connection.
constexpr std::size_t kReadSize = 4096;
constexpr auto kPeriod = 20ms;
// More than sockets and a queue with marks hold; a bound for servers whose queues have none.
constexpr std::size_t kMostUnread = 4 << 20;
constexpr int kReceiveBuffer = 16384;

}  // namespace

SlowReaders::~SlowReaders() {
  for (const Connection& connection : connections_) {
    if (connection.fd >= 0) close_socket(connection.fd);
  }
}

void SlowReaders::connect() {
  connections_.resize(session_.options().slow);
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    Connection& connection = connections_[i];
    connection.send_place = connection.receive_place = StreamPattern::start_of(i);
    connection.fd = open_socket(session_.options(), 0);
    setsockopt(connection.fd, SOL_SOCKET, SO_RCVBUF, &kReceiveBuffer, sizeof kReceiveBuffer);
    const bench::SocketAddress& server = session_.options().server;
    if (::connect(connection.fd, server.native(), server.length) < 0) {
      throw RunError(describe("connect", errno));
    }
  }
}

void SlowReaders::turn() {
  if (connections_.empty() || session_.now() < next_turn_ || session_.ended()) return;
  next_turn_ = session_.now() + kPeriod;
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    read(connections_[i], session_.options().connections + i);
    send(connections_[i]);
  }
}

void SlowReaders::read(Connection& connection, std::size_t number) {
  std::array<char, kReadSize> buffer;
  const ssize_t result = recv(connection.fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (result == 0) throw RunError("the server has closed a connection that reads slowly");
  if (result < 0 && errno == EAGAIN) return;
  if (result < 0) throw RunError(describe("slow receive", errno));
  const auto count = static_cast<std::size_t>(result);
  if (count > connection.to_return) throw RunError("more bytes came back than were sent");
  session_.check(connection.receive_place, buffer.data(), count, number);
  connection.receive_place = StreamPattern::advance(connection.receive_place, count);
  connection.to_return -= count;
}

void SlowReaders::send(Connection& connection) {
  while (connection.to_return < kMostUnread) {
    const ssize_t result = ::send(connection.fd, session_.pattern().at(connection.send_place),
                                  StreamPattern::kPeriod, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (result < 0 && errno == EAGAIN) return;
    if (result < 0) throw RunError(describe("slow send", errno));
    const auto count = static_cast<std::size_t>(result);
    connection.to_return += count;
    connection.send_place = StreamPattern::advance(connection.send_place, count);
  }
}

}  // namespace load_client
