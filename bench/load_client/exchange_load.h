// Short exchanges: connect, one message there and back. Then the connection is closed and another
// takes its slot (churn), or it stands and idles.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "session.h"

namespace load_client {

class ExchangeLoad {
 public:
  explicit ExchangeLoad(Session& session);
  ~ExchangeLoad();
  ExchangeLoad(const ExchangeLoad&) = delete;
  ExchangeLoad& operator=(const ExchangeLoad&) = delete;

  void start();
  void complete(const io_uring_cqe& completion);
  void end_turn();
  bool finished() const;

 private:
  struct Slot {
    int fd = -1;
    std::size_t place = 0;     // in the pattern
    std::size_t received = 0;  // bytes of the echo
    Clock::time_point started{};
  };
  enum class Operation : std::uint64_t { connect, send, receive, close, watch, input };

  static std::uint64_t user_data(Operation operation, std::size_t index) {
    return index << 3 | static_cast<std::uint64_t>(operation);
  }
  bool churns() const { return session_.options().mode == Mode::churn; }
  bool echoes() const { return churns() || session_.options().idle_echo; }
  char* received_bytes(std::size_t index) { return received_.data() + index * (size_ + 1); }

  void open(std::size_t index);
  unsigned next_source(std::size_t index);
  void receive_rest(std::size_t index);
  void connected(std::size_t index, int result);
  void echoed(std::size_t index, int result);
  void exchange_is_over(std::size_t index);
  void all_stand();
  void watch_input();
  void input_arrived();

  Session& session_;
  const std::size_t size_;
  std::vector<Slot> slots_;
  std::vector<char> received_;  // per slot a message, and a byte to find one too many
  std::size_t opened_ = 0;      // idle: slots opened so far
  std::size_t standing_ = 0;    // idle: and those whose exchange is over
  std::uint64_t exchanges_ = 0;
};

}  // namespace load_client
