// Connections whose echoes are read slowly, beside those that are measured: the server's sockets
// and queues towards them fill up, and the others should not notice.
#pragma once

#include <cstddef>
#include <vector>

#include "session.h"

namespace load_client {

class SlowReaders {
 public:
  explicit SlowReaders(Session& session) : session_(session) {}
  ~SlowReaders();
  SlowReaders(const SlowReaders&) = delete;
  SlowReaders& operator=(const SlowReaders&) = delete;

  void connect();
  // Now and then sends what the sockets take, and reads a little.
  void turn();

 private:
  struct Connection {
    int fd = -1;
    std::size_t send_place = 0;
    std::size_t receive_place = 0;
    std::size_t to_return = 0;
  };

  void read(Connection& connection, std::size_t number);
  void send(Connection& connection);

  Session& session_;
  std::vector<Connection> connections_;
  Clock::time_point next_turn_{};
};

}  // namespace load_client
