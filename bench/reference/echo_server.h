// What both hand-written echo servers have in common: the command line, the listening socket and
// the way to end. What they do with a connection is entirely their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace reference {

struct Options {
  std::string address = "127.0.0.1";
  std::uint16_t port = 0;
  std::size_t buffer_size = 0;  // bytes; 0: the server's own default
  unsigned buffer_count = 0;    // 0: the server's own default
};

// Prints a line and exits upon a bad command line.
Options parse_options(int argc, char** argv);

// A listening, non-blocking socket with TCP_NODELAY, which accepted sockets inherit. Throws
// std::system_error or std::invalid_argument.
int open_listener(const Options& options);

// Prints `listening on ADDRESS:PORT`, the first line of every server here, and flushes it.
void announce(int listener);

// Blocks SIGINT and SIGTERM and returns a descriptor that becomes readable when one arrives: a
// signal handler could run between looking at its flag and going to sleep.
int open_termination_signal();

// Takes the soft limit of descriptors up to the hard one.
void raise_descriptor_limit();

// Runs serve(options, listener); turns what it throws into one line and exit status 1.
int run_server(int argc, char** argv, void (*serve)(const Options&, int listener));

}  // namespace reference
