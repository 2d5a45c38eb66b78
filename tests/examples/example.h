#pragma once

#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../support/child.h"
#include "../support/net_server.h"

/// What the tests of the examples share: the servers as child processes, and clients that others
/// wrote, from the search path.
namespace weir::test {

/// Where a program stands, by the search path; empty, with the reason printed, where it does not.
inline std::string client_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream directories(path == nullptr ? "/usr/bin:/bin" : path);
  for (std::string directory; std::getline(directories, directory, ':');) {
    std::string file = directory + '/' + name;
    if (::access(file.c_str(), X_OK) == 0) return file;
  }
  MESSAGE("skipped: " << name << " is not installed");
  return {};
}

struct Ran {
  int status;
  std::string output;
};

/// Of a machine so busy that a turn of the program's loop has taken long.
inline bool tells_of_a_stall(std::string_view line) {
  return line.find(" [weir] [warning] stall: ") != std::string_view::npos;
}

/// A program's output without what it says of such a machine.
inline std::string without_stalls(const std::string& output) {
  std::string text;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    if (!tells_of_a_stall(line)) text += line + '\n';
  }
  return text;
}

/// Runs a program to its end, with `input` as its standard input.
inline Ran run_program(const std::string& path, const std::vector<std::string>& arguments,
                       std::string_view input = {}) {
  Child child(path, arguments, Child::Input::written);
  child.write(input);
  child.close_input();
  std::string output = child.read_all();
  return {child.wait(), std::move(output)};
}

/// One of the example servers, on a port of the system's choice.
class Example {
 public:
  explicit Example(const std::string& name, std::vector<std::string> arguments = {})
      : child_(path_of(name), with_port(std::move(arguments))) {
    const std::string line = read_line();
    constexpr std::string_view kListening = "listening on ";
    INFO("its first line: " << line);
    REQUIRE(line.starts_with(kListening));
    address_ = SocketAddress::parse(std::string_view(line).substr(kListening.size()));
  }

  [[nodiscard]] static std::string path_of(const std::string& name) {
    return std::string(WEIR_EXAMPLES_DIR) + '/' + name;
  }

  [[nodiscard]] const SocketAddress& address() const { return address_; }
  [[nodiscard]] std::string port() const { return std::to_string(address_.port()); }
  [[nodiscard]] Peer connect(int buffer_bytes = 0) const {
    return Peer::connect(address_, buffer_bytes);
  }
  /// What it says next, after its first line.
  std::string read_line() {
    std::string line = child_.read_line();
    while (tells_of_a_stall(line)) line = child_.read_line();
    return line;
  }
  [[nodiscard]] bool runs() const { return ::kill(child_.process(), 0) == 0; }

  /// Memory of its own that it has now, in bytes; 0 with sanitizers, whose own would be most of it.
  [[nodiscard]] std::size_t memory() const {
    if (kSanitized) return 0;
    std::ifstream file("/proc/" + std::to_string(child_.process()) + "/status");
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("RssAnon:")) return std::stoul(line.substr(8)) * 1024;
    }
    return 0;
  }

  /// SIGTERM; gives its exit status.
  int end() {
    child_.signal(SIGTERM);
    return child_.wait();
  }
  int wait() { return child_.wait(); }
  /// SIGTERM; true once it accepts nobody any more.
  bool begin_end() {
    child_.signal(SIGTERM);
    return eventually([this] {
      try {
        (void)connect();
        return false;
      } catch (const std::system_error&) {
        return true;
      }
    });
  }

 private:
  static std::vector<std::string> with_port(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--port", "0"});
    return arguments;
  }

  Child child_;
  SocketAddress address_;
};

/// Waits, without reading, until the connection has been reset.
inline bool is_reset(const Peer& peer) {
  pollfd waiting{.fd = peer.fd(), .events = 0, .revents = 0};
  return ::poll(&waiting, 1, 120'000) == 1 && (waiting.revents & POLLERR) != 0;
}

/// What every example server promises of its command line. `needed` are options it cannot do
/// without.
inline void check_command_line(const std::string& name, const std::vector<std::string>& needed) {
  const auto refused = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), needed.begin(), needed.end());
    const Ran ran = run_program(Example::path_of(name), arguments);
    CHECK(ran.status == 1);
    CHECK(std::count(ran.output.begin(), ran.output.end(), '\n') == 1);
    return ran.output;
  };
  const auto has = [](const std::string& text, const std::string& part) {
    INFO("output: " << text);
    CHECK(text.find(part) != std::string::npos);
  };
  has(refused({"--port", "0", "--bogus", "1"}), "--bogus");
  has(refused({"--port", "0", "--engine", "magic"}), "magic");
  has(refused({"--port", "0", "--threads", "0"}), "threads");
  has(refused({"--port", "0", "--threads", "many"}), "many");
  has(refused({"--port", "99999"}), "99999");
  has(refused({"--port", "0", "--address", "nonsense"}), "nonsense");
  has(refused({"--port"}), "--port");
  has(refused({"stray"}), "stray");
  has(refused({}), "--port");

  Example first(name, needed);
  has(refused({"--port", first.port()}), first.address().to_string());
  CHECK(first.end() == 0);
  for (const std::vector<std::string>& options :
       std::vector<std::vector<std::string>>{{"--engine", "epoll"},
                                             {"--engine=" + best_engine()},
                                             {"--threads", "2"},
                                             {"--address", "127.0.0.2"},
                                             {"--address", "::1"}}) {
    std::vector<std::string> arguments = options;
    arguments.insert(arguments.end(), needed.begin(), needed.end());
    Example example(name, arguments);
    CHECK(example.address().port() != 0);
    CHECK(example.end() == 0);
  }
}

}  // namespace weir::test
#endif
