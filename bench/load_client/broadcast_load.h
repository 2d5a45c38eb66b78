// One connection sends a message, and every connection has to receive it: then comes the next. What
// is counted as a request is a delivery, one message to one connection.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "session.h"

namespace load_client {

class BroadcastLoad {
 public:
  explicit BroadcastLoad(Session& session);
  ~BroadcastLoad();
  BroadcastLoad(const BroadcastLoad&) = delete;
  BroadcastLoad& operator=(const BroadcastLoad&) = delete;

  void start() { connect_more(); }
  void complete(const io_uring_cqe& completion);
  void end_turn();
  bool finished() const { return session_.ended() && session_.outstanding() == 0; }

 private:
  struct Member {
    int fd = -1;
    std::size_t place = 0;     // in the pattern, the same for all
    std::size_t expected = 0;  // bytes of the message under way
  };
  enum class Operation : std::uint64_t { connect, settle, receive, send };

  static std::uint64_t user_data(Operation operation, std::size_t index) {
    return index << 2 | static_cast<std::uint64_t>(operation);
  }

  void connect_more();
  void connected(int result);
  void settle();
  void begin();
  void arm_receive(std::size_t index);
  void received(std::size_t index, const io_uring_cqe& completion);

  Session& session_;
  const std::size_t size_;
  std::vector<Member> members_;
  std::size_t opened_ = 0;
  std::size_t standing_ = 0;
  std::size_t undelivered_ = 0;
  std::size_t place_ = StreamPattern::start_of(0);
  Clock::time_point sent_at_{};
};

}  // namespace load_client
