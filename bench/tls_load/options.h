// The command line: that of the load client as far as it goes, and what TLS has besides.
#pragma once

#include "../load_client/options.h"

namespace tls_load {

struct Options {
  load_client::Options load;
  bool plain = false;   // no TLS, for a server without
  bool resume = false;  // churn: each connection takes up the session of the one before it
  unsigned flood = 0;   // slots of handshakes beside the load
  bool cipher = false;  // no server: what decrypting and encrypting each message costs
};

// Prints a line and exits upon a bad command line.
Options parse_options(int argc, char** argv);

}  // namespace tls_load
