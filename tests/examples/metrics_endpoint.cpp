// The program with metrics of its own, scraped by curl and looked at by promtool.
#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>

#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "example.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Its second line.
std::string metrics_address(Example& example) {
  const std::string line = example.read_line();
  constexpr std::string_view kMetrics = "metrics on ";
  REQUIRE(line.starts_with(kMetrics));
  return line.substr(kMetrics.size());
}

/// Each line's number by what stands before it.
std::map<std::string, double> values_in(const std::string& text) {
  std::map<std::string, double> values;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('#')) continue;
    const std::size_t space = line.rfind(' ');
    REQUIRE(space != std::string::npos);
    CHECK(values.emplace(line.substr(0, space), std::stod(line.substr(space + 1))).second);
  }
  return values;
}

std::string scrape(const std::string& curl, const std::string& address) {
  const Ran ran = run_program(curl, {"-sSf", "http://" + address + "/metrics"});
  CHECK(ran.status == 0);
  return ran.output;
}

}  // namespace

TEST_CASE("the program with metrics reads its options, refuses bad ones, and ends on SIGTERM") {
  check_command_line("metrics_endpoint", {});
  for (const std::string port : {"65536", "x"}) {
    CHECK(run_program(Example::path_of("metrics_endpoint"), {"--port", "0", "--metrics-port", port})
              .status == 1);
  }
}

TEST_CASE("curl sees what the program and its server count, on one loop and on three") {
  const std::string curl = client_program("curl");
  if (curl.empty()) return;
  for (const char* threads : {"1", "3"}) {
    CAPTURE(threads);
    Example example("metrics_endpoint", {"--threads", threads});
    const std::string metrics = metrics_address(example);
    std::map<std::string, double> values = values_in(scrape(curl, metrics));
    CHECK(values.at("words_lines_total{result=\"counted\"}") == 0);
    CHECK(values.at("words_accepted_total") == 0);
    std::vector<Peer> peers;
    for (int i = 0; i < 5; ++i) {
      peers.push_back(example.connect());
      peers.back().send("how many  words\tare here?\r\n\n");
      CHECK(peers.back().receive_exactly(6) == "5\r\n0\r\n");
    }
    peers[0].send(std::string(5000, 'x'));
    CHECK(peers[0].receive_all() == "-ERR this line is too long\r\n");
    peers[0].close();
    // What a handler and its server count after the answer comes a moment later.
    CHECK(eventually([&] {
      values = values_in(scrape(curl, metrics));
      return values.at("words_lines_total{result=\"counted\"}") == 10 &&
             values.at("words_connections") == 4 && values.at("words_line_seconds_count") == 10;
    }));
    CHECK(values.at("words_lines_total{result=\"refused\"}") == 1);
    CHECK(values.at("words_found_total") == 25);
    CHECK(values.at("words_accepted_total") == 5);
    CHECK(values.at("words_failures_total") == 0);
    CHECK(values.at("words_received_bytes_total") >= 5 * 28);
    CHECK(values.at("words_sent_bytes_total") == 5 * 6 + 28);
    CHECK(values.at("words_line_seconds_bucket{le=\"+Inf\"}") == 10);
    CHECK(values.at("words_line_seconds_bucket{le=\"0.100000\"}") <= 10);
    CHECK(values.at("words_line_seconds_sum") > 0);
    peers.clear();
    CHECK(example.end() == 0);
  }
}

TEST_CASE("promtool finds nothing to complain of in the metrics") {
  const std::string curl = client_program("curl");
  const std::string promtool = client_program("promtool");
  if (curl.empty() || promtool.empty()) return;
  Example example("metrics_endpoint");
  const std::string text = scrape(curl, metrics_address(example));
  const Ran ran = run_program(promtool, {"check", "metrics"}, text);
  CHECK(ran.output.empty());
  CHECK(ran.status == 0);
  const Ran bad =
      run_program(promtool, {"check", "metrics"}, text + "# TYPE lines counter\nlines 1\n");
  CHECK(bad.status != 0);  // it looks
  CHECK(example.end() == 0);
}

TEST_CASE("other paths are not found, and clients that say nothing hold up no end") {
  const std::string curl = client_program("curl");
  if (curl.empty()) return;
  Example example("metrics_endpoint");
  const std::string metrics = metrics_address(example);
  const Ran ran =
      run_program(curl, {"-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://" + metrics});
  CHECK(ran.output == "404");
  Peer silent = Peer::connect(SocketAddress::parse(metrics));
  CHECK(example.end() == 0);
}
#endif
