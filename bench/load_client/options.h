// The load client's command line.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "../common/socket_address.h"

namespace load_client {

enum class Mode {
  echo,       // messages go back and forth over connections that stand
  churn,      // connect, one echo, close, again and again
  idle,       // connections that stand and do nothing
  broadcast,  // a message of one connection goes to all
};

struct Options {
  bench::SocketAddress server;
  Mode mode = Mode::echo;
  unsigned connections = 64;
  std::size_t size = 64;       // bytes per message
  unsigned depth = 1;          // messages in flight per connection
  unsigned slow = 0;           // further connections, which read slowly and are not measured
  double rate = 0;             // requests per second, evenly spaced; 0: as fast as they come back
  std::uint64_t requests = 0;  // ends after exactly so many; 0: after `duration`
  std::chrono::nanoseconds duration = std::chrono::seconds(5);
  std::chrono::nanoseconds warmup = std::chrono::milliseconds(500);
  bool idle_echo = false;  // one message over each idle connection before it idles
  bool reset = false;      // churn: close with RST, not FIN
  pid_t server_pid = 0;
  bool json = false;
  bool progress = false;
};

const char* name_of(Mode mode);

// Prints a line and exits upon a bad command line.
Options parse_options(int argc, char** argv);

}  // namespace load_client
