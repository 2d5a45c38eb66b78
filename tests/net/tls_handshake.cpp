#include <doctest/doctest.h>

#include <fstream>
#include <functional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../support/net_server.h"
#include "../support/tls.h"
#include "../support/tls_server.h"

using namespace weir;
using namespace weir::test;

namespace {

/// What the making of a context says is wrong.
template <class Function>
std::string complaint(Function function) {
  try {
    function();
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

Talk peer_talks(const SocketAddress& address, const std::function<void(SSL_CTX*)>& set_up) {
  Talk heard;
  try {
    TlsPeer peer(Peer::connect(address), false, set_up);
    peer.shake_hands();
    peer.send("hello");
    CHECK(peer.receive_exactly(5) == "hello");
    heard.info.version = ::SSL_get_version(peer.ssl());
  } catch (const std::runtime_error& error) {
    heard.error = error.what();
  }
  return heard;
}

}  // namespace

TEST_CASE("a context says which file is wrong, and how") {
  const Credentials& credentials = Credentials::instance();
  TlsServerOptions options = credentials.server();
  options.certificate_file = "/nowhere/chain.pem";
  std::string text = complaint([&] { (void)TlsContext::server(options); });
  CHECK(text.find("/nowhere/chain.pem") != std::string::npos);
  CHECK(text.find("No such file") != std::string::npos);

  options = credentials.server();
  options.private_key_file = credentials.client_key_file;
  text = complaint([&] { (void)TlsContext::server(options); });
  CHECK(text.find("does not belong to") != std::string::npos);

  options = credentials.server();
  options.private_key_file = credentials.certificate_file;
  text = complaint([&] { (void)TlsContext::server(options); });
  CHECK(text.find("no private key") != std::string::npos);

  options = credentials.server();
  options.ciphers = "TLS_ROT13";
  text = complaint([&] { (void)TlsContext::server(options); });
  CHECK(text.find("TLS_ROT13") != std::string::npos);

  text = complaint([&] { (void)TlsContext::client({.ca_file = "/nowhere/ca.pem"}); });
  CHECK(text.find("/nowhere/ca.pem") != std::string::npos);
  text = complaint([&] {
    const TlsContext client = client_context();
    const TcpServer server({.address = loopback(), .tls = &client});
  });
  CHECK(text.find("client's context") != std::string::npos);
}

namespace {

/// A certificate that is not to be accepted: of a server, or of a client.
struct BadCertificate {
  const char* kind;
  const char* reason;  // that a client gives; empty: nothing that concerns clients
  const char* alert;   // that a client hears; empty: it is right for a client
  Certificate::Options options = {};
  const Certificate* issuer = nullptr;           // nullptr: itself
  std::vector<const Certificate*> shown = {};    // behind it
  std::vector<const Certificate*> trusted = {};  // empty: the authority of the tests
};

/// Files of one of them, and of who trusts its roots.
struct BadFiles {
  BadFiles(const BadCertificate& bad, const char* wrong_usage) {
    Certificate::Options options = bad.options;
    if (!options.usage.empty()) options.usage = wrong_usage;
    const Certificate own(options, bad.issuer);
    own.write_certificate(certificate);
    for (const Certificate* next : bad.shown) next->write_certificate(certificate, "a");
    own.write_key(key);
    if (bad.trusted.empty()) Credentials::instance().authority.write_certificate(trusted);
    for (const Certificate* root : bad.trusted) root->write_certificate(trusted, "a");
  }

  Directory directory;
  std::string certificate = directory.file("certificate");
  std::string key = directory.file("key");
  std::string trusted = directory.file("trusted");
};

const std::vector<BadCertificate>& bad_certificates() {
  static const Certificate& root = Credentials::instance().authority;
  static const Certificate stranger({.name = "a stranger", .alternative = {}, .authority = true});
  static const Certificate weak(
      {.name = "weak", .alternative = {}, .authority = true, .rsa_bits = 1024});
  static const Certificate no_authority({.name = "no authority"}, &root);
  static const Certificate between({.name = "between", .alternative = {}, .authority = true},
                                   &root);
  static const Certificate broken(
      {.name = "broken", .alternative = {}, .authority = true, .sha1 = true}, &weak);
  static const std::vector<BadCertificate> all = {
      {"expired", "has expired", "certificate expired", {.from = -7200, .to = -3600}, &root},
      {"not yet valid", "not yet valid", "bad certificate", {.from = 3600, .to = 7200}, &root},
      {"another name", "ostname mismatch", "", {.alternative = "DNS:elsewhere.example"}, &root},
      {"wildcards", "ostname mismatch", "", {.alternative = "DNS:*.localhost,DNS:*,DNS:l*"}, &root},
      {"self-signed", "self", "unknown ca"},
      {"unknown authority", "local issuer certificate", "unknown ca", {}, &stranger},
      {"other purpose", "certificate purpose", "unsupported certificate", {.usage = "…"}, &root},
      {"no authority", "invalid CA", "unknown ca", {}, &no_authority, {&no_authority}},
      {"missing chain", "local issuer certificate", "unknown ca", {}, &between},
      {"weak key", "key too weak", "bad certificate", {}, &weak, {}, {&weak}},
      {"SHA-1", "digest algorithm too weak", "bad certificate", {}, &broken, {}, {&weak, &broken}},
  };
  return all;
}

}  // namespace

TEST_CASE("certificates that do not prove the name are refused, each with its reason") {
  on_each_engine([]() -> Task<> {
    for (const BadCertificate& bad : bad_certificates()) {
      CAPTURE(bad.kind);
      const BadFiles files(bad, "clientAuth");
      Serving serving(TlsContext::server(
          {.certificate_file = files.certificate, .private_key_file = files.key}));
      const TlsContext trusting = TlsContext::client({.ca_file = files.trusted});
      Talk heard = co_await talk(serving.server->address(), trusting);
      INFO(heard.error);
      CHECK(heard.error.find(bad.reason) != std::string::npos);
      CHECK(heard.code.category() == tls_category());
      TlsClientOptions careless;
      careless.verify = false;
      heard = co_await talk(serving.server->address(), TlsContext::client(careless));
      CHECK(heard.error.empty());
      co_await serving.end();
    }
  });
}

TEST_CASE("clients' certificates that prove nothing are refused, each with its reason") {
  on_each_engine([]() -> Task<> {
    for (const BadCertificate& bad : bad_certificates()) {
      CAPTURE(bad.kind);
      const BadFiles files(bad, "serverAuth");
      TlsServerOptions options = Credentials::instance().server();
      options.client_ca_file = files.trusted;
      Serving serving(TlsContext::server(options));
      TlsClientOptions client = Credentials::instance().client();
      client.certificate_file = files.certificate;
      client.private_key_file = files.key;
      const Talk heard = co_await talk(serving.server->address(), TlsContext::client(client));
      INFO(heard.error);
      CHECK(heard.error.find(bad.alert) != std::string::npos);
      CHECK(heard.error.empty() == (*bad.alert == '\0'));
      co_await serving.end();
      const bool refused = *bad.alert != '\0';
      CHECK(serving.server->metrics().failed_handshakes == (refused ? 1 : 0));
      CHECK(serving.server->metrics().handshakes == (refused ? 0 : 1));
    }
  });
}

TEST_CASE("the name of a certificate's subject counts where it names no host otherwise") {
  on_each_engine([]() -> Task<> {
    const Credentials& credentials = Credentials::instance();
    const Directory directory;
    for (const std::string& alternative : {std::string(), std::string("DNS:elsewhere.example")}) {
      CAPTURE(alternative);
      credentials.write({.name = "localhost", .alternative = alternative}, directory.file("c"),
                        directory.file("k"));
      Serving serving(TlsContext::server(
          {.certificate_file = directory.file("c"), .private_key_file = directory.file("k")}));
      const Talk heard = co_await talk(serving.server->address(), client_context());
      CHECK(heard.error.empty() == alternative.empty());
      co_await serving.end();
    }
  });
}

TEST_CASE("names that the client asks for choose the certificate") {
  on_each_engine([]() -> Task<> {
    const Credentials& credentials = Credentials::instance();
    const Directory directory;
    credentials.write({.name = "one", .alternative = "DNS:one.example"}, directory.file("1"),
                      directory.file("1k"));
    credentials.write({.name = "many", .alternative = "DNS:*.many.example"}, directory.file("2"),
                      directory.file("2k"));
    Serving serving(server_context());
    serving.context.add({"one.example"}, directory.file("1"), directory.file("1k"));
    serving.context.add({"*.many.example"}, directory.file("2"), directory.file("2k"));
    const SocketAddress address = serving.server->address();
    for (const auto& [name, subject] : {std::pair{"one.example", "CN=one"},
                                        {"ONE.example", "CN=one"},
                                        {"a.many.example", "CN=many"},
                                        {"localhost", "CN=localhost"}}) {
      const Talk heard = co_await talk(address, client_context(), name);
      CAPTURE(name);
      CHECK(heard.error == "");
      CHECK(heard.info.peer_subject == subject);
      CHECK(heard.info.server_name == name);
    }
    const Talk unknown = co_await talk(address, client_context(), "a.b.many.example");
    CHECK(unknown.error.find("ostname mismatch") != std::string::npos);
    co_await serving.end();
  });
}

TEST_CASE("protocols, versions and ciphers are agreed on, or it ends with the reason") {
  on_each_engine([]() -> Task<> {
    TlsServerOptions options = Credentials::instance().server();
    options.alpn = {"h2", "http/1.1"};
    Serving serving(TlsContext::server(options));
    TlsClientOptions client = Credentials::instance().client();
    client.alpn = {"spdy", "http/1.1"};
    Talk heard = co_await talk(serving.server->address(), TlsContext::client(client));
    CHECK(heard.error == "");
    CHECK(heard.info.alpn == "http/1.1");
    client.alpn = {"spdy"};
    heard = co_await talk(serving.server->address(), TlsContext::client(client));
    CHECK(heard.error.find("no application protocol") != std::string::npos);
    co_await serving.end();

    options = Credentials::instance().server();
    options.ciphers = "TLS_CHACHA20_POLY1305_SHA256:ECDHE-ECDSA-AES256-GCM-SHA384";
    Serving picky(TlsContext::server(options));
    heard = co_await talk(picky.server->address(), client_context());
    CHECK(heard.info.cipher == "TLS_CHACHA20_POLY1305_SHA256");
    const SocketAddress address = picky.server->address();
    const auto with_1_2 = [&] {
      return peer_talks(address,
                        [](SSL_CTX* c) { ::SSL_CTX_set_max_proto_version(c, TLS1_2_VERSION); });
    };
    heard = co_await in_thread(with_1_2);
    CHECK(heard.error == "");
    CHECK(heard.info.version == "TLSv1.2");
    co_await picky.end();

    options = Credentials::instance().server();
    options.minimum_version = TlsVersion::v1_3;
    Serving modern(TlsContext::server(options));
    const SocketAddress there = modern.server->address();
    const auto old = [&] {
      return peer_talks(there,
                        [](SSL_CTX* c) { ::SSL_CTX_set_max_proto_version(c, TLS1_2_VERSION); });
    };
    heard = co_await in_thread(old);
    CHECK(heard.error.find("protocol version") != std::string::npos);
    co_await modern.end();
  });
}

TEST_CASE("a client without a certificate that is trusted is no client") {
  on_each_engine([]() -> Task<> {
    const Credentials& credentials = Credentials::instance();
    TlsServerOptions options = credentials.server();
    options.client_ca_file = credentials.ca_file;
    const TlsContext context = TlsContext::server(options);
    TcpServer server(EventLoop::current(), {.address = loopback(), .tls = &context});
    std::string subject;
    server.start([&](TcpConnection conn) -> Task<> {
      subject = tls_info(conn)->peer_subject;
      co_await echo(std::move(conn));
    });
    TlsClientOptions client = credentials.client();
    Talk heard = co_await talk(server.address(), TlsContext::client(client));
    CHECK(heard.error.find("certificate required") != std::string::npos);
    CHECK(subject.empty());
    client.certificate_file = credentials.client_certificate_file;
    client.private_key_file = credentials.client_key_file;
    heard = co_await talk(server.address(), TlsContext::client(client));
    CHECK(heard.error == "");
    CHECK(subject == "CN=a client");
    (void)co_await server.drain(10s);
  });
}

TEST_CASE("whatever is no ClientHello is refused, and others are served") {
  on_each_engine([]() -> Task<> {
    Serving serving(server_context());
    const SocketAddress address = serving.server->address();
    for (const std::string& said :
         {std::string("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), pattern(20'000),
          std::string(300, '\0'), std::string("\x16\x03\x01\xff\xff", 5) + pattern(70'000)}) {
      const auto refused = [&] {
        Peer peer = Peer::connect(address);
        try {
          peer.send(said);
          return peer.receive_all();
        } catch (const std::system_error&) {
          return std::string();  // reset: it said more than anybody read
        }
      };
      const std::string answer = co_await in_thread(refused);
      CHECK((answer.empty() || answer.front() == '\x15'));  // an alert, or nothing
    }
    co_await turn_until([&] { return serving.server->metrics().failed_handshakes == 4; });
    const Talk heard = co_await talk(address, client_context());
    CHECK(heard.error == "");
    CHECK(serving.server->handler_failures() == 0);
    co_await serving.end();
  });
}

TEST_CASE("a handshake that is slow is cut off, and counts against the limits meanwhile") {
  on_each_engine([]() -> Task<> {
    TlsServerOptions options = Credentials::instance().server();
    options.handshake_timeout = 200ms;
    Serving serving(TlsContext::server(options), {.max_connections = 2});
    const SocketAddress address = serving.server->address();
    std::uint64_t slow_ones = 0;
    const auto dawdle = [&] {
      // Once more, where the machine was so slow that one was cut off before the third was there.
      while (serving.server->refused() == 0) {
        Peer silent = Peer::connect(address);
        TlsPeer slow(Peer::connect(address), false);
        try {
          ::SSL_do_handshake(slow.ssl());
          slow.peer().send(slow.take_output().substr(0, 100));
        } catch (const std::system_error&) {  // cut off already
        }
        Peer third = Peer::connect(address);
        (void)third.wait_for_end();
        // Until the server gives them up.
        (void)silent.wait_for_end();
        (void)slow.peer().wait_for_end();
        slow_ones += serving.server->refused() == 0 ? 3 : 2;
        while (serving.server->metrics().failed_handshakes < slow_ones ||
               serving.server->connection_count() > 0) {
          yield_thread();
        }
      }
    };
    co_await in_thread(dawdle);
    CHECK(serving.server->refused() == 1);
    co_await turn_until([&] { return serving.server->connection_count() == 0; });
    CHECK(serving.server->metrics().failed_handshakes == slow_ones);
    for (bool again = true; again;) {
      const TimePoint begin = time_now();
      const Talk heard = co_await talk(address, client_context());
      again = heard.error != "" && time_now() - begin >= options.handshake_timeout;
      if (!again) CHECK(heard.error == "");
    }
    co_await serving.end();
  });
}

TEST_CASE("records that come byte by byte, or two and one apart, are the same records") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t part : {1U, 2U, 3U}) {
      CAPTURE(part);
      auto [conn, plain] = connect_pair();
      TlsPeer peer(std::move(plain), false);
      const TlsContext context = server_context();
      const auto upgrade = [](TcpConnection& c, const TlsContext& with) -> Task<> {
        co_await start_tls(c, with);
        while (Chunk chunk = co_await c.read()) co_await c.send(std::move(chunk));
      };
      TaskGroup group;
      group.spawn(upgrade(conn, context));
      const auto in_parts = [&](const std::string& bytes) {
        for (std::size_t at = 0; at < bytes.size(); at += part) {
          peer.peer().send(std::string_view(bytes).substr(at, part));
          yield_thread();
        }
      };
      const auto agree = [&] {
        for (;;) {
          const int result = ::SSL_do_handshake(peer.ssl());
          in_parts(peer.take_output());
          if (result == 1) return;
          if (!peer.fill()) throw std::runtime_error("the stream ended");
        }
      };
      co_await in_thread(agree);
      const auto exchange = [&] {
        std::string records = peer.sealed("hello");
        records += peer.sealed(" there");
        records += peer.sealed(pattern(2000));
        in_parts(records);
        return peer.receive_exactly(2011);
      };
      const std::string got = co_await in_thread(exchange);
      CHECK(got == "hello there" + pattern(2000));
      const auto end = [&] {
        peer.say_end();
        peer.peer().shutdown_send();
      };
      co_await in_thread(end);
      co_await group.join();
    }
  });
}

TEST_CASE("a reload is for those who come, and bad files change nothing") {
  on_each_engine([]() -> Task<> {
    const Credentials& credentials = Credentials::instance();
    const Directory directory;
    const TlsServerOptions files{.certificate_file = directory.file("c"),
                                 .private_key_file = directory.file("k")};
    credentials.write({.name = "old", .alternative = "DNS:localhost"}, files.certificate_file,
                      files.private_key_file);
    Serving serving(TlsContext::server(files));
    const SocketAddress address = serving.server->address();
    Talk heard = co_await talk(address, client_context());
    CHECK(heard.info.peer_subject == "CN=old");
    credentials.write({.name = "new", .alternative = "DNS:localhost"}, files.certificate_file,
                      files.private_key_file);
    heard = co_await talk(address, client_context());
    CHECK(heard.info.peer_subject == "CN=old");
    serving.context.reload();
    heard = co_await talk(address, client_context());
    CHECK(heard.info.peer_subject == "CN=new");
    std::ofstream(files.certificate_file) << "nothing";
    CHECK(complaint([&] { serving.context.reload(); }).find(files.certificate_file) !=
          std::string::npos);
    heard = co_await talk(address, client_context());
    CHECK(heard.info.peer_subject == "CN=new");
    co_await serving.end();
  });
}

TEST_CASE("reloads from another thread break no handshake") {
  for_each_engine([](Engine engine) {
    const TlsContext context = server_context();
    ServerOptions options = server_options(engine, 2);
    options.tls = &context;
    ServerThread server(options, &echo);
    std::atomic<bool> over = false;
    std::atomic<int> reloads = 0;
    std::thread reloading([&] {
      for (; !over; ++reloads) context.reload();
    });
    EventLoop loop(LoopOptions{.engine = engine});
    const auto clients = [&]() -> Task<> {
      const int wanted = kSanitized ? 100 : 1000;
      for (int i = 0; i < 50 || reloads < wanted; ++i) {
        const Talk heard = co_await talk(server->address(), client_context());
        CHECK(heard.error == "");
      }
    };
    loop.run_until_complete(clients());
    over = true;
    reloading.join();
    CHECK(server->metrics().failed_handshakes == 0);
  });
}

TEST_CASE("a client comes back with its session, on any loop of the server") {
  for_each_engine([](Engine engine) {
    const TlsContext context = server_context();
    ServerOptions options = server_options(engine, 2);
    options.tls = &context;
    ServerThread server(options, &echo);
    EventLoop loop(LoopOptions{.engine = engine});
    const auto clients = [&]() -> Task<> {
      const TlsContext client = client_context();
      int resumed = 0;
      for (int i = 0; i < 20; ++i) {
        const Talk heard = co_await talk(server->address(), client);
        CHECK(heard.error == "");
        resumed += heard.info.resumed ? 1 : 0;
      }
      CHECK(resumed == 19);
    };
    loop.run_until_complete(clients());
  });
}

TEST_CASE("STARTTLS takes nothing that was slipped in before for protected") {
  on_each_engine([]() -> Task<> {
    auto [conn, plain] = connect_pair();
    const TlsContext context = server_context();
    plain.send("STARTTLS\r\nDELETE EVERYTHING\r\n");
    const Chunk line = co_await conn.read_until("\r\n", 100);
    CHECK(line.view() == "STARTTLS\r\n");
    co_await conn.send("go ahead\r\n");
    const auto [error, nothing] = co_await as_tuple(start_tls(conn, context));
    CHECK(error == std::errc::protocol_error);
    CHECK_FALSE(tls_info(conn));
  });
}

TEST_CASE("start_tls on a connection that was closed or shut down before fails at once") {
  on_each_engine([]() -> Task<> {
    const TlsContext context = server_context();
    for (const bool closes : {true, false}) {
      auto [conn, plain] = connect_pair();
      if (closes) {
        conn.close();
      } else {
        co_await conn.shutdown();
      }
      const auto [error, nothing] = co_await as_tuple(start_tls(conn, context));
      CHECK(error == std::errc::broken_pipe);
    }
  });
}

TEST_CASE("what others send in the turn in which start_tls goes on is protected, and whole") {
  on_each_engine([]() -> Task<> {
    Linked pair = link_pair();
    const TlsContext context = server_context();
    const auto send_behind = [](TcpConnection& conn) -> Task<> {
      std::string line(600, '.');
      co_await conn.flush();
      co_await conn.send(std::move(line));
    };
    const auto upgrade = [](TcpConnection& conn, const TlsContext& with) -> Task<> {
      co_await start_tls(conn, with);
    };
    co_await pair.a.send("go ahead\r\n");
    TaskGroup group;
    group.spawn(send_behind(pair.a));
    group.spawn(upgrade(pair.a, context));
    const Chunk ahead = co_await pair.b.read_until("\r\n", 100);
    CHECK(ahead.view() == "go ahead\r\n");
    co_await start_tls(pair.b, client_context(), {.server_name = "localhost"});
    const Chunk line = co_await pair.b.read_exactly(600);
    CHECK(line.view() == std::string(600, '.'));
    co_await group.join();
  });
}

TEST_CASE("to verify without a name, or to begin twice, is a mistake that is told") {
  on_each_engine([]() -> Task<> {
    Linked pair = co_await tls_pair(server_context(), client_context());
    bool told = false;
    try {
      co_await start_tls(pair.a, client_context(), {.server_name = "localhost"});
    } catch (const std::logic_error&) {
      told = true;
    }
    CHECK(told);
    auto [conn, peer] = connect_pair();
    told = false;
    try {
      co_await start_tls(conn, client_context());
    } catch (const std::invalid_argument&) {
      told = true;
    }
    CHECK(told);
  });
}

TEST_CASE("key updates with data between them lose nothing, however many come at once") {
  on_each_engine([]() -> Task<> {
    Serving serving(server_context());
    const SocketAddress address = serving.server->address();
    const auto talk = [&] {
      TlsPeer peer(Peer::connect(address), false);
      peer.shake_hands();
      std::string all;
      for (int i = 0; i < 300; ++i) {
        ::SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED);
        all += peer.sealed("x");
      }
      peer.peer().send(all);
      return peer.receive_exactly(300) == std::string(300, 'x');
    };
    const bool right = co_await in_thread(talk);
    CHECK(right);
    co_await serving.end();
  });
}

TEST_CASE("a flood of key updates ends the connection") {
  on_each_engine([]() -> Task<> {
    Serving serving(server_context());
    const SocketAddress address = serving.server->address();
    const auto flood = [&] {
      TlsPeer peer(Peer::connect(address), false);
      try {
        peer.shake_hands();
        for (int i = 0; i < 10; ++i) {
          ::SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_REQUESTED);
          peer.send("x");
        }
        CHECK(peer.receive_exactly(10) == std::string(10, 'x'));
        for (int i = 0; i < 10'000; ++i) {
          ::SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_REQUESTED);
          ::SSL_do_handshake(peer.ssl());
          peer.flush();
        }
        return peer.ends();
      } catch (const std::system_error&) {
        return false;  // reset
      }
    };
    const bool clean = co_await in_thread(flood);
    CHECK_FALSE(clean);
    co_await turn_until([&] { return serving.server->connection_count() == 0; });
    co_await serving.end();
  });
}

TEST_CASE(
    "thousands of half-done handshakes take the place of one another, and others are served") {
  on_each_engine([]() -> Task<> {
    constexpr int kCrowd =
        kSanitized ? 1100 : 5000;  // above what is under way on a loop at the same time
    Serving serving(server_context());
    const SocketAddress address = serving.server->address();
    const auto crowd = [&] {
      TlsPeer hello(Peer::connect(address), false);
      ::SSL_do_handshake(hello.ssl());
      const std::string bytes = hello.take_output();
      std::vector<Peer> peers;
      for (int i = 0; i < kCrowd; ++i) {
        peers.push_back(Peer::connect(address));
        peers.back().send(bytes);
      }
      while (serving.server->metrics().failed_handshakes < kCrowd - 1024) yield_thread();
      return peers;
    };
    std::vector<Peer> peers = co_await in_thread(crowd);
    const Talk heard = co_await talk(address, client_context());
    CHECK(heard.error == "");
    CHECK(serving.server->connection_count() <= 1025);
    const auto leave = [&] { peers.clear(); };
    co_await in_thread(leave);
    co_await serving.end();
  });
}

TEST_CASE("a drain lets handshakes end, or cuts them at its limit") {
  on_each_engine([]() -> Task<> {
    Serving serving(server_context());
    const SocketAddress address = serving.server->address();
    auto peer = std::make_unique<TlsPeer>(Peer::connect(address), false);
    co_await turn_until([&] { return serving.server->connection_count() == 1; });
    const auto drain = [](TcpServer& server) -> Task<DrainReport> {
      co_return co_await server.drain(1h);
    };
    Task<DrainReport> draining = drain(*serving.server);
    const auto finish = [&] {
      peer->shake_hands();
      peer->send("last");
      const std::string got = peer->receive_exactly(4);
      peer->say_end();
      peer->peer().shutdown_send();
      return got;
    };
    Task<std::string> finishing = in_thread(finish);
    const auto [report, got] = co_await when_all(std::move(draining), std::move(finishing));
    CHECK(got == "last");
    CHECK(report.finished == 1);
    CHECK(report.forced == 0);
    CHECK(serving.server->connection_count() == 0);

    Serving other(server_context());
    const Peer silent = Peer::connect(other.server->address());
    co_await turn_until([&] { return other.server->connection_count() == 1; });
    const DrainReport cut = co_await other.server->drain(20ms);
    CHECK(cut.finished == 0);
    CHECK(cut.forced == 1);
    CHECK(other.server->connection_count() == 0);
  });
}
