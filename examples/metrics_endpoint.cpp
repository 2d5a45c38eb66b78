// metrics_endpoint --port N [--metrics-port N] [--address A] [--threads T]
//                  [--engine auto|uring|epoll]
//
// Counts the words of each line that it gets, and what it does itself: GET /metrics on the second
// port has counters and a histogram of its own, and what weir counts of the server, in Prometheus'
// text format. (What concerns loops and all servers, an Inspector's /metrics has.)
#include <weir/weir.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/arguments.h"

using namespace weir;
using namespace std::chrono_literals;

namespace {

/// From all loops at the same time.
class Histogram {
 public:
  void observe(std::chrono::duration<double> time) {
    std::size_t bucket = 0;
    while (bucket < kBounds.size() && time.count() > kBounds[bucket]) ++bucket;
    ++counts_[bucket];
    nanoseconds_ += std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
  }
  void write(std::string& text, const std::string& name) const {
    std::uint64_t count = 0;
    for (std::size_t i = 0; i <= kBounds.size(); ++i) {
      const std::string bound = i < kBounds.size() ? std::to_string(kBounds[i]) : "+Inf";
      count += counts_[i];  // each bucket has what is in those before it
      text += name + "_bucket{le=\"" + bound + "\"} " + std::to_string(count) + '\n';
    }
    text += name + "_sum " + std::to_string(static_cast<double>(nanoseconds_) * 1e-9) + '\n';
    text += name + "_count " + std::to_string(count) + '\n';
  }

 private:
  static constexpr std::array kBounds{0.0001, 0.001, 0.01, 0.1, 1.0};  // seconds
  std::array<std::atomic<std::uint64_t>, kBounds.size() + 1> counts_{};
  std::atomic<std::int64_t> nanoseconds_ = 0;
};

struct Counters {
  std::atomic<std::uint64_t> lines = 0;
  std::atomic<std::uint64_t> refused = 0;
  std::atomic<std::uint64_t> words = 0;
  Histogram seconds;
};

void begin(std::string& text, const std::string& name, const char* type, const char* help) {
  text += "# HELP " + name + ' ' + help + "\n# TYPE " + name + ' ' + type + '\n';
}

std::string metrics_text(const Counters& own, const ServerMetrics& server) {
  std::string text;
  begin(text, "words_lines_total", "counter", "Lines by what became of them.");
  text += "words_lines_total{result=\"counted\"} " + std::to_string(own.lines) + '\n';
  text += "words_lines_total{result=\"refused\"} " + std::to_string(own.refused) + '\n';
  begin(text, "words_line_seconds", "histogram", "From a line's arrival to its answer.");
  own.seconds.write(text, "words_line_seconds");
  const auto one = [&text](const std::string& name, const char* type, const char* help,
                           auto value) {
    begin(text, name, type, help);
    text += name + ' ' + std::to_string(value) + '\n';
  };
  one("words_found_total", "counter", "Words counted.", own.words.load());
  one("words_connections", "gauge", "Connections.", server.connections);
  one("words_accepted_total", "counter", "Connections accepted.", server.accepts);
  one("words_failures_total", "counter", "Exceptions that left a handler.", server.failures);
  one("words_received_bytes_total", "counter", "Bytes received.", server.bytes_in);
  one("words_sent_bytes_total", "counter", "Bytes sent.", server.bytes_out);
  return text;
}

/// One request, and no other: a scrape comes every few seconds.
Task<> answer_scrape(TcpConnection conn, const TcpServer& server, const Counters& counters) {
  const Chunk head = co_await timeout(10s, conn.read_until("\r\n\r\n", 8192));
  if (!head) co_return;
  const bool found = head.view().starts_with("GET /metrics ");
  const std::string body = found ? metrics_text(counters, server.metrics()) : "try /metrics\n";
  std::string answer = found ? "HTTP/1.1 200 OK\r\n" : "HTTP/1.1 404 Not Found\r\n";
  answer += "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: ";
  answer += std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
  co_await conn.send(std::move(answer));
}

std::size_t count_words(std::string_view line) {
  std::istringstream words{std::string(line)};
  std::size_t count = 0;
  for (std::string word; words >> word;) ++count;
  return count;
}

Task<> answer_lines(TcpConnection conn, Counters& counters) {
  for (;;) {
    auto next = co_await when_any(conn.draining(), as_tuple(conn.read_until("\n", 4096)));
    if (next.index() == 0) co_return;
    const auto begin = std::chrono::steady_clock::now();
    auto& [error, line] = std::get<1>(next);
    if (error == std::errc::message_size) {
      ++counters.refused;
      co_await conn.send("-ERR this line is too long\r\n");
      co_return;
    }
    if (error || !line) co_return;
    const std::size_t words = count_words(line.view());
    co_await conn.send(std::to_string(words) + "\r\n");
    ++counters.lines;
    counters.words += words;
    counters.seconds.observe(std::chrono::steady_clock::now() - begin);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv, {{"metrics-port", "0"}});
  ServerOptions options = arguments.server_options("words");
  Counters counters;
  TcpServer server(options);
  const std::size_t port = arguments.number("metrics-port");
  if (port > 65535) throw std::invalid_argument("--metrics-port is above 65535");
  options.address = options.address.with_port(static_cast<std::uint16_t>(port));
  options.threads = 1;
  TcpServer metrics(server.loop(), options);  // tells of the other as long as that drains
  server.listen();
  metrics.start(
      [&](TcpConnection conn) { return answer_scrape(std::move(conn), server, counters); });
  server.loop().post([&] {
    std::printf("listening on %s\nmetrics on %s\n", server.address().to_string().c_str(),
                metrics.address().to_string().c_str());
    std::fflush(stdout);
  });
  server.run([&](TcpConnection conn) { return answer_lines(std::move(conn), counters); });
} catch (const std::exception& error) {
  std::fprintf(stderr, "metrics_endpoint: %s\n", error.what());
  return 1;
}
