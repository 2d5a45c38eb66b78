// Full handshakes without end, over some slots, beside a load that is measured.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "../load_client/run.h"
#include "link.h"

namespace tls_load {

// A process of its own, which has what the load leaves of the processor (SCHED_IDLE): the load is
// not to wait for the client's part of a handshake, which would be taken for the server's.
class Flood {
 public:
  Flood(const Options& options, load_client::Run& run, SSL_CTX* context);
  Flood(const Flood&) = delete;
  Flood& operator=(const Flood&) = delete;
  ~Flood();

  // Once a turn: begins with the run, and counts while that is measured.
  void turn();

 private:
  void start();
  void go_on_for_ever();

  const Options& options_;
  load_client::Run& run_;
  SSL_CTX* const context_;
  std::atomic<std::uint64_t>* handshakes_ = nullptr;  // shared with the process
  std::uint64_t before_ = 0;                          // the measurement
  bool counting_ = false;
  pid_t process_ = 0;
};

}  // namespace tls_load
