// The chat: driven by netcat and socat, a hundred at a time, and by peers that do not read.
#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "example.h"

using namespace weir;
using namespace weir::test;

namespace {

std::string receive_line(Peer& peer) {
  std::string line;
  while (!line.ends_with('\n')) {
    const std::string byte = peer.receive_exactly(1);
    if (byte.empty()) break;
    line += byte;
  }
  return line;
}

/// The number that the chat gave a member, from its greeting.
std::string number_in(std::string_view greeting) {
  constexpr std::string_view kHead = "* you are ";
  INFO("greeting: " << std::string(greeting));
  REQUIRE(greeting.starts_with(kHead));
  greeting.remove_prefix(kHead.size());
  return std::string(greeting.substr(0, greeting.find(',')));
}

/// A plain socket that is in the room.
struct Guest {
  explicit Guest(const Example& server, int buffer_bytes = 0)
      : peer(server.connect(buffer_bytes)), number(number_in(receive_line(peer))) {}
  Peer peer;
  std::string number;
};

/// A hundred copies of a client: each says one line, and each must see all hundred, in one order.
void check_hundred(const std::string& program, const std::vector<std::string>& before,
                   const Example& server, bool socat) {
  std::vector<std::unique_ptr<Child>> clients;
  std::vector<std::string> numbers;
  for (int i = 0; i < 100; ++i) {
    std::vector<std::string> arguments = before;
    if (socat) {
      arguments.push_back("TCP:" + server.address().to_string());
    } else {
      arguments.insert(arguments.end(), {"127.0.0.1", server.port()});
    }
    clients.push_back(std::make_unique<Child>(program, arguments, Child::Input::written));
  }
  for (const auto& client : clients) numbers.push_back(number_in(client->read_line()));
  std::vector<std::string> expected;
  for (std::size_t i = 0; i < clients.size(); ++i) {
    CHECK(clients[i]->write("hello from " + std::to_string(i) + '\n'));
    expected.push_back(numbers[i] + ": hello from " + std::to_string(i));
  }
  std::vector<std::string> first;
  for (const auto& client : clients) {
    std::vector<std::string> seen;
    for (std::size_t i = 0; i < clients.size(); ++i) seen.push_back(client->read_line());
    if (first.empty()) first = seen;
    const bool same_order = seen == first;
    CHECK(same_order);
  }
  std::ranges::sort(first);
  std::ranges::sort(expected);
  CHECK(first == expected);
}

}  // namespace

TEST_CASE("the chat reads its options, refuses bad ones, and ends on SIGTERM") {
  check_command_line("chat", {});
}

TEST_CASE("a hundred netcats on two loops see the same lines in the same order") {
  const std::string nc = client_program("nc");
  if (nc.empty()) return;
  Example server("chat", {"--threads", "2"});
  check_hundred(nc, {"-N"}, server, false);
  CHECK(server.runs());
}

TEST_CASE("a hundred socats on one loop see the same lines in the same order") {
  const std::string socat = client_program("socat");
  if (socat.empty()) return;
  Example server("chat");
  check_hundred(socat, {"-"}, server, true);
  CHECK(server.runs());
}

TEST_CASE(
    "a member that does not read is dropped at the high mark, and the others get every line") {
  for (const char* threads : {"1", "3"}) {
    CAPTURE(threads);
    Example server("chat", {"--threads", threads, "--high-water", "65536"});
    Guest slow(server, 4096);
    Guest talker(server);
    Guest reader(server);
    const std::string text(1000, 'x');
    // Far more than the marks and all buffers between: each line is seen before the next is sent.
    bool all_there = true;
    for (int i = 0; i < 20000; ++i) {
      const std::string line = std::to_string(i) + text + '\n';
      talker.peer.send(line);
      const std::string expected = talker.number + ": " + line;
      all_there = all_there && reader.peer.receive_exactly(expected.size()) == expected;
      all_there = all_there && talker.peer.receive_exactly(expected.size()) == expected;
      if (!all_there) break;
    }
    CHECK(all_there);
    CHECK(slow.peer.wait_for_end() == ECONNRESET);
    CHECK(server.memory() < 50'000'000);
    talker.peer.close();
    reader.peer.close();
    CHECK(server.end() == 0);
  }
}

TEST_CASE("a burst of lines, more than the high mark, drops nobody whom the kernel can serve") {
  Example server("chat", {"--high-water", "65536"});
  Guest talker(server);
  Guest reader(server);
  std::string burst;
  std::string expected;
  for (int i = 0; i < 200; ++i) {
    const std::string line = std::to_string(i) + std::string(500, 'y') + '\n';
    burst += line;
    expected += talker.number + ": " + line;
  }
  talker.peer.send(burst);
  const bool reader_has_all = reader.peer.receive_exactly(expected.size()) == expected;
  CHECK(reader_has_all);
  const bool talker_has_all = talker.peer.receive_exactly(expected.size()) == expected;
  CHECK(talker_has_all);
}

TEST_CASE("a burst of empty lines drops nobody: what others get of them counts") {
  Example server("chat", {"--high-water", "32768"});
  Guest reader(server);
  Guest talker(server);
  constexpr int kLines = 9000;  // more than the mark, and what a socket takes from many small ones
  std::string expected;
  for (int i = 0; i < kLines; ++i) expected += talker.number + ": \n";
  talker.peer.send(std::string(kLines, '\n'));
  const bool reader_has_all = reader.peer.receive_exactly(expected.size()) == expected;
  CHECK(reader_has_all);
  const bool talker_has_all = talker.peer.receive_exactly(expected.size()) == expected;
  CHECK(talker_has_all);
}

TEST_CASE("a line that is too long ends its sender's connection only") {
  Example server("chat");
  Guest bad(server);
  Guest good(server);
  bad.peer.send(std::string(100000, 'z'));
  CHECK(bad.peer.receive_all().find("too long") != std::string::npos);
  good.peer.send("still here\n");
  CHECK(receive_line(good.peer) == good.number + ": still here\n");
}

TEST_CASE("control characters and binary bytes reach nobody's terminal") {
  Example server("chat");
  Guest talker(server);
  Guest reader(server);
  talker.peer.send(std::string("\x1b[31m\0\x7f\tgr\xc3\xbc\xc3\x9f\r\n", 16));
  CHECK(receive_line(reader.peer) == talker.number + ": ?[31m??\tgr\xc3\xbc\xc3\x9f\n");
  CHECK(server.runs());
}

TEST_CASE("members that come, say half a line and vanish leave the chat as it was") {
  Example server("chat", {"--threads", "2"});
  Guest reader(server);
  for (int i = 0; i < 50; ++i) {
    Peer peer = server.connect();
    peer.send("half a line");
    if (i % 2 == 0) {
      peer.reset();
    } else {
      peer.close();
    }
  }
  Guest last(server);
  last.peer.send("whole\n");
  CHECK(receive_line(reader.peer) == last.number + ": whole\n");
  reader.peer.close();
  last.peer.close();
  CHECK(server.end() == 0);
}

TEST_CASE("SIGTERM ends the connections of those who only listen, and cuts off nobody") {
  Example server("chat", {"--threads", "2"});
  std::vector<Guest> guests;
  for (int i = 0; i < 4; ++i) guests.emplace_back(server);
  guests[0].peer.send("the last word\n");
  for (Guest& guest : guests) {
    std::string line;
    do {
      line = receive_line(guest.peer);
    } while (line.find("the last word") == std::string::npos);
  }
  CHECK(server.begin_end());
  for (Guest& guest : guests) {
    CHECK(guest.peer.wait_for_end() == 0);
    guest.peer.close();
  }
  CHECK(server.wait() == 0);
}
#endif
