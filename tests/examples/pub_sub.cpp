// The hub of topics: driven by netcat, and by peers that do not read.
#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "example.h"

using namespace weir;
using namespace weir::test;

namespace {

std::string receive_reply(Peer& peer) {
  std::string line;
  while (!line.ends_with("\r\n")) {
    const std::string byte = peer.receive_exactly(1);
    if (byte.empty()) break;
    line += byte;
  }
  return line;
}

std::string answer_to(Peer& peer, const std::string& line) {
  peer.send(line + "\r\n");
  return receive_reply(peer);
}

/// Lines of a peer, of which there are many.
class Lines {
 public:
  explicit Lines(Peer& peer) : peer_(peer) {}
  /// Empty at the end of the stream.
  std::string next() {
    std::size_t end = 0;
    while ((end = text_.find('\n', start_)) == std::string::npos) {
      text_.erase(0, std::exchange(start_, 0));
      const std::string more = peer_.receive();
      if (more.empty()) return {};
      text_ += more;
    }
    const std::size_t begin = std::exchange(start_, end + 1);
    return text_.substr(begin, end - begin);
  }

 private:
  Peer& peer_;
  std::string text_;
  std::size_t start_ = 0;
};

}  // namespace

TEST_CASE("the hub reads its options, refuses bad ones, and ends on SIGTERM") {
  check_command_line("pub_sub", {});
}

TEST_CASE("subscribers get what is published to their topics, as long as they want it") {
  Example server("pub_sub", {"--threads", "2"});
  Peer one = server.connect();
  Peer other = server.connect();
  CHECK(answer_to(one, "SUB news") == "+OK\r\n");
  CHECK(answer_to(one, "SUB news") == "+OK\r\n");  // once all the same
  CHECK(answer_to(other, "SUB news") == "+OK\r\n");
  CHECK(answer_to(other, "SUB weather") == "+OK\r\n");
  Peer publisher = server.connect();
  CHECK(answer_to(publisher, "PUB news hello  world") == "+2\r\n");
  CHECK(answer_to(publisher, "PUB weather ") == "+1\r\n");
  CHECK(answer_to(publisher, "PUB sports none") == "+0\r\n");
  CHECK(receive_reply(one) == "MSG news hello  world\r\n");
  CHECK(receive_reply(other) == "MSG news hello  world\r\n");
  CHECK(receive_reply(other) == "MSG weather \r\n");
  CHECK(answer_to(one, "UNSUB news") == "+OK\r\n");
  CHECK(answer_to(publisher, "PUB news again") == "+1\r\n");
  CHECK(receive_reply(other) == "MSG news again\r\n");
  CHECK(answer_to(other, "QUIT") == "+BYE\r\n");
  CHECK(other.receive_all().empty());
  CHECK(eventually([&] { return answer_to(publisher, "PUB news gone") == "+0\r\n"; }));
  CHECK(answer_to(one, "PING") == "+PONG\r\n");  // and nothing else came meanwhile
  for (Peer* peer : {&one, &other, &publisher}) peer->close();
  CHECK(server.end() == 0);
}

TEST_CASE("twenty netcats on two loops get the same messages in the same order") {
  const std::string nc = client_program("nc");
  if (nc.empty()) return;
  Example server("pub_sub", {"--threads", "2"});
  std::vector<std::unique_ptr<Child>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<Child>(
        nc, std::vector<std::string>{"-N", "127.0.0.1", server.port()}, Child::Input::written));
    CHECK(clients.back()->write("SUB all\r\n"));
    CHECK(clients.back()->read_line() == "+OK\r");
  }
  for (std::size_t i = 0; i < clients.size(); ++i) {
    CHECK(clients[i]->write("PUB all from " + std::to_string(i) + "\r\n"));
  }
  std::vector<std::string> first;
  for (const auto& client : clients) {
    std::vector<std::string> seen;
    while (seen.size() < clients.size()) {
      const std::string line = client->read_line();
      if (line.empty()) break;
      if (line != "+20\r") seen.push_back(line);  // its own answer
    }
    if (first.empty()) first = seen;
    const bool same = seen == first && seen.size() == clients.size();
    CHECK(same);
  }
  clients.clear();
  CHECK(server.end() == 0);
}

TEST_CASE("what is no command is refused, and a line that is too long ends the connection") {
  Example server("pub_sub");
  Peer peer = server.connect();
  for (const std::string& line : std::vector<std::string>{
           "", "sub news", "SUB", "SUB a b", "UNSUB", "PUB", "PING x",
           "SUB " + std::string(65, 'x'), "PUB news \x1b[2J", "SUB a\tb\x7f"}) {
    CAPTURE(line);
    CHECK(answer_to(peer, line).starts_with("-ERR "));
  }
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(answer_to(peer, "SUB t" + std::to_string(i)) == "+OK\r\n");
  }
  CHECK(answer_to(peer, "SUB t1000") == "-ERR too many topics\r\n");
  CHECK(answer_to(peer, "SUB t1") == "+OK\r\n");
  CHECK(answer_to(peer, std::string(5000, 'x')) == "-ERR this line is too long\r\n");
  CHECK(peer.receive_all().empty());
}

TEST_CASE("a subscriber that does not read loses messages, is told how many, and holds up nobody") {
  for (const char* threads : {"1", "3"}) {
    CAPTURE(threads);
    Example server("pub_sub", {"--threads", threads, "--high-water", "65536"});
    Peer slow = server.connect(4096);
    Peer reader = server.connect();
    CHECK(answer_to(slow, "SUB news") == "+OK\r\n");
    CHECK(answer_to(reader, "SUB news") == "+OK\r\n");
    Peer publisher = server.connect();
    const std::string text(3000, 'x');
    // Far more than the marks and all buffers between: each is seen before the next is published.
    constexpr int kMessages = 6000;
    int both = 0;
    bool all_there = true;
    for (int i = 0; i < kMessages && all_there; ++i) {
      const std::string line = "news " + std::to_string(i) + text;
      const std::string answer = answer_to(publisher, "PUB " + line);
      both += answer == "+2\r\n" ? 1 : 0;
      all_there = (answer == "+2\r\n" || answer == "+1\r\n") &&
                  reader.receive_exactly(line.size() + 6) == "MSG " + line + "\r\n";
    }
    CHECK(all_there);
    CHECK(both < kMessages);
    CHECK(server.memory() < 50'000'000);
    // It reads at last: what is missing is what it is told, with the next that there is room for.
    Lines lines(slow);
    int got = 0;
    int lost = 0;
    const auto count = [&](const std::string& line) {
      if (line.starts_with("LOST ")) lost += std::stoi(line.substr(5));
      if (line.starts_with("MSG ")) ++got;
      return !line.empty();
    };
    while (got < both && count(lines.next())) continue;
    CHECK(answer_to(publisher, "PUB news end") == "+2\r\n");
    while (got <= both && count(lines.next())) continue;
    CHECK(got == both + 1);
    CHECK(lost == kMessages - both);
    for (Peer* peer : {&slow, &reader, &publisher}) peer->close();
    CHECK(server.end() == 0);
  }
}

TEST_CASE("a subscriber that takes nothing at all is reset after the write timeout") {
  Example server("pub_sub", {"--write-timeout", "200"});
  Peer slow = server.connect(4096);
  CHECK(answer_to(slow, "SUB news") == "+OK\r\n");
  Peer publisher = server.connect();
  const std::string text(3000, 'x');
  CHECK(eventually([&] { return answer_to(publisher, "PUB news " + text) == "+0\r\n"; }));
  CHECK(is_reset(slow));
}
#endif
