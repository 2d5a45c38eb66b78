// The example against its promises; left out where the examples are not built.
#ifdef WEIR_EXAMPLES_DIR
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "../support/child.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

const std::string kProgram = WEIR_EXAMPLES_DIR "/echo_server";

std::string read_source(const char* name) {
  std::ifstream file(std::string(WEIR_SOURCE_DIR) + '/' + name);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// The text of the function that begins with `head`, to its closing brace, with each run of
/// spaces as one.
std::string function_in(std::string_view text, std::string_view head) {
  const std::size_t begin = text.find(head);
  if (begin == std::string_view::npos) return {};
  const std::size_t end = text.find("\n}\n", begin);
  if (end == std::string_view::npos) return {};
  std::string function;
  for (const char c : text.substr(begin, end + 2 - begin)) {
    if (c != ' ' || function.empty() || function.back() != ' ') function += c;
  }
  return function;
}

/// What a program that cannot start says: its lines, and its exit status.
struct Refusal {
  int status;
  std::vector<std::string> lines;
};

Refusal refusal_of(const std::vector<std::string>& arguments,
                   const std::string& program = kProgram) {
  Child child(program, arguments);
  Refusal refusal{};
  std::string text = child.read_all();
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    refusal.lines.push_back(text.substr(0, end));
    text.erase(0, end + 1);
  }
  refusal.status = child.wait();
  return refusal;
}

SocketAddress address_of(Child& child) {
  const std::string line = child.read_line();
  constexpr std::string_view kListening = "listening on ";
  REQUIRE(line.starts_with(kListening));
  return SocketAddress::parse(std::string_view(line).substr(kListening.size()));
}

}  // namespace

TEST_CASE("the README's first code block is the example's core") {
  const std::string readme = read_source("README.md");
  const std::string example = read_source("examples/echo_server.cpp");
  const std::size_t block = readme.find("```cpp");
  REQUIRE(block != std::string::npos);
  const std::string first = readme.substr(block, readme.find("\n```", block + 6) - block + 1);
  const std::string shown = function_in(first, "Task<> echo(TcpConnection conn)");
  const std::string real = function_in(example, "Task<> echo(TcpConnection conn)");
  CHECK_FALSE(shown.empty());
  CHECK_FALSE(real.empty());
  CHECK(shown == real);
}

TEST_CASE("the example is short") {
  const std::string example = read_source("examples/echo_server.cpp");
  const auto lines = std::count(example.begin(), example.end(), '\n');
  CHECK(lines > 10);
  CHECK(lines <= 40);
}

TEST_CASE("the example serves clients on a port of the system's choice until SIGTERM") {
  for (const auto& arguments :
       std::vector<std::vector<std::string>>{{"--port", "0"},
                                             {"--port", "0", "--threads", "2"},
                                             {"--port", "0", "--engine", best_engine()},
                                             {"--port", "0", "--engine", "epoll"},
                                             {"--port", "0", "--buffer", "512"},
                                             {"--port", "0", "--address", "127.0.0.2"}}) {
    Child child(kProgram, arguments);
    const SocketAddress address = address_of(child);
    CHECK(address.port() != 0);
    Peer first = Peer::connect(address);
    Peer second = Peer::connect(address);
    CHECK(echoes(first));
    CHECK(echoes(second, pattern(100000)));
    first.close();
    second.close();
    child.signal(SIGTERM);
    CHECK(child.wait() == 0);
  }
}

TEST_CASE("SIGINT ends the example as well") {
  Child child(kProgram, {"--port", "0"});
  Peer peer = Peer::connect(address_of(child));
  CHECK(echoes(peer));  // it runs, and so takes signals
  peer.close();
  child.signal(SIGINT);
  CHECK(child.wait() == 0);
}

TEST_CASE("an address that cannot be used is one line and exit 1") {
  struct Case {
    const char* address;
    const char* port;
  };
  for (const Case& each : {Case{"not-an-address", "80"}, Case{"192.0.2.1", "0"},
                           Case{"127.0.0.1", "99999"}, Case{"127.0.0.1", "x"}}) {
    CAPTURE(each.address);
    const Refusal refusal = refusal_of({"--port", each.port, "--address", each.address});
    CHECK(refusal.status == 1);
    REQUIRE(refusal.lines.size() == 1);
    const std::string named = std::string(each.address) + ':' + each.port;
    CHECK(refusal.lines[0].find(named) != std::string::npos);
  }
}

TEST_CASE("a port in use is one line that names it and exit 1") {
  Child child(kProgram, {"--port", "0"});
  const SocketAddress address = address_of(child);
  const Refusal refusal = refusal_of({"--port", std::to_string(address.port())});
  CHECK(refusal.status == 1);
  REQUIRE(refusal.lines.size() == 1);
  CHECK(refusal.lines[0].find(address.to_string()) != std::string::npos);
  CHECK(refusal.lines[0].find("in use") != std::string::npos);
}

TEST_CASE("the README's first program says one line and exits 1 when its port is taken") {
  const int holder = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(7000);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // Several may hold it so at the same time, and the program cannot have it beside any of them. If
  // that fails, somebody else has the port: it is taken all the same.
  const int shared = 1;
  ::setsockopt(holder, SOL_SOCKET, SO_REUSEPORT, &shared, sizeof shared);
  (void)::bind(holder, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const Refusal refusal = refusal_of({}, WEIR_TEST_PROGRAMS_DIR "/readme");
  CHECK(refusal.status == 1);
  REQUIRE(refusal.lines.size() == 1);
  CHECK(refusal.lines[0].find("127.0.0.1:7000") != std::string::npos);
  CHECK(refusal.lines[0].find("in use") != std::string::npos);
  ::close(holder);
}

TEST_CASE("a bad option of the example does not start a server") {
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"--port", "0", "--engine", "magic"}, {"--port", "0", "--threads", "0"}, {"--bogus"}}) {
    const Refusal refusal = refusal_of(arguments);
    CHECK(refusal.status != 0);
    CHECK_FALSE(refusal.lines.empty());
  }
}
#endif
