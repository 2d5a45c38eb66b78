// The WebSocket server: driven by the library websockets of Python, and by plain sockets that break
// the protocol or do not read.
#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>
#include <poll.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "../../examples/websocket/frames.h"
#include "example.h"

using namespace weir;
using namespace weir::test;
using namespace std::string_literals;

namespace {

/// Python, where it has the library; empty, with the reason printed, where it has not.
std::string python_with_websockets() {
  // Debian's first: it has Debian's packages.
  for (const std::string& python : {std::string("/usr/bin/python3"), client_program("python3")}) {
    const bool there = std::filesystem::exists(python);
    if (there && run_program(python, {"-c", "import websockets"}).status == 0) return python;
  }
  MESSAGE("skipped: websockets for Python (python3-websockets) is not installed");
  return {};
}

std::vector<std::string> client_arguments(const Example& server, const std::string& name) {
  return {WEIR_SOURCE_DIR "/tests/examples/websocket_client.py",
          "ws://" + server.address().to_string(), name};
}

const std::string kEnd =
    "HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

std::string receive_head(Peer& peer) {
  std::string head;
  while (!head.ends_with("\r\n\r\n")) {
    const std::string byte = peer.receive_exactly(1);
    if (byte.empty()) break;
    head += byte;
  }
  return head;
}

/// A plain socket that has shaken hands.
Peer guest(const Example& server, const std::string& path, int buffer_bytes = 0) {
  Peer peer = server.connect(buffer_bytes);
  peer.send("GET " + path + ' ' + kEnd);
  const std::string head = receive_head(peer);
  CHECK(head.starts_with("HTTP/1.1 101 "));
  CHECK(head.find("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") !=
        std::string::npos);
  return peer;
}

/// A client's frame, with a mask of zeros.
std::string plain(unsigned first, std::string_view payload) {
  std::string frame = websocket::make_frame(websocket::Opcode::binary, payload);
  const std::size_t head = frame.size() - payload.size();
  frame[0] = static_cast<char>(first);
  frame[1] = static_cast<char>(frame[1] | 0x80);
  return frame.insert(head, 4, '\0');
}

std::string close_frame(unsigned code) {
  return websocket::make_close(static_cast<websocket::Code>(code));
}

}  // namespace

TEST_CASE("the WebSocket server reads its options, refuses bad ones, and ends on SIGTERM") {
  check_command_line("websocket_server", {});
}

TEST_CASE("Python's websockets echoes, chats, closes, and is refused as it has to be") {
  const std::string python = python_with_websockets();
  if (python.empty()) return;
  for (const char* engine : {"auto", "epoll"}) {
    Example server("websocket_server",
                   {"--threads", "2", "--engine", engine, "--origin", "https://own.example"});
    for (const char* name : {"echo", "chat", "too_big", "refused"}) {
      const Ran ran = run_program(python, client_arguments(server, name));
      CAPTURE(name);
      CHECK(ran.status == 0);
      CHECK(ran.output == "done\n");
    }
    CHECK(server.end() == 0);
  }
}

TEST_CASE("SIGTERM has a client of Python's websockets told that the server goes away") {
  const std::string python = python_with_websockets();
  if (python.empty()) return;
  Example server("websocket_server");
  Child client(python, client_arguments(server, "end"));
  CHECK(client.read_line() == "ready");
  CHECK(server.end() == 0);
  CHECK(client.read_line() == "done");
}

TEST_CASE("a request that is none for a WebSocket is refused, and the connection ends") {
  Example server("websocket_server");
  const auto answer_to = [&](const std::string& request) {
    Peer peer = server.connect();
    peer.send(request);
    return peer.receive_all();
  };
  CHECK(answer_to("GET /none " + kEnd).starts_with("HTTP/1.1 404 "));
  CHECK(answer_to("POST /echo " + kEnd).starts_with("HTTP/1.1 405 "));
  const std::string plain_http = answer_to("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(plain_http.starts_with("HTTP/1.1 426 "));
  CHECK(plain_http.find("\r\nSec-WebSocket-Version: 13\r\n") != std::string::npos);
  CHECK(answer_to("\x16\x03\x01\r\n\r\n").starts_with("HTTP/1.1 400 "));
  CHECK(answer_to("GET /" + std::string(9000, 'x')).starts_with("HTTP/1.1 431 "));
  Example impatient("websocket_server", {"--handshake-timeout", "200"});
  Peer slow = impatient.connect();
  slow.send("GET /echo HTTP/1.1\r\nHost: x");
  (void)slow.wait_for_end();  // at its time limit
}

TEST_CASE("who breaks the protocol gets a Close that says so, and the end") {
  Example server("websocket_server");
  const auto answer_to = [&](const std::string& frames) {
    Peer peer = guest(server, "/echo");
    peer.send(frames);
    return peer.receive_all();
  };
  CHECK(answer_to("\x81\x05hello") == close_frame(1002));
  CHECK(answer_to(plain(0x82, "x") + plain(0xc1, "y")) == "\x82\x01x" + close_frame(1002));
  CHECK(answer_to(plain(0x81, "\xc0\x80")) == close_frame(1007));
  CHECK(answer_to(plain(0x82, std::string(70'000, 'x'))) == close_frame(1009));
  CHECK(answer_to(plain(0x88, "")) == close_frame(0));
  CHECK(answer_to(plain(0x88,
                        "\x0b\xb8"
                        "bye") +
                  plain(0x81, "late")) == close_frame(3000));
  CHECK(answer_to(plain(0x88, "\x03\xed")) == close_frame(1002));  // 1005 is never said
  CHECK(server.end() == 0);
}

TEST_CASE("a silent client is asked, and let go if it does not answer") {
  Example server("websocket_server", {"--ping-interval", "100"});
  Peer silent = guest(server, "/chat");
  CHECK(silent.receive_all() == "\x89\0"s);
  // Whom the machine kept from answering in time begins anew.
  const auto is_asked_again = [&] {
    Peer lively = guest(server, "/chat");
    try {
      for (int i = 0; i < 3; ++i) {
        if (lively.receive_exactly(2) != "\x89\0"s) return false;
        lively.send(plain(0x8a, ""));
      }
    } catch (const std::system_error&) {
      return false;
    }
    return true;
  };
  CHECK(eventually(is_asked_again));
}

TEST_CASE("a member of the chat that does not read is dropped, and the others get every message") {
  for (const char* threads : {"1", "3"}) {
    CAPTURE(threads);
    Example server("websocket_server", {"--threads", threads, "--high-water", "262144"});
    Peer slow = guest(server, "/chat", 4096);
    Peer talker = guest(server, "/chat");
    Peer reader = guest(server, "/chat");
    bool all_there = true;
    // Far more than the marks and all buffers between: each message is seen before the next.
    for (int i = 0; i < 500 && all_there; ++i) {
      const std::string text = std::to_string(i) + std::string(50'000, 'x');
      const std::string expected = websocket::make_frame(websocket::Opcode::text, text);
      talker.send(plain(0x81, text));
      all_there = reader.receive_exactly(expected.size()) == expected &&
                  talker.receive_exactly(expected.size()) == expected;
    }
    CHECK(all_there);
    CHECK(slow.wait_for_end() == ECONNRESET);
    CHECK(server.memory() < 50'000'000);
    talker.close();
    reader.close();
    CHECK(server.end() == 0);
  }
}

TEST_CASE("an echo that nobody reads holds its sender back, and no other connection") {
  Example server("websocket_server");
  Peer greedy = guest(server, "/echo", 4096);
  const std::string message = plain(0x82, std::string(60'000, 'x'));
  std::string left;
  std::size_t sent = 0;
  pollfd writable{.fd = greedy.fd(), .events = POLLOUT, .revents = 0};
  // Until the server has taken nothing for half a second.
  while (sent < (std::size_t{100} << 20) && ::poll(&writable, 1, 500) == 1) {
    if (left.empty()) left = message;
    const std::size_t count = greedy.send_now(left);
    left.erase(0, count);
    sent += count;
  }
  CHECK(sent < (std::size_t{50} << 20));
  Peer other = guest(server, "/echo");
  other.send(plain(0x81, "hello"));
  CHECK(other.receive_exactly(7) == "\x81\x05hello");
  CHECK(server.memory() < 50'000'000);
}
#endif
