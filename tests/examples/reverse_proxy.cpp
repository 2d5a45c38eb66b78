// The reverse proxy: between curl or plain sockets on one side, and http_server or plain sockets on
// the other.
#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "../support/directory.h"
#include "example.h"
#include "origin.h"

using namespace weir;
using namespace weir::test;
using namespace std::string_literals;

namespace {

bool proxy_built() {
  if (std::filesystem::exists(Example::path_of("reverse_proxy"))) return true;
  MESSAGE("skipped: reverse_proxy is not built, llhttp is missing");
  return false;
}

std::string receive_up_to(Peer& peer, std::string_view end) {
  std::string text;
  while (!text.ends_with(end)) {
    const std::string byte = peer.receive_exactly(1);
    if (byte.empty()) break;
    text += byte;
  }
  return text;
}
std::string receive_head(Peer& peer) { return receive_up_to(peer, "\r\n\r\n"); }

/// A proxy in front of a backend that is the test.
struct Proxied {
  explicit Proxied(std::vector<std::string> arguments = {})
      : proxy("reverse_proxy", with_backend(std::move(arguments))) {}
  std::vector<std::string> with_backend(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"--backends", origin.address()});
    return arguments;
  }
  /// What a client gets, to the end of the connection, if the backend answers its request so and
  /// closes.
  [[nodiscard]] std::string answer_for(const std::string& request, const std::string& answer,
                                       int* error = nullptr) const {
    Peer client = proxy.connect();
    client.send(request);
    Peer backend = origin.accept();
    CHECK(receive_head(backend).ends_with("\r\n\r\n"));
    backend.send(answer);
    backend.shutdown_send();
    return client.receive_all(error);
  }

  Origin origin;
  Example proxy;
};

const std::string kGet = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const std::string kLastGet = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const std::string kEmpty = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const std::string kSeen = "X-Forwarded-For: 127.0.0.1\r\nVia: 1.1 weir\r\n\r\n";

}  // namespace

TEST_CASE("the reverse proxy reads its options, refuses bad ones, and ends on SIGTERM") {
  if (!proxy_built()) return;
  check_command_line("reverse_proxy", {"--backends", "127.0.0.1:1"});
  const auto refused = [](const std::vector<std::string>& arguments) {
    return run_program(Example::path_of("reverse_proxy"), arguments).output;
  };
  CHECK(refused({"--port", "0"}).find("--backends") != std::string::npos);
  CHECK(refused({"--port", "0", "--backends", "127.0.0.1:1,nonsense"}).find("nonsense") !=
        std::string::npos);
}

TEST_CASE("curl gets files through the proxy as it does without") {
  const std::string curl = client_program("curl");
  if (curl.empty() || !proxy_built()) return;
  const Directory site;
  const std::string big = pattern(3'000'000);
  std::ofstream(site.file("big.bin"), std::ios::binary) << big;
  const Example backend("http_server", {"--root", site.file("")});
  for (const char* engine : {"auto", "epoll"}) {
    Example proxy("reverse_proxy", {"--backends", backend.address().to_string(), "--engine", engine,
                                    "--threads", "2"});
    const auto fetch = [&](std::vector<std::string> arguments, const std::string& target) {
      arguments.insert(arguments.begin(), {"-sS", "--max-time", "120", "--noproxy", "*"});
      arguments.push_back("http://" + proxy.address().to_string() + target);
      return run_program(curl, arguments).output;
    };
    CHECK(fetch({}, "/hello") == "hello, world\n");
    const bool whole = fetch({}, "/big.bin") == big;
    CHECK(whole);
    const bool part = fetch({"-r", "2000000-"}, "/big.bin") == big.substr(2'000'000);
    CHECK(part);
    const std::string head = fetch({"-I"}, "/big.bin");
    CHECK(head.starts_with("HTTP/1.1 200 OK\r\n"));
    CHECK(head.find("\r\nContent-Length: 3000000\r\n") != std::string::npos);
    CHECK(fetch({"-o", "/dev/null", "-w", "%{http_code}"}, "/none") == "404");
    CHECK(fetch({"-o", "/dev/null", "-w", "%{http_code}", "-d", "a=b"}, "/hello") == "405");
    const std::string connects =
        fetch({"-w", "%{num_connects}", "-o", "/dev/null", "-o", "/dev/null",
               "http://" + proxy.address().to_string() + "/hello"},
              "/hello");
    CHECK(connects == "10");
    CHECK(proxy.end() == 0);
  }
}

TEST_CASE("a backend gets each request written anew, on a connection that is used again") {
  if (!proxy_built()) return;
  const Proxied both;
  Peer client = both.proxy.connect();
  client.send(
      "GET /a?b=c HTTP/1.1\r\nHost: x:80\r\nAccept: */*\r\nConnection: keep-alive, x-Private\r\n"
      "X-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n"
      "X-Forwarded-For: 1.2.3.4\r\nVia: 1.0 other\r\n\r\n");
  Peer backend = both.origin.accept();
  CHECK(receive_head(backend) ==
        "GET /a?b=c HTTP/1.1\r\nHost: x:80\r\naccept: */*\r\n"
        "X-Forwarded-For: 1.2.3.4, 127.0.0.1\r\nVia: 1.0 other, 1.1 weir\r\n\r\n");
  const auto ask = [&](const std::string& request, const std::string& expected) {
    backend.send(kEmpty);
    CHECK(receive_head(client).starts_with("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: "));
    client.send(request);
    const std::string seen = backend.receive_exactly(expected.size());
    CHECK(seen == expected);
  };
  // Host is nobody's to take away, and a target that names one wins.
  ask("GET http://y:81?q HTTP/1.1\r\nHost: x\r\nConnection: Host, Content-Length\r\n\r\n",
      "GET /?q HTTP/1.1\r\nHost: y:81\r\n" + kSeen);
  ask("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n" + kSeen);
  ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: content-length\r\n\r\nbody",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n" + kSeen + "body");
  ask("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nbody\r\n0\r\nT: "
      "1\r\n\r\n",
      "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + kSeen +
          "4\r\nbody\r\n0\r\n\r\n");
}

TEST_CASE("an answer comes as the client can take it, without what was for the proxy alone") {
  if (!proxy_built()) return;
  const Proxied both;
  const std::string via = "Via: 1.1 weir\r\n";
  const std::string close = via + "Connection: close\r\n\r\n";
  CHECK(both.answer_for(kLastGet,
                        "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: x-private\r\n"
                        "X-Private: 1\r\nX-Public: 2\r\nKeep-Alive: 3\r\n\r\nok") ==
        "HTTP/1.1 200 Fine\r\nx-public: 2\r\nContent-Length: 2\r\n" + close + "ok");
  CHECK(both.answer_for(kLastGet,
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "2\r\nok\r\n0\r\nT: 1\r\n\r\n") ==
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + close + "2\r\nok\r\n0\r\n\r\n");
  CHECK(both.answer_for(kLastGet, "HTTP/1.0 200 OK\r\n\r\n").ends_with("\r\n\r\n0\r\n\r\n"));
  CHECK(both.answer_for("GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nto the end") ==
        "HTTP/1.1 200 OK\r\n" + close + "to the end");
  CHECK(both.answer_for(kLastGet,
                        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                        "HTTP/1.1 100 Continue\r\n\r\n" +
                            kEmpty) == "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + close);
  CHECK(both.answer_for("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") ==
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + close);
  CHECK(both.answer_for(kLastGet, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n") ==
        "HTTP/1.1 204 No Content\r\n" + close);
  CHECK(both.answer_for(kLastGet, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n") ==
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n" + close);
}

TEST_CASE("what two could read in two ways is refused, and no backend sees any of it") {
  if (!proxy_built()) return;
  const Proxied both({"--max-body", "1000"});
  const std::string hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string post = "POST / HTTP/1.1\r\nHost: x\r\n";
  const std::vector<std::pair<std::string, int>> refused = {
      {post + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, 400},
      {post + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc" + hidden, 400},
      {post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc" + hidden, 400},
      {post + "Content-Length: +3\r\n\r\nabc" + hidden, 400},
      {post + "Content-Length: 3, 3\r\n\r\nabc" + hidden, 400},
      {post + "Content-Length : 3\r\n\r\nabc" + hidden, 400},
      {post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden, 400},
      {post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + hidden, 501},
      {post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + hidden, 400},
      {post +
           "Transfer-Encoding:\x0b"
           "chunked\r\n\r\n0\r\n\r\n" +
           hidden,
       400},
      {"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, 400},
      {post + "A: b\nContent-Length: 3\r\n\r\n" + hidden, 400},
      {post + "A: b\r\n Content-Length: 3\r\n\r\n" + hidden, 400},
      {post + "Host: y\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET relative HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405},
      {"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405},
      {post + "Expect: magic\r\nContent-Length: 3\r\n\r\nabc", 417},
      {post + "Content-Length: 1001\r\n\r\n", 413},
      {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505},
      {"GET /" + std::string(20'000, 'x') + " HTTP/1.1\r\nHost: x\r\n\r\n", 431}};
  for (const auto& [request, status] : refused) {
    CAPTURE(request.substr(0, 100));
    Peer client = both.proxy.connect();
    client.send(request);
    const std::string answer = client.receive_all();
    CHECK(answer.starts_with("HTTP/1.1 " + std::to_string(status) + ' '));
    CHECK(answer.find("HTTP/1.1", 8) == std::string::npos);  // and no other one
  }
  // The first that a backend sees.
  CHECK(both.answer_for(kLastGet, kEmpty).starts_with("HTTP/1.1 200 OK\r\n"));
  // In pieces a body can be refused only once a backend has heard of it, which gets no end of it.
  Peer client = both.proxy.connect();
  client.send(post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
  Peer backend = both.origin.accept();
  receive_head(backend);
  CHECK(backend.receive_exactly(10) == "5\r\nhello\r\n");
  client.send("xyz\r\n" + hidden);
  CHECK(client.receive_all().starts_with("HTTP/1.1 400 "));
  CHECK(backend.receive_all().empty());
}

TEST_CASE("what a backend does wrong is a 502, its silence a 504, and a part is not the whole") {
  if (!proxy_built()) return;
  const Proxied both;
  for (const std::string& answer :
       {""s, "HTTP/1.1 200"s, "SSH-2.0-x\r\n"s, "HTTP/2 200\r\n\r\n"s,
        "HTTP/1.1 101 Switching Protocols\r\n\r\n"s, "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n"s,
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"s,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"s,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"s,
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"s,
        "HTTP/1.1 200 OK\r\nA: " + std::string(70'000, 'x') + "\r\n\r\n"}) {
    CAPTURE(answer.substr(0, 100));
    CHECK(both.answer_for(kGet, answer).starts_with("HTTP/1.1 502 "));
  }
  for (const std::string& answer :
       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"s,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n"s}) {
    int error = 0;
    (void)both.answer_for(kGet, answer, &error);
    CHECK(error == ECONNRESET);
  }
  Proxied impatient({"--backend-timeout", "100"});
  Peer client = impatient.proxy.connect();
  client.send(kGet);
  const Peer silent = impatient.origin.accept();
  CHECK(client.receive_all().starts_with("HTTP/1.1 504 "));
  impatient.origin.close();
  Peer other = impatient.proxy.connect();
  other.send(kGet);
  CHECK(other.receive_all().starts_with("HTTP/1.1 502 "));
}

TEST_CASE("of two backends the one that can be reached answers") {
  if (!proxy_built()) return;
  Origin gone;
  const Origin origin;
  Example proxy("reverse_proxy", {"--backends", gone.address() + ',' + origin.address()});
  gone.close();
  Peer client = proxy.connect();
  client.send(kLastGet);
  Peer backend = origin.accept();
  receive_head(backend);
  backend.send(kEmpty);
  CHECK(client.receive_all().starts_with("HTTP/1.1 200 "));
}

TEST_CASE("a request that meets the end of an idle connection goes to a new one") {
  if (!proxy_built()) return;
  const Proxied both;
  Peer client = both.proxy.connect();
  client.send(kGet);
  Peer backend = both.origin.accept();
  receive_head(backend);
  backend.send(kEmpty);
  receive_head(client);
  client.send(kGet);
  receive_head(backend);  // it has come, and is not answered
  backend.close();
  Peer next = both.origin.accept();
  receive_head(next);
  next.send(kEmpty);
  CHECK(receive_head(client).starts_with("HTTP/1.1 200 "));
  // What is not safe is not done again.
  client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
  receive_head(next);
  next.close();
  CHECK(client.receive_all().starts_with("HTTP/1.1 502 "));
}

TEST_CASE("curl waits with a large body until it is asked for") {
  const std::string curl = client_program("curl");
  if (curl.empty() || !proxy_built()) return;
  const Proxied both;
  const Directory directory;
  const std::string body = pattern(3'000'000);
  std::ofstream(directory.file("body"), std::ios::binary) << body;
  const std::vector<std::string> arguments = {
      "-sS",
      "--max-time",
      "120",
      "--noproxy",
      "*",
      "--expect100-timeout",
      "100",
      "-T",
      directory.file("body"),
      "-w",
      "%{http_code}",
      "http://" + both.proxy.address().to_string() + "/upload"};
  Child upload(curl, arguments);
  Peer backend = both.origin.accept();
  const std::string head = receive_head(backend);
  CHECK(head.find("Content-Length: 3000000\r\n") != std::string::npos);
  CHECK(head.find("xpect") == std::string::npos);
  const bool same = backend.receive_exactly(body.size()) == body;
  CHECK(same);
  backend.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
  CHECK(upload.read_all() == "201");
}

TEST_CASE("an answer that comes before its request is whole ends the connection") {
  if (!proxy_built()) return;
  const Proxied both;
  Peer client = both.proxy.connect();
  client.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegin");
  Peer backend = both.origin.accept();
  receive_head(backend);
  backend.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
  const std::string answer = client.receive_all();
  CHECK(answer.starts_with("HTTP/1.1 413 "));
  CHECK(answer.ends_with("Connection: close\r\n\r\n"));
  CHECK(backend.receive_all() == "begin");
}

TEST_CASE(
    "a client that stalls holds its backend back, and the other way round, in bounded memory") {
  if (!proxy_built()) return;
  for (const bool down : {true, false}) {
    CAPTURE(down);
    Proxied both;
    const std::string size = std::to_string(200 << 20);
    Peer client = both.proxy.connect(16384);
    client.send(down ? kGet : "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: " + size + "\r\n\r\n");
    Peer backend = both.origin.accept();
    receive_head(backend);
    if (down) backend.send("HTTP/1.1 200 OK\r\nContent-Length: " + size + "\r\n\r\n");
    if (down) receive_head(client);
    Peer& from = down ? backend : client;
    Peer& to = down ? client : backend;
    const std::string block = pattern(1 << 20);
    const std::string twice = block + block;
    std::size_t sent = 0;
    pollfd writable{.fd = from.fd(), .events = POLLOUT, .revents = 0};
    // Until it has found no room for half a second.
    while (sent < (std::size_t{200} << 20) && ::poll(&writable, 1, 500) == 1) {
      sent += from.send_now(std::string_view(block).substr(sent % block.size()));
    }
    CHECK(sent < (std::size_t{40} << 20));  // the kernel's own buffers are most of it
    CHECK(both.proxy.memory() < 20'000'000);
    bool same = true;
    for (std::size_t received = 0; received < sent;) {
      const std::string bytes = to.receive(std::min<std::size_t>(sent - received, 65536));
      if (bytes.empty()) break;
      same = same && twice.compare(received % block.size(), bytes.size(), bytes) == 0;
      received += bytes.size();
    }
    CHECK(same);
  }
}

TEST_CASE("SIGTERM lets the proxy answer what it was asked, and ends who is idle") {
  if (!proxy_built()) return;
  Proxied both({"--max-connections", "1"});  // the one that was given back
  Peer idle = both.proxy.connect();
  idle.send(kGet);
  Peer backend = both.origin.accept();
  receive_head(backend);
  backend.send(kEmpty);
  receive_head(idle);
  Peer busy = both.proxy.connect();
  busy.send(kGet);
  receive_head(backend);
  CHECK(both.proxy.begin_end());
  CHECK(idle.receive_all().empty());
  backend.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  const std::string answer = busy.receive_all();
  CHECK(answer.ends_with("Connection: close\r\n\r\nok"));
  for (Peer* peer : {&idle, &busy, &backend}) peer->close();
  CHECK(both.proxy.wait() == 0);
}
#endif
