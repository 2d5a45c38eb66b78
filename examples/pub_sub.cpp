// pub_sub --port N [--address A] [--threads T] [--engine auto|uring|epoll] [--high-water BYTES]
//         [--write-timeout MS]
//
// A hub of topics, across loops, by lines: "SUB topic", "UNSUB topic", "PUB topic text", "PING",
// "QUIT". Subscribers get "MSG topic text". Nobody waits for a slow one: what finds its queue at
// the high mark is lost to it, and "LOST n" says so once there is room; who takes nothing at all
// for the write timeout is reset. pubsub/hub.h has the topics.
#include <weir/weir.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "common/arguments.h"
#include "pubsub/hub.h"

using namespace weir;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t kLongestLine = 4096;
constexpr std::size_t kLongestTopic = 64;
constexpr std::size_t kBurst = 16 << 10;  // bytes that are published before a publisher rests

/// The next word of the line, which begins behind it then.
std::string_view next_word(std::string_view& line) {
  const std::size_t end = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

bool is_text(std::string_view text) {  // without what terminals would obey
  return std::ranges::all_of(text,
                             [](unsigned char c) { return (c >= ' ' && c != 0x7f) || c == '\t'; });
}

/// Does what a line says; gives the answer.
std::string obey(std::string_view line, pubsub::Hub& hub, pubsub::Subscriber& subscriber) {
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  if (!is_text(line)) return "-ERR control characters\r\n";
  const std::string_view verb = next_word(line);
  if (verb == "PING" && line.empty()) return "+PONG\r\n";
  if (verb == "QUIT" && line.empty()) return "+BYE\r\n";
  if (verb != "SUB" && verb != "UNSUB" && verb != "PUB") return "-ERR no such command\r\n";
  const std::string_view topic = next_word(line);
  if (topic.empty() || topic.size() > kLongestTopic) return "-ERR no such topic\r\n";
  if (verb == "PUB") return '+' + std::to_string(hub.publish(topic, line)) + "\r\n";
  if (!line.empty()) return "-ERR one topic at a time\r\n";
  if (verb == "UNSUB") {
    hub.unsubscribe(subscriber, topic);
  } else if (!hub.subscribe(subscriber, topic)) {
    return "-ERR too many topics\r\n";
  }
  return "+OK\r\n";
}

/// Until the peer ends it, or breaks the rules.
Task<> obey_lines(ByteStream auto& conn, pubsub::Hub& hub, pubsub::Subscriber& subscriber) {
  std::size_t rested = hub.told();
  for (;;) {
    auto [error, line] = co_await as_tuple(conn.read_until("\n", kLongestLine));
    if (error == std::errc::message_size) {
      (void)co_await as_tuple(conn.send("-ERR this line is too long\r\n"));
      co_return;
    }
    if (error || !line) co_return;
    std::string answer = obey(line.view(), hub, subscriber);
    const bool last = answer == "+BYE\r\n";
    co_await conn.send(std::move(answer));
    if (last) co_return;
    // A burst is spread, whoever it comes from: what leaves in one turn counts against the marks.
    if (hub.told() - rested >= kBurst) {
      co_await sleep(1ms);
      rested = hub.told();
    }
  }
}

Task<> serve_client(TcpConnection conn, pubsub::Hub& hub) {
  pubsub::Subscriber subscriber(hub, conn.sender());
  (void)co_await when_any(conn.draining(), obey_lines(conn, hub, subscriber));
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv, {{"high-water", "262144"}, {"write-timeout", "30000"}});
  ServerOptions options = arguments.server_options("pubsub");
  options.connection.water_marks.high = arguments.number("high-water");
  options.connection.water_marks.low = options.connection.water_marks.high / 4;
  options.write_timeout = arguments.milliseconds("write-timeout");
  pubsub::Hub hub;
  TcpServer server(options);
  serve(server, [&hub](TcpConnection conn) { return serve_client(std::move(conn), hub); });
} catch (const std::exception& error) {
  std::fprintf(stderr, "pub_sub: %s\n", error.what());
  return 1;
}
