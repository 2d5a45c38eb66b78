#include "echo_server.h"

#include <getopt.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include "../common/socket_address.h"

namespace reference {
namespace {

[[noreturn]] void usage(const char* program, int status) {
  std::fprintf(status == 0 ? stdout : stderr,
               "usage: %s [--port N] [--address A] [--buffer BYTES] [--buffers COUNT]\n", program);
  std::exit(status);
}

unsigned long parse_number(const char* program, const char* text, unsigned long maximum) {
  unsigned long value = 0;
  const char* end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, value);
  if (error != std::errc{} || rest != end || value > maximum) {
    std::fprintf(stderr, "%s: '%s' is no number from 0 to %lu\n", program, text, maximum);
    usage(program, 2);
  }
  return value;
}

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

void enable(int fd, int level, int option, const char* name) {
  const int on = 1;
  if (setsockopt(fd, level, option, &on, sizeof on) < 0) fail(name);
}

}  // namespace

Options parse_options(int argc, char** argv) {
  static constexpr option kLongOptions[] = {
      {"port", required_argument, nullptr, 'p'},   {"address", required_argument, nullptr, 'a'},
      {"buffer", required_argument, nullptr, 'b'}, {"buffers", required_argument, nullptr, 'c'},
      {"help", no_argument, nullptr, 'h'},         {nullptr, 0, nullptr, 0},
  };
  Options options;
  for (int choice; (choice = getopt_long(argc, argv, "", kLongOptions, nullptr)) != -1;) {
    switch (choice) {
      case 'p':
        options.port = static_cast<std::uint16_t>(parse_number(argv[0], optarg, 65535));
        break;
      case 'a':
        options.address = optarg;
        break;
      case 'b':
        options.buffer_size = parse_number(argv[0], optarg, 1UL << 30);
        break;
      case 'c':
        options.buffer_count = static_cast<unsigned>(parse_number(argv[0], optarg, 32768));
        break;
      case 'h':
        usage(argv[0], 0);
      default:
        usage(argv[0], 2);
    }
  }
  if (optind != argc) usage(argv[0], 2);
  return options;
}

int open_listener(const Options& options) {
  const auto address = bench::make_socket_address(options.address, options.port);
  if (!address) throw std::invalid_argument("'" + options.address + "' is no IP address");

  const int listener =
      socket(address->family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
  if (listener < 0) fail("socket");
  enable(listener, SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR");
  enable(listener, IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY");
  const std::string name = options.address + ":" + std::to_string(options.port);
  if (bind(listener, address->native(), address->length) < 0) fail("bind " + name);
  if (listen(listener, 65535) < 0) fail("listen " + name);  // clipped to net.core.somaxconn
  return listener;
}

void announce(int listener) {
  bench::SocketAddress address;
  address.length = sizeof address.storage;
  if (getsockname(listener, address.native(), &address.length) < 0) fail("getsockname");
  char text[INET6_ADDRSTRLEN] = "";
  if (address.family() == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address.storage);
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    std::printf("listening on [%s]:%d\n", text, ntohs(v6.sin6_port));
  } else {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address.storage);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    std::printf("listening on %s:%d\n", text, ntohs(v4.sin_port));
  }
  std::fflush(stdout);
}

int open_termination_signal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  if (sigprocmask(SIG_BLOCK, &signals, nullptr) < 0) fail("sigprocmask");
  const int fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) fail("signalfd");
  return fd;
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int run_server(int argc, char** argv, void (*serve)(const Options&, int listener)) {
  const Options options = parse_options(argc, argv);
  try {
    raise_descriptor_limit();
    serve(options, open_listener(options));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
  return 0;
}

}  // namespace reference
