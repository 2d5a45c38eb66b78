// Messages that go back and forth over connections that stand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../load_client/run.h"
#include "link.h"
#include "loop.h"

namespace tls_load {

using load_client::Clock;
using load_client::Run;

class Echo {
 public:
  Echo(const Options& options, Run& run, Loop& loop, SSL_CTX* context);

  void start() { connect_more(); }
  void handle(Tag tag);
  void end_turn();
  bool finished() const { return run_.ended() && run_.outstanding() == 0; }
  // When it wants a turn though nothing comes.
  Clock::time_point due() const;

 private:
  struct Connection {
    std::unique_ptr<Link> link;
    bool stands = false;
    bool watches_writing = false;
    bool touched = false;         // in the list of those that may send
    std::uint32_t in_flight = 0;  // messages
    std::uint32_t oldest = 0;     // of them: its place in sent_at_
    std::uint64_t issued = 0;     // messages
    std::size_t returned = 0;     // bytes of the oldest message that have come back
    std::size_t to_return = 0;    // bytes issued that have not come back
    std::size_t unsent = 0;       // of those
    std::size_t send_place = 0;   // in the pattern
    std::size_t receive_place = 0;
  };

  void connect_more();
  void shake(std::uint32_t index);
  void read(std::uint32_t index);
  void take_in(std::uint32_t index, const char* data, std::size_t count);
  void touch(std::uint32_t index);
  Clock::time_point due(std::uint64_t number) const {
    return paced_from_ + std::chrono::nanoseconds(static_cast<std::int64_t>(
                             static_cast<double>(number) * nanoseconds_apart_));
  }
  bool may_send(const Connection& connection, std::uint32_t index) const;
  void send(std::uint32_t index);
  void watch_writing(std::uint32_t index);

  const Options& options_;
  Run& run_;
  Loop& loop_;
  SSL_CTX* const context_;
  const std::size_t size_;
  const std::uint32_t depth_;
  std::vector<Connection> connections_;
  std::vector<Clock::time_point> sent_at_;  // per connection a circle of `depth_` times
  std::vector<std::uint32_t> touched_;
  std::vector<char> buffer_;
  std::size_t opened_ = 0;
  std::size_t standing_ = 0;

  // With a rate, message number n of all is due at its time on connection n modulo their count.
  const double nanoseconds_apart_;  // 0: no rate
  Clock::time_point paced_from_{};
  std::uint64_t due_ = 0;  // messages whose time has come
};

}  // namespace tls_load
