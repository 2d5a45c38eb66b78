// The command line that all peers share: --port N --buffer BYTES --deadline SECONDS, in any order.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace peers {

struct Options {
  unsigned short port = 0;
  std::size_t buffer = 4096;
  int deadline = 30;
};

inline Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const unsigned long value = i + 1 < argc ? std::strtoul(argv[i + 1], nullptr, 10) : 0;
    if (std::strcmp(argv[i], "--port") == 0 && i + 1 < argc) {
      options.port = static_cast<unsigned short>(value);
    } else if (std::strcmp(argv[i], "--buffer") == 0 && value != 0) {
      options.buffer = value;
    } else if (std::strcmp(argv[i], "--deadline") == 0 && value != 0) {
      options.deadline = static_cast<int>(value);
    } else {
      std::fprintf(stderr, "usage: %s [--port N] [--buffer BYTES] [--deadline SECONDS]\n", argv[0]);
      std::exit(2);
    }
  }
  return options;
}

inline void announce(unsigned port) {
  std::printf("listening on 127.0.0.1:%u\n", port);
  std::fflush(stdout);
}

}  // namespace peers
