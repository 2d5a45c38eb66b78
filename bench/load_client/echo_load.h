// Messages that go back and forth over connections that stand.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "session.h"
#include "slow_readers.h"

namespace load_client {

class EchoLoad {
 public:
  explicit EchoLoad(Session& session);
  ~EchoLoad();
  EchoLoad(const EchoLoad&) = delete;
  EchoLoad& operator=(const EchoLoad&) = delete;

  void start();
  void complete(const io_uring_cqe& completion);
  void end_turn();
  bool finished() const { return session_.ended() && session_.outstanding() == 0; }

 private:
  struct Connection {
    int fd = -1;
    bool sending = false;         // a send is in the kernel and its completion will come
    bool touched = false;         // in the list of those that may send again
    std::uint32_t in_flight = 0;  // messages
    std::uint32_t oldest = 0;     // of them: its place in sent_at_
    std::uint64_t issued = 0;     // messages
    std::size_t returned = 0;     // bytes of the oldest message that have come back
    std::size_t to_return = 0;    // bytes sent, or about to be, that have not come back
    std::size_t sending_bytes = 0;
    std::size_t send_place = 0;  // in the pattern
    std::size_t receive_place = 0;
  };
  enum class Operation : std::uint64_t { connect, receive, send, pace };

  static std::uint64_t user_data(Operation operation, std::size_t index) {
    return index << 2 | static_cast<std::uint64_t>(operation);
  }

  void connect_more();
  void connected(int result);
  void arm_receive(std::size_t index);
  void received(std::size_t index, const io_uring_cqe& completion);
  void take_in(std::size_t index, const char* data, std::size_t count);
  void sent(std::size_t index, int result);
  void touch(std::size_t index);
  Clock::time_point due(std::uint64_t number) const {
    return paced_from_ + std::chrono::nanoseconds(static_cast<std::int64_t>(
                             static_cast<double>(number) * nanoseconds_apart_));
  }
  void keep_pace();
  bool may_send(const Connection& connection, std::size_t index) const;
  void send(std::size_t index);

  Session& session_;
  const std::size_t size_;
  const std::uint32_t depth_;
  std::vector<Connection> connections_;
  std::vector<Clock::time_point> sent_at_;  // per connection a circle of `depth_` times
  std::vector<std::size_t> touched_;
  SlowReaders slow_;
  std::size_t opened_ = 0;
  std::size_t standing_ = 0;

  // With a rate, message number n of all is due at its time on connection n modulo their count.
  const double nanoseconds_apart_;  // 0: no rate
  Clock::time_point paced_from_{};
  std::uint64_t due_ = 0;  // messages whose time has come
  __kernel_timespec next_due_{};
  bool pace_armed_ = false;
};

}  // namespace load_client
