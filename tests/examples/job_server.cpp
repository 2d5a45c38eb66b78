// The server of jobs: what it accepted is done, whatever becomes of it and its clients.
#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "../support/directory.h"
#include "example.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Takes 30 ms and more.
constexpr std::string_view kLongJob = "5000000\r\n";

/// The lines of the file, or of what a server answered.
std::multiset<std::string> lines_in(std::istream&& text) {
  std::multiset<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    if (line.ends_with('\r')) line.pop_back();
    lines.insert(line);
  }
  return lines;
}

std::string repeated(std::string_view line, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += line;
  return text;
}

/// Reads the answers to so many jobs; gives the results that those accepted are to have.
std::multiset<std::string> results_of(Peer& peer, int jobs) {
  std::string answers;
  while (std::count(answers.begin(), answers.end(), '\n') < jobs) {
    const std::string more = peer.receive();
    REQUIRE_FALSE(more.empty());
    answers += more;
  }
  std::multiset<std::string> results;
  for (const std::string& line : lines_in(std::istringstream(answers))) {
    if (line == "-BUSY") continue;
    REQUIRE(line.starts_with('+'));
    results.insert(line.substr(1) + ": 348513 primes below 5000000");
  }
  return results;
}

Peer connect_to(Child& server) {
  std::string line = server.read_line();
  while (tells_of_a_stall(line)) line = server.read_line();
  constexpr std::string_view kListening = "listening on ";
  REQUIRE(line.starts_with(kListening));
  return Peer::connect(SocketAddress::parse(line.substr(kListening.size())));
}

}  // namespace

TEST_CASE("the server of jobs reads its options, refuses bad ones, and ends on SIGTERM") {
  const Directory directory;
  check_command_line("job_server", {"--results", directory.file("results")});
  const Ran ran = run_program(Example::path_of("job_server"),
                              {"--port", "0", "--results", directory.file("none/results")});
  CHECK(ran.status == 1);
  CHECK(ran.output.find("No such file") != std::string::npos);
}

TEST_CASE("netcat submits jobs and leaves, and their results are there") {
  const std::string nc = client_program("nc");
  if (nc.empty()) return;
  const Directory directory;
  const std::string file = directory.file("results");
  Example server("job_server", {"--results", file});
  const Ran ran = run_program(nc, {"-N", "127.0.0.1", server.port()},
                              "10\n1000\r\n0\n-1\nmany\n10000001\n\n10000000\n");
  const std::string refused = "-ERR a number, 10000000 at the most\r\n";
  CHECK(ran.output == "+1\r\n+2\r\n+3\r\n" + repeated(refused, 4) + "+4\r\n");
  CHECK(server.end() == 0);
  CHECK(lines_in(std::ifstream(file)) ==
        std::multiset<std::string>{"1: 4 primes below 10", "2: 168 primes below 1000",
                                   "3: 0 primes below 0", "4: 664579 primes below 10000000"});
}

TEST_CASE("jobs that were accepted before SIGTERM are all done at the end") {
  for (const char* threads : {"1", "3"}) {
    CAPTURE(threads);
    const Directory directory;
    const std::string file = directory.file("results");
    Example server("job_server", {"--results", file, "--threads", threads, "--workers", "2"});
    Peer peer = server.connect();
    peer.send(repeated(kLongJob, 20));
    const std::multiset<std::string> results = results_of(peer, 20);
    CHECK(results.size() == 20);
    CHECK(server.begin_end());
    CHECK(peer.receive_all().empty());
    peer.close();
    CHECK(server.wait() == 0);
    CHECK(lines_in(std::ifstream(file)) == results);
  }
}

TEST_CASE("jobs for which there is no room are refused, and the others done") {
  const Directory directory;
  const std::string file = directory.file("results");
  Example server("job_server", {"--results", file, "--workers", "1", "--most", "3"});
  Peer peer = server.connect();
  peer.send(repeated(kLongJob, 30));
  const std::multiset<std::string> results = results_of(peer, 30);
  CHECK(results.size() >= 3);
  CHECK(results.size() < 30);
  peer.close();
  CHECK(server.end() == 0);
  CHECK(lines_in(std::ifstream(file)) == results);
}

TEST_CASE("a second signal ends the server of jobs at once, which says what is not done") {
  const Directory directory;
  for (int round = 0; round < 5; ++round) {  // wherever the job under way is just then
    Child child(Example::path_of("job_server"),
                {"--port", "0", "--results", directory.file("results"), "--workers", "1"});
    Peer peer = connect_to(child);
    peer.send(repeated(kLongJob, 500));
    CHECK(results_of(peer, 500).size() == 500);
    child.signal(SIGTERM);
    child.signal(SIGINT);
    CHECK(child.read_all().find(" jobs are not done\n") != std::string::npos);
    CHECK(child.wait() == 1);
  }
}

TEST_CASE("a result that cannot be written is told") {
  Child child(Example::path_of("job_server"), {"--port", "0", "--results", "/dev/full"});
  Peer peer = connect_to(child);
  peer.send("10\n");
  CHECK(peer.receive_exactly(4) == "+1\r\n");
  peer.close();
  child.signal(SIGTERM);
  CHECK(child.read_all().find("1 jobs are not done\n") != std::string::npos);
  CHECK(child.wait() == 1);
}
#endif
