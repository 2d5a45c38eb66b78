// A server behind a proxy: plain sockets that begin with a PROXY header.
#include <weir/sim.h>

#include <doctest/doctest.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

const SocketAddress kClient = SocketAddress::parse("203.0.113.7:4711");
const SocketAddress kService = SocketAddress::parse("198.51.100.1:443");

ServerOptions behind_proxy(std::size_t threads = 1) {
  ServerOptions options;
  options.address = loopback();
  options.threads = threads;
  options.proxy_trusted = {"127.0.0.0/8", "unix:"};
  return options;
}

/// Tells who the client is, then echoes.
Task<> introduce(TcpConnection conn) {
  co_await conn.send(conn.peer_address().to_string() + '\n');
  while (Chunk chunk = co_await conn.read()) co_await conn.send(std::move(chunk));
}

std::string line_from(Peer& peer) {
  std::string line;
  while (!line.ends_with('\n')) {
    const std::string more = peer.receive_exactly(1);
    if (more.empty()) return line + " and the end";
    line += more;
  }
  line.pop_back();
  return line;
}

/// What a client is told that begins so, with so many bytes in each of its sends.
Task<std::string> told(SocketAddress address, std::string bytes, std::size_t at_once = 1000) {
  const auto talk = [&] {
    Peer peer = Peer::connect(address);
    for (std::size_t i = 0; i < bytes.size(); i += at_once) peer.send(bytes.substr(i, at_once));
    std::string line = line_from(peer);
    return line == peer.local_address().to_string() ? "its own" : line;
  };
  co_return co_await in_thread(talk);
}

/// How a connection ends that begins so: what it gets before, and how.
Task<std::string> end_of(SocketAddress address, std::string bytes, bool half_close = false) {
  const auto talk = [&] {
    Peer peer = Peer::connect(address);
    if (!bytes.empty()) peer.send(bytes);
    if (half_close) peer.shutdown_send();
    int error = 0;
    std::string got = peer.receive_all(&error);
    return got + (error == 0 || error == ECONNRESET ? "closed" : std::to_string(error));
  };
  co_return co_await in_thread(talk);
}

/// Begins a header, and no more; says whether it is closed in time.
Task<> begin_and_wait(std::string& end) {
  TcpConnection conn = co_await connect("10.0.0.1:80");
  co_await conn.send("PROXY TCP4 1.2.3.4 ");
  const TimePoint begun = time_now();
  auto [error, chunk] = co_await as_tuple(conn.read());
  const bool in_time = time_now() - begun < 11s && time_now() - begun > 9s;
  end = error == std::errc::connection_reset && in_time ? "in time" : error.message();
}

}  // namespace

TEST_CASE("a client behind a trusted proxy is who the header says, on one loop and on several") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t threads : {1UL, 2UL}) {
      TcpServer server(EventLoop::current(), behind_proxy(threads));
      server.start(introduce);
      const std::string hello = "hello";
      for (const int version : {1, 2}) {
        const std::string header = proxy_header(kClient, kService, version);
        const auto talk = [&] {
          Peer peer = Peer::connect(server.address());
          peer.send(header + hello);  // data comes with it
          std::string all = line_from(peer) + ' ';
          all += peer.receive_exactly(5);
          return all + (echoes(peer, "more") ? " more" : "");
        };
        const std::string got = co_await in_thread(talk);
        CHECK(got == "203.0.113.7:4711 hello more");
      }
      const std::string local = co_await told(server.address(), "PROXY UNKNOWN\r\n");
      CHECK(local == "its own");
      co_await turn_until([&] { return server.connection_count() == 0; });
      const ServerMetrics metrics = server.metrics();
      CHECK(metrics.bytes_in == 2 * (5 + 4));  // the header is not the handler's
      CHECK(metrics.failed_handshakes == 0);
    }
  });
}

TEST_CASE("a PROXY header may be split anywhere, and the handler may speak first") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), behind_proxy());
    server.start(introduce);
    for (const int version : {1, 2}) {
      const std::string header = proxy_header(kClient, kService, version);
      for (std::size_t at = 1; at < header.size(); ++at) {
        // The second part goes once the first is with the server.
        Peer peer = Peer::connect(server.address());
        const std::uint64_t before = completions();
        peer.send(header.substr(0, at));
        co_await completed(before);
        peer.send(header.substr(at));
        const auto listen = [&peer] { return line_from(peer); };
        const std::string line = co_await in_thread(listen);
        CHECK(line == "203.0.113.7:4711");
      }
      const std::string line = co_await told(server.address(), header, 1);
      CHECK(line == "203.0.113.7:4711");
    }
  });
}

TEST_CASE("a connection of a proxy without a right header is closed, counted and logged") {
  CapturedLog log;
  on_each_engine([&]() -> Task<> {
    int handled = 0;
    TcpServer server(EventLoop::current(), behind_proxy());
    server.start([&](TcpConnection conn) -> Task<> {
      ++handled;
      (void)co_await conn.read();
    });
    const std::string oversized("\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", 16);
    const std::string unknown_family("\r\n\r\n\0\r\nQUIT\n\x21\x41\x00\x0c", 16);
    std::uint64_t failed = 0;
    const std::vector<std::string> wrong = {
        "GET / HTTP/1.1\r\n\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n", oversized,
        unknown_family, "PROXY UNKNOWN " + std::string(200, 'x')};
    for (const std::string& bytes : wrong) {
      const std::string end = co_await end_of(server.address(), bytes);
      CHECK(end == "closed");
      CHECK(server.metrics().failed_handshakes == ++failed);
    }
    for (const char* cut_short : {"", "PROXY TCP4 1.2"}) {
      const std::string end = co_await end_of(server.address(), cut_short, true);
      CHECK(end == "closed");
      CHECK(server.metrics().failed_handshakes == ++failed);
    }
    co_await turn_until([&] { return server.connection_count() == 0; });
    CHECK(handled == 0);
    CHECK(server.handler_failures() == 0);
  });
  CHECK(log.count("does not begin with a PROXY header") > 0);
  CHECK(log.count("server-127.0.0.1:") > 0);
  CHECK(log.errors() == 0);
}

TEST_CASE("a PROXY header from whom the server does not trust is data") {
  on_each_engine([]() -> Task<> {
    ServerOptions options = behind_proxy();
    options.proxy_trusted = {"10.0.0.0/8", "::1"};
    TcpServer server(EventLoop::current(), std::move(options));
    server.start(introduce);
    const std::string header = proxy_header(kClient, kService, 1);
    const auto talk = [&] {
      Peer peer = Peer::connect(server.address());
      peer.send(header);
      const bool own = line_from(peer) == peer.local_address().to_string();
      return own && peer.receive_exactly(header.size()) == header;
    };
    const bool right = co_await in_thread(talk);
    CHECK(right);
  });
}

TEST_CASE("max_connections_per_peer counts the clients behind a proxy, max_connections all") {
  on_each_engine([]() -> Task<> {
    ServerOptions options = behind_proxy();
    options.max_connections_per_peer = 1;
    options.max_connections = 4;
    TcpServer server(EventLoop::current(), std::move(options));
    server.start(introduce);
    const auto of = [](const char* client) {
      return proxy_header(SocketAddress::parse(client), kService);
    };
    std::vector<Peer> peers;
    const auto add = [&](const std::string& header) {
      peers.push_back(Peer::connect(server.address()));
      peers.back().send(header);
      return line_from(peers.back());
    };
    for (const char* client : {"203.0.113.1:1", "203.0.113.2:1"}) {
      const auto talk = [&] { return add(of(client)); };
      const std::string line = co_await in_thread(talk);
      CHECK(line == client);
    }
    const std::string second = co_await end_of(server.address(), of("203.0.113.1:2"));
    CHECK(second == "closed");
    CHECK(server.refused() == 1);
    // The proxy's own connections are a peer as well.
    const auto check_health = [&] { return add("PROXY UNKNOWN\r\n"); };
    const std::string own = co_await in_thread(check_health);
    CHECK(own == peers.back().local_address().to_string());
    const std::string again = co_await end_of(server.address(), "PROXY UNKNOWN\r\n");
    CHECK(again == "closed");
    CHECK(server.refused() == 2);
    // One that has not said anything takes a place as well.
    co_await turn_until([&] { return server.connection_count() == 3; });
    peers.push_back(Peer::connect(server.address()));
    co_await turn_until([&] { return server.connection_count() == 4; });
    const std::string beyond = co_await end_of(server.address(), {});
    CHECK(beyond == "closed");
    CHECK(server.refused() == 3);
    // Each place is given back once, whoever had it.
    peers.clear();
    co_await turn_until([&] { return server.connection_count() == 0; });
    for (const char* client : {"203.0.113.1:1", "203.0.113.2:1"}) {
      const auto talk = [&] { return add(of(client)); };
      const std::string line = co_await in_thread(talk);
      CHECK(line == client);
    }
  });
}

TEST_CASE("what is sent to a connection before its PROXY header is there goes behind it") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), behind_proxy());
    server.start(introduce);
    Peer peer = Peer::connect(server.address());
    co_await turn_until([&] { return server.connection_count() == 1; });
    std::string name;
    server.for_each_connection([&](TcpConnection& conn) {
      name = conn.name();
      (void)conn.sender().try_send("to all\n");
    });
    co_await turn_until([&] { return !name.empty(); });
    CHECK(name == "server-" + peer.local_address().to_string() + "#1");
    co_await turns(3);
    CHECK(peer.receive_now().empty());
    peer.send(proxy_header(kClient, kService));
    const auto listen = [&peer] {
      const std::string first = line_from(peer);
      return first + ' ' + line_from(peer);
    };
    const std::string lines = co_await in_thread(listen);
    CHECK(lines == "to all 203.0.113.7:4711");
    server.for_each_connection([&](TcpConnection& conn) { name = conn.name(); });
    co_await turn_until([&] { return name == "server-203.0.113.7:4711#1"; });
  });
}

TEST_CASE("a drain resets, at its limit, who has not sent his PROXY header") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), behind_proxy());
    server.start(introduce);
    Peer peer = Peer::connect(server.address());
    peer.send("PROXY ");
    co_await turn_until([&] { return server.connection_count() == 1; });
    const DrainReport report = co_await server.drain(30ms);
    CHECK(report.forced == 1);
    CHECK(report.finished == 0);
    CHECK(server.connection_count() == 0);
    const auto end = [&peer] { return peer.wait_for_end(); };
    const int error = co_await in_thread(end);
    CHECK(error == ECONNRESET);
  });
}

TEST_CASE("a client of a Unix socket is who its proxy says, also one of a Unix socket") {
  on_each_kernel_engine("it has no Unix sockets", []() -> Task<> {
    ServerOptions options = behind_proxy();
    options.address = SocketAddress::parse("unix:@weir-proxy-" + std::to_string(::getpid()));
    options.max_connections_per_peer = 5;
    TcpServer server(EventLoop::current(), std::move(options));
    server.start(introduce);
    const SocketAddress local = SocketAddress::parse("unix:/run/web.sock");
    for (const SocketAddress& client : {kClient, SocketAddress::parse("unix:/run/app")}) {
      const std::string header = proxy_header(client, client.is_unix() ? local : kService);
      const std::string line = co_await told(server.address(), header);
      CHECK(line == client.to_string());
    }
  });
}

TEST_CASE("connect sends a PROXY header before all else") {
  on_each_engine([]() -> Task<> {
    TcpServer server(EventLoop::current(), behind_proxy());
    server.start(introduce);
    for (const int version : {1, 2}) {
      std::string header = proxy_header(kClient, kService, version);
      ConnectOptions options;
      options.proxy_header = header;
      Task<TcpConnection> connecting = connect(server.address().to_string(), options);
      header.assign(header.size(), 'x');  // it has been copied
      TcpConnection conn = co_await std::move(connecting);
      const Chunk line = co_await conn.read_until("\n", 100);
      CHECK(line.view() == "203.0.113.7:4711\n");
    }
  });
}

TEST_CASE("a PROXY header that never comes closes the connection in time") {
  sim::World world({.seed = 1});
  sim::Host& server = world.add_host("10.0.0.1");
  sim::Host& proxy = world.add_host("10.0.0.2");
  const auto serve = []() -> Task<> {
    ServerOptions options;
    options.address = SocketAddress::parse("10.0.0.1:80");
    options.proxy_trusted = {"10.0.0.2"};
    TcpServer listening(EventLoop::current(), std::move(options));
    listening.start(introduce);
    co_await sleep(24h);
  };
  server.spawn(serve());
  std::string end = "none";
  proxy.spawn(begin_and_wait(end));
  world.run_for(1min);
  CHECK(end == "in time");
}
