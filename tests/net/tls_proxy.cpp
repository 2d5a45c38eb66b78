// Behind a proxy with TLS; and behind haproxy, with and without.
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../support/child.h"
#include "../support/net_server.h"
#include "../support/tls.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr const char* kHaproxy = "/usr/sbin/haproxy";

Task<> introduce(TcpConnection conn) {
  co_await conn.send(conn.peer_address().to_string() + ' ' + conn.name() + '\n');
  while (Chunk chunk = co_await conn.read()) co_await conn.send(std::move(chunk));
}

/// haproxy between a listening socket of ours and a server.
class Haproxy {
 public:
  Haproxy(const SocketAddress& server, const std::string& how) : file_(directory_.file("cfg")) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);  // which it inherits
    const SocketAddress any = loopback();
    REQUIRE(::bind(listener_, reinterpret_cast<const sockaddr*>(any.raw().bytes), any.raw().size) ==
            0);
    REQUIRE(::listen(listener_, 16) == 0);
    std::ofstream(file_) << "global\n maxconn 100\n nbthread 1\n"
                            "defaults\n mode tcp\n timeout connect 100s\n timeout client 100s\n"
                            " timeout server 100s\n"
                            "listen weir\n bind fd@"
                         << listener_ << "\n server s " << server.to_string() << ' ' << how << '\n';
    child_.emplace(kHaproxy, std::vector<std::string>{"-db", "-f", file_});
    sockaddr_in bound{};
    socklen_t size = sizeof bound;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&bound), &size);
    address_ = any.with_port(ntohs(bound.sin_port));
    ::close(listener_);
  }
  [[nodiscard]] Peer connect() const { return Peer::connect(address_); }
  [[nodiscard]] const SocketAddress& address() const { return address_; }

 private:
  Directory directory_;
  std::string file_;
  int listener_ = -1;
  SocketAddress address_;
  std::optional<Child> child_;
};

bool haproxy_is_here() {
  const bool here = ::access(kHaproxy, X_OK) == 0;
  if (!here) MESSAGE("skipped: haproxy is not here");
  return here;
}

ServerOptions behind_proxy(Engine engine, const TlsContext* tls) {
  ServerOptions options = server_options(engine, 2);
  options.proxy_trusted = {"127.0.0.1"};
  options.max_connections_per_peer = 4;
  options.tls = tls;
  return options;
}

}  // namespace

TEST_CASE("with TLS a PROXY header comes before it, in pieces or with the first of its bytes") {
  on_each_engine([]() -> Task<> {
    const TlsContext secure = server_context();
    const TlsContext trusting = client_context();
    ServerOptions options;
    options.address = loopback();
    options.proxy_trusted = {"127.0.0.1"};
    options.tls = &secure;
    TcpServer server(EventLoop::current(), std::move(options));
    server.start(introduce);
    const SocketAddress client = SocketAddress::parse("[2001:db8::9]:5");
    const std::string header = proxy_header(client, client);
    const std::string wanted = "[2001:db8::9]:5 server-[2001:db8::9]:5#";
    ConnectOptions with;
    with.tls = &trusting;
    with.server_name = "localhost";
    with.proxy_header = header;
    TcpConnection conn = co_await connect(server.address().to_string(), with);
    const Chunk line = co_await conn.read_until("\n", 100);
    CHECK(line.view() == wanted + "1\n");
    co_await conn.send("text");
    const Chunk back = co_await conn.read_exactly(4);
    CHECK(back.view() == "text");
    co_await conn.shutdown();
    const Chunk end = co_await conn.read();
    CHECK(end.is_end());
    for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, header.size() - 1}) {
      const auto talk = [&] {
        TlsPeer peer(Peer::connect(server.address()), false);
        ::SSL_do_handshake(peer.ssl());
        peer.peer().send(header.substr(0, cut));
        peer.peer().send(header.substr(cut) + peer.take_output());
        peer.shake_hands();
        return peer.receive_exactly(wanted.size());
      };
      const std::string got = co_await in_thread(talk);
      CHECK(got == wanted);
    }
    CHECK(server.metrics().handshakes == 4);
    CHECK(server.metrics().bytes_in == 4);  // neither the header nor what TLS is made of
    const auto without = [&] {
      TlsPeer peer(Peer::connect(server.address()), false);
      return text_of<std::runtime_error>([&] { peer.shake_hands(); });
    };
    const std::string refused = co_await in_thread(without);
    CHECK_FALSE(refused.empty());
  });
}

TEST_CASE("behind haproxy the client is the client, by each version of its header") {
  if (!haproxy_is_here()) return;
  for_each_engine([](Engine engine) {
    ServerThread server(behind_proxy(engine, nullptr), &introduce);
    for (const char* how :
         {"send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"}) {
      CAPTURE(how);
      const Haproxy haproxy(server->address(), how);
      std::vector<Peer> peers;
      for (int i = 0; i < 3; ++i) {
        peers.push_back(haproxy.connect());
        const std::string client = peers.back().local_address().to_string();
        CHECK(peers.back().receive_exactly(client.size() + 8 + client.size()) ==
              client + " server-" + client);
      }
      for (Peer& peer : peers) {
        peer.shutdown_send();
        (void)peer.receive_all();
      }
    }
    CHECK(server->metrics().failed_handshakes == 0);
  });
}

TEST_CASE("haproxy passes TLS on behind its header, and speaks it itself") {
  if (!haproxy_is_here()) return;
  const Credentials& credentials = Credentials::instance();
  for_each_engine([&](Engine engine) {
    const TlsContext secure = server_context();
    ServerThread server(behind_proxy(engine, &secure), &introduce);
    {
      const Haproxy haproxy(server->address(), "send-proxy-v2");
      TlsPeer peer(haproxy.connect(), false);
      peer.shake_hands();
      const std::string client = peer.peer().local_address().to_string();
      CHECK(peer.receive_exactly(client.size()) == client);
    }
    const Haproxy haproxy(
        server->address(),
        "send-proxy ssl verify required verifyhost localhost ca-file " + credentials.ca_file);
    Peer peer = haproxy.connect();
    const std::string client = peer.local_address().to_string();
    CHECK(peer.receive_exactly(client.size()) == client);
    CHECK(server->metrics().failed_handshakes == 0);
    CHECK(server->metrics().handshakes == 2);
  });
}
