// The proxy: between curl or netcat on one side and socat or plain sockets on the other.
#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "example.h"
#include "origin.h"

using namespace weir;
using namespace weir::test;
using namespace std::string_literals;

namespace {

const std::string kGreeting = "\x05\x01\x00"s;
const std::string kLoopback = "\x05\x01\x00\x01\x7f\x00\x00\x01"s;

/// A client and the far end, through the proxy.
struct Through {
  Through(const Example& proxy, const Origin& origin, int buffer_bytes = 0)
      : client(proxy.connect(buffer_bytes)) {
    client.send(kGreeting);
    CHECK(client.receive_exactly(2) == "\x05\x00"s);
    client.send(kLoopback + origin.port_bytes());
    far = origin.accept();
    const std::string reply = client.receive_exactly(10);
    CHECK(reply.substr(0, 4) == "\x05\x00\x00\x01"s);
  }
  Peer client;
  Peer far;
};

/// The code in the reply to a request that follows a good greeting; -1 if the connection ends
/// first.
int reply_to(const Example& proxy, const std::string& request) {
  Peer client = proxy.connect();
  client.send(kGreeting);
  CHECK(client.receive_exactly(2) == "\x05\x00"s);
  client.send(request);
  client.shutdown_send();
  const std::string reply = client.receive_all();
  return reply.size() < 10 || reply[0] != 5 ? -1 : reply[1];
}

/// Where a socat listens, from its messages.
std::string port_of_socat(Child& socat) {
  for (std::string line; !(line = socat.read_line()).empty();) {
    if (line.find("listening on") == std::string::npos) continue;
    return line.substr(line.rfind(':') + 1);
  }
  FAIL("socat does not say where it listens");
  return {};
}

}  // namespace

TEST_CASE("the proxy reads its options, refuses bad ones, and ends on SIGTERM") {
  check_command_line("socks5_proxy", {});
}

TEST_CASE("curl fetches through the proxy, by name, by IPv4 and by IPv6 address") {
  const std::string curl = client_program("curl");
  if (curl.empty()) return;
  Example proxy("socks5_proxy");
  Example six("socks5_proxy", {"--address", "::1", "--threads", "2"});
  Origin origin;
  const std::string body = pattern(300'000);
  std::thread serving([&] {
    for (int i = 0; i < 3; ++i) {
      Peer peer = origin.accept();
      std::string head;
      while (head.find("\r\n\r\n") == std::string::npos) head += peer.receive();
      peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n\r\n" + body);
    }
  });
  const std::string port = std::to_string(origin.port());
  const auto fetch = [&](const char* option, const Example& by, const std::string& host) {
    const Ran ran = run_program(curl, {"-sS", "--max-time", "120", "--noproxy", "", option,
                                       by.address().to_string(), "http://" + host + ':' + port});
    CHECK(ran.status == 0);
    return ran.output == body;
  };
  CHECK(fetch("--socks5-hostname", proxy, "localhost"));
  CHECK(fetch("--socks5", proxy, "127.0.0.1"));
  CHECK(fetch("--socks5-hostname", six, "127.0.0.1"));
  serving.join();
  CHECK(proxy.end() == 0);
  CHECK(six.end() == 0);
}

TEST_CASE("an IPv6 address is reached as such") {
  Example proxy("socks5_proxy");
  Example far("resp_server", {"--address", "::1"});
  const std::uint16_t port = far.address().port();
  Peer client = proxy.connect();
  client.send(kGreeting + "\x05\x01\x00\x04"s + std::string(15, '\0') + '\1' +
              std::string{static_cast<char>(port >> 8), static_cast<char>(port & 0xff)} +
              "PING\r\n");  // all at once: a client may
  CHECK(client.receive_exactly(2) == "\x05\x00"s);
  CHECK(client.receive_exactly(22).substr(0, 4) == "\x05\x00\x00\x04"s);
  CHECK(client.receive_exactly(7) == "+PONG\r\n");
}

TEST_CASE("netcat's half-close reaches socat's program, and the answer comes back after it") {
  const std::string nc = client_program("nc");
  const std::string socat = client_program("socat");
  if (nc.empty() || socat.empty()) return;
  Example proxy("socks5_proxy");
  Child far(socat, {"-d", "-d", "-t", "30", "TCP4-LISTEN:0,bind=127.0.0.1", "EXEC:sort"});
  const std::string port = port_of_socat(far);
  // sort answers only once it has seen the end of its input.
  const Ran ran = run_program(
      nc, {"-N", "-X", "5", "-x", proxy.address().to_string(), "localhost", port}, "c\na\nb\n");
  CHECK(ran.status == 0);
  CHECK(ran.output == "a\nb\nc\n");
}

TEST_CASE("a FIN goes through in either direction, and the other direction goes on") {
  Example proxy("socks5_proxy");
  Origin origin;
  {
    Through pair(proxy, origin);
    pair.client.shutdown_send();
    CHECK(pair.far.receive().empty());
    pair.far.send("still here");
    pair.far.close();
    CHECK(pair.client.receive_all() == "still here");
  }
  Through pair(proxy, origin);
  pair.far.shutdown_send();
  CHECK(pair.client.receive().empty());
  pair.client.send("still here");
  pair.client.close();
  CHECK(pair.far.receive_all() == "still here");
}

TEST_CASE("a reset of either side reaches the other") {
  Example proxy("socks5_proxy");
  Origin origin;
  {
    Through pair(proxy, origin);
    pair.client.reset();
    CHECK(pair.far.wait_for_end() == ECONNRESET);
  }
  Through pair(proxy, origin);
  pair.far.reset();
  CHECK(pair.client.wait_for_end() == ECONNRESET);
}

TEST_CASE("a client that stalls holds a fast origin back, in bounded memory, and loses nothing") {
  for (const char* engine : {"auto", "epoll"}) {
    Example proxy("socks5_proxy", {"--engine", engine});
    Origin origin;
    Through pair(proxy, origin, 16384);
    const std::string block = pattern(1 << 20);
    std::size_t sent = 0;
    pollfd writable{.fd = pair.far.fd(), .events = POLLOUT, .revents = 0};
    // Until the origin has found no room for half a second.
    while (sent < (std::size_t{200} << 20) && ::poll(&writable, 1, 500) == 1) {
      sent += pair.far.send_now(std::string_view(block).substr(sent % block.size()));
    }
    CHECK(sent < (std::size_t{30} << 20));  // the kernel's own buffers are most of it
    CHECK(proxy.memory() < 20'000'000);
    pair.far.shutdown_send();
    std::size_t received = 0;
    bool same = true;
    for (std::string bytes; !(bytes = pair.client.receive()).empty(); received += bytes.size()) {
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        same = same && bytes[i] == block[(received + i) % block.size()];
      }
    }
    CHECK(same);
    CHECK(received == sent);
  }
}

TEST_CASE("what cannot be reached gets the reply that says why") {
  Example proxy("socks5_proxy");
  Origin origin;
  const std::string closed = origin.port_bytes();
  origin.close();
  CHECK(reply_to(proxy, kLoopback + closed) == 5);
  // No name server needs to be asked: a label is too long.
  CHECK(reply_to(proxy, "\x05\x01\x00\x03\x50"s + std::string(80, 'x') + closed) == 4);
  CHECK(reply_to(proxy, "\x05\x02\x00\x01\x7f\x00\x00\x01"s + closed) == 7);  // BIND
  CHECK(reply_to(proxy, "\x05\x03\x00\x01\x7f\x00\x00\x01"s + closed) == 7);  // UDP ASSOCIATE
  CHECK(reply_to(proxy, "\x05\x01\x00\x05\x7f"s) == 8);
}

TEST_CASE("a name is a name only: no Unix socket, no other address in disguise") {
  Example proxy("socks5_proxy");
  for (const std::string& name : {"unix"s, "unix:/run/x"s, "unix:@x"s, "[::1]"s, "a b"s, "x\0y"s,
                                  ""s, "127.0.0.1:80"s, "../x"s, "\xff\xfe"s}) {
    CAPTURE(name);
    const std::string request =
        "\x05\x01\x00\x03"s + static_cast<char>(name.size()) + name + "\x00\x50"s;
    CHECK(reply_to(proxy, request) == 4);
  }
}

TEST_CASE("clients that speak something else, stop midway or say nothing are let go") {
  // One byte may be the beginning of a greeting: the time limit ends it.
  Example proxy("socks5_proxy", {"--handshake-timeout", "2000"});
  for (const std::string& bytes :
       {"GET / HTTP/1.1\r\n\r\n"s, "\x04\x01\x00\x50\x7f\x00\x00\x01\x00"s, "\x16\x03\x01\x02"s,
        "\x00"s, "\xff"s, kGreeting + "\x04\x01\x00\x01\x7f\x00\x00\x01\x00\x50"s,
        kGreeting + "\x05\x01\x01\x01\x7f\x00\x00\x01\x00\x50"s}) {
    Peer client = proxy.connect();
    client.send(bytes);
    const std::string answer = client.receive_all();  // the proxy ends it
    CHECK((answer.empty() || answer == "\x05\x00"s));
  }
  Peer strict = proxy.connect();
  strict.send("\x05\x02\x01\x02");  // neither of them is "no authentication"
  CHECK(strict.receive_all() == "\x05\xff"s);
  CHECK(proxy.end() == 0);

  Example impatient("socks5_proxy", {"--handshake-timeout", "200"});
  for (const std::string& bytes :
       {""s, "\x05"s, "\x05\x05\x00"s, kGreeting, kGreeting + "\x05\x01"s,
        kGreeting + "\x05\x01\x00\x03\xff"s + "too short"s}) {
    Peer silent = impatient.connect();
    if (!bytes.empty()) silent.send(bytes);
    (void)silent.wait_for_end();  // at its time limit, be it that it had not said even that much
  }
  CHECK(impatient.end() == 0);
}
#endif
