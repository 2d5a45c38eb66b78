// With what others wrote: the command openssl, curl, nginx, haproxy, ab, wrk, Python, GnuTLS,
// sslscan.
#include <weir/io/kernel_sockets.h>

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../support/child.h"
#include "../support/net_server.h"
#include "../support/tls.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr const char* kOpenssl = "/usr/bin/openssl";
constexpr const char* kCurl = "/usr/bin/curl";
constexpr const char* kNginx = "/usr/sbin/nginx";
constexpr const char* kHaproxy = "/usr/sbin/haproxy";
constexpr const char* kAb = "/usr/bin/ab";
constexpr const char* kWrk = "/usr/bin/wrk";
constexpr const char* kPython = "/usr/bin/python3";
constexpr const char* kGnutls = "/usr/bin/gnutls-cli";
constexpr const char* kGnutlsServer = "/usr/bin/gnutls-serv";
constexpr const char* kSslscan = "/usr/bin/sslscan";

bool is_here(const char* program) {
  const bool here = ::access(program, X_OK) == 0;
  if (!here) MESSAGE("skipped: " << std::string(program) << " is not here");
  return here;
}

std::size_t count(std::string_view text, std::string_view word) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(word, at)) != std::string_view::npos;
       at += word.size()) {
    ++found;
  }
  return found;
}

struct TlsServerThread {
  TlsServerThread(Engine engine, TlsServerOptions options, const TcpServer::Handler& handler)
      : context(TlsContext::server(std::move(options))) {
    ServerOptions with = server_options(engine);
    with.tls = &context;
    server.emplace(std::move(with), handler);
  }
  [[nodiscard]] std::string address() { return (*server)->address().to_string(); }

  TlsContext context;
  std::optional<ServerThread> server;
};

}  // namespace

TEST_CASE("openssl s_client talks to a server, verifies it, and comes back with its session") {
  if (!is_here(kOpenssl)) return;
  const Credentials& credentials = Credentials::instance();
  for_each_engine([&](Engine engine) {
    TlsServerThread server(engine, credentials.server(), &echo);
    for (const std::string version : {"-tls1_2", "-tls1_3"}) {
      CAPTURE(version);
      Child client(kOpenssl,
                   {"s_client", "-connect", server.address(), "-CAfile", credentials.ca_file,
                    "-verify_return_error", "-verify_hostname", "localhost", "-servername",
                    "localhost", "-quiet", "-no_ign_eof", version},
                   Child::Input::written);
      client.write("over and back\n");
      std::string line;
      while (line.find("over") == std::string::npos) line = client.read_line();
      CHECK(line == "over and back");
    }
    Child again(kOpenssl, {"s_client", "-connect", server.address(), "-CAfile", credentials.ca_file,
                           "-tls1_2", "-reconnect"});
    CHECK(count(again.read_all(), "Reused, TLSv1.2") == 5);
    CHECK((*server.server)->metrics().failed_handshakes == 0);
  });
}

TEST_CASE("openssl s_client shows its certificate to a server that asks for it") {
  if (!is_here(kOpenssl)) return;
  const Credentials& credentials = Credentials::instance();
  TlsServerOptions options = credentials.server();
  options.client_ca_file = credentials.ca_file;
  for_each_engine([&](Engine engine) {
    TlsServerThread server(engine, options, [](TcpConnection conn) -> Task<> {
      co_await conn.send("hello, " + tls_info(conn)->peer_subject + "\n");
      (void)co_await conn.read();
    });
    for (const std::string version : {"-tls1_2", "-tls1_3"}) {
      Child client(kOpenssl,
                   {"s_client", "-connect", server.address(), "-CAfile", credentials.ca_file,
                    "-cert", credentials.client_certificate_file, "-key",
                    credentials.client_key_file, "-quiet", version},
                   Child::Input::written);
      std::string line;
      while (line.find("hello") == std::string::npos) line = client.read_line();
      CHECK(line == "hello, CN=a client");
    }
    Child nobody(kOpenssl, {"s_client", "-connect", server.address(), "-CAfile",
                            credentials.ca_file, "-tls1_2"});
    CHECK(nobody.read_all().find("alert handshake failure") != std::string::npos);
  });
}

TEST_CASE("openssl s_server turns around what a client says, at each version") {
  if (!is_here(kOpenssl)) return;
  const Credentials& credentials = Credentials::instance();
  for_each_engine([&](Engine engine) {
    for (const std::string version : {"-tls1_2", "-tls1_3"}) {
      CAPTURE(version);
      Child server(kOpenssl, {"s_server", "-accept", "127.0.0.1:0", "-cert",
                              credentials.certificate_file, "-key", credentials.private_key_file,
                              "-rev", "-CAfile", credentials.ca_file, version});
      std::string line;
      while (!line.starts_with("ACCEPT")) line = server.read_line();
      const std::string address = line.substr(line.find(' ') + 1);
      EventLoop loop(LoopOptions{.engine = engine});
      const TlsContext trusting = client_context();
      const auto talk = [&]() -> Task<> {
        ConnectOptions options;
        options.tls = &trusting;
        TcpConnection conn = co_await connect(address, options);
        co_await conn.send("abc\n");
        const Chunk answer = co_await conn.read_until("\n", 100);
        CHECK(answer.view() == "cba\n");
        CHECK(tls_info(conn)->version == (version == "-tls1_2" ? "TLSv1.2" : "TLSv1.3"));
      };
      loop.run_until_complete(talk());
    }
  });
}

TEST_CASE("curl fetches a page") {
  if (!is_here(kCurl)) return;
  const Credentials& credentials = Credentials::instance();
  TlsServerOptions options = credentials.server();
  options.alpn = {"http/1.1"};
  for_each_engine([&](Engine engine) {
    TlsServerThread server(engine, options, [](TcpConnection conn) -> Task<> {
      (void)co_await conn.read_until("\r\n\r\n", 8192);
      co_await conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
      co_await conn.send(std::string(100'000, 'x'));
    });
    const std::string port = std::to_string((*server.server)->address().port());
    Child client(kCurl, {"--silent", "--show-error", "--cacert", credentials.ca_file, "--resolve",
                         "localhost:" + port + ":127.0.0.1", "https://localhost:" + port + "/"});
    const std::string page = client.read_all();
    INFO(page.substr(0, 200));
    CHECK(page == std::string(100'000, 'x'));
    CHECK(client.wait() == 0);
    Child distrustful(kCurl,
                      {"--silent", "--show-error", "--resolve", "localhost:" + port + ":127.0.0.1",
                       "https://localhost:" + port + "/"});
    CHECK(distrustful.read_all().find("certificate") != std::string::npos);
    CHECK(distrustful.wait() == 60);
  });
}

namespace {

/// A handler for those who fetch pages, one after the other on a connection.
Task<> serve_pages(TcpConnection conn) {
  for (;;) {
    const Chunk head = co_await conn.read_until("\r\n\r\n", 8192);
    if (head.is_end()) co_return;
    const bool stays = head.view().starts_with("GET /") &&
                       (head.view().find("HTTP/1.1") != std::string_view::npos ||
                        head.view().find("Keep-Alive") != std::string_view::npos);
    co_await conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n");
    co_await conn.send(stays ? "Connection: keep-alive\r\n\r\nhello" : "\r\nhello");
    if (!stays) co_return;
  }
}

/// Fetches a page from a proxy that listens at the path, as soon as it does.
std::string fetched_from(Engine engine, const std::string& path) {
  EventLoop loop(LoopOptions{.engine = engine});
  std::string page;
  const TlsContext trusting = client_context();
  const auto fetch = [&]() -> Task<> {
    ConnectOptions options;
    options.tls = &trusting;
    options.server_name = "localhost";
    TcpConnection conn = co_await connect("unix:" + path, options);
    co_await conn.send("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
    while (const Chunk part = co_await conn.read()) page += part.view();
  };
  CHECK(eventually([&] {
    const Socket probe(kernel_sockets(), ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const SocketAddress address = SocketAddress::parse("unix:" + path);
    const RawAddress& raw = address.raw();
    return ::connect(probe.fd(), reinterpret_cast<const sockaddr*>(raw.bytes), raw.size) == 0;
  }));
  loop.run_until_complete(fetch());
  return page;
}

void write_file(const std::string& name, const std::string& text) { std::ofstream(name) << text; }

std::string text_in(const std::string& name) {
  std::ifstream file(name);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("nginx stands between a client and a server, with TLS to both") {
  if (!is_here(kNginx)) return;
  const Credentials& credentials = Credentials::instance();
  for_each_engine([&](Engine engine) {
    TlsServerThread server(engine, credentials.server(), &serve_pages);
    const Directory directory;
    const std::string here = directory.file("");
    const std::string path = directory.file("nginx.sock");
    write_file(directory.file("conf"),
               "daemon off; master_process off; pid " + here +
                   "pid;\n"
                   "events {}\nhttp {\n  access_log off; client_body_temp_path " +
                   here +
                   "a;\n"
                   "  proxy_temp_path " +
                   here + "b; fastcgi_temp_path " + here +
                   "c;\n"
                   "  uwsgi_temp_path " +
                   here + "d; scgi_temp_path " + here +
                   "e;\n"
                   "  server {\n    listen unix:" +
                   path +
                   " ssl;\n"
                   "    ssl_certificate " +
                   credentials.certificate_file +
                   ";\n"
                   "    ssl_certificate_key " +
                   credentials.private_key_file +
                   ";\n"
                   "    location / {\n      proxy_pass https://" +
                   server.address() +
                   ";\n"
                   "      proxy_ssl_verify on; proxy_ssl_trusted_certificate " +
                   credentials.ca_file +
                   ";\n      proxy_ssl_name localhost; proxy_ssl_server_name on;\n    }\n  }\n}\n");
    Child nginx(kNginx, {"-e", directory.file("error"), "-c", directory.file("conf")});
    const std::string page = fetched_from(engine, path);
    INFO(page);
    CHECK(page.starts_with("HTTP/1.1 200 OK"));
    CHECK(page.ends_with("hello"));
    nginx.signal(SIGTERM);
    CHECK(nginx.wait() == 0);
  });
}

TEST_CASE("haproxy stands between a client and a server, with TLS to both") {
  if (!is_here(kHaproxy)) return;
  const Credentials& credentials = Credentials::instance();
  for_each_engine([&](Engine engine) {
    TlsServerThread server(engine, credentials.server(), &serve_pages);
    const Directory directory;
    const std::string path = directory.file("haproxy.sock");
    write_file(directory.file("both"),
               text_in(credentials.certificate_file) + text_in(credentials.private_key_file));
    write_file(directory.file("conf"),
               "defaults\n  mode tcp\n  timeout connect 120s\n  timeout client 120s\n"
               "  timeout server 120s\nfrontend front\n  bind unix@" +
                   path + " ssl crt " + directory.file("both") +
                   "\n  default_backend back\nbackend back\n  server s " + server.address() +
                   " ssl verify required ca-file " + credentials.ca_file +
                   " verifyhost localhost sni str(localhost)\n");
    Child haproxy(kHaproxy, {"-db", "-f", directory.file("conf")});
    const std::string page = fetched_from(engine, path);
    INFO(page);
    CHECK(page.starts_with("HTTP/1.1 200 OK"));
    CHECK(page.ends_with("hello"));
  });
}

TEST_CASE("ab and wrk put load on a server, and nothing fails") {
  const Credentials& credentials = Credentials::instance();
  for_each_engine([&](Engine engine) {
    TlsServerThread server(engine, credentials.server(), &serve_pages);
    const std::string url = "https://" + server.address() + "/";
    if (is_here(kAb)) {
      for (const bool stays : {false, true}) {
        Child ab(kAb, {"-n", "200", "-c", "8", stays ? "-k" : "-q", url});
        const std::string said = ab.read_all();
        INFO(said);
        CHECK(said.find("Complete requests:      200") != std::string::npos);
        CHECK(said.find("Failed requests:        0") != std::string::npos);
        CHECK(ab.wait() == 0);
      }
    }
    if (is_here(kWrk)) {
      Child wrk(kWrk, {"-t", "1", "-c", "4", "-d", "1s", url});
      const std::string said = wrk.read_all();
      INFO(said);
      CHECK(said.find("requests in") != std::string::npos);
      CHECK(said.find("Non-2xx") == std::string::npos);
      CHECK(said.find("Socket errors") == std::string::npos);
      CHECK(wrk.wait() == 0);
    }
  });
}

TEST_CASE("Python's ssl talks to a server, and takes its client for one that said all") {
  if (!is_here(kPython)) return;
  const Credentials& credentials = Credentials::instance();
  for_each_engine([&](Engine engine) {
    TlsServerThread server(engine, credentials.server(), &echo);
    Child client(kPython, {"-c", R"(
import socket, ssl, sys
host, _, port = sys.argv[1].rpartition(':')
context = ssl.create_default_context(cafile=sys.argv[2])
context.verify_flags &= ~getattr(ssl, 'VERIFY_X509_STRICT', 0)
with socket.create_connection((host, int(port))) as raw:
    with context.wrap_socket(raw, server_hostname='localhost', suppress_ragged_eofs=False) as conn:
        conn.sendall(b'x' * 100000)
        got = 0
        while got < 100000:
            got += len(conn.recv(65536))
        version = conn.version()
        conn.unwrap()
        print('well', version)
)",
                           server.address(), credentials.ca_file});
    const std::string said = client.read_all();
    INFO(said);
    CHECK(said == "well TLSv1.3\n");
    CHECK(client.wait() == 0);
  });
}

TEST_CASE("gnutls-cli talks to a server, and verifies it") {
  if (!is_here(kGnutls)) return;
  const Credentials& credentials = Credentials::instance();
  for_each_engine([&](Engine engine) {
    TlsServerThread server(engine, credentials.server(), &serve_pages);
    const std::string port = std::to_string((*server.server)->address().port());
    Child client(kGnutls,
                 {"--x509cafile", credentials.ca_file, "--verify-hostname", "localhost", "--port",
                  port, "127.0.0.1"},
                 Child::Input::written);
    CHECK(client.write("GET / HTTP/1.0\r\n\r\n"));
    const std::string said = client.read_all();
    INFO(said);
    CHECK(said.find("200 OK") != std::string::npos);
    CHECK(said.find("Handshake was completed") != std::string::npos);
  });
}

namespace {

/// The port that the child listens on, which told the kernel to choose one and tells nobody; 0:
/// none yet.
unsigned port_of(const Child& child) {
  const std::string process = "/proc/" + std::to_string(child.process());
  std::string sockets;
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator(process + "/fd", gone)) {
    sockets += std::filesystem::read_symlink(entry, gone).string();
  }
  std::ifstream table(process + "/net/tcp");
  std::string line;
  std::getline(table, line);
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::string field[10];
    for (std::string& each : field) fields >> each;
    if (field[3] != "0A" || sockets.find("[" + field[9] + "]") == std::string::npos) continue;
    return static_cast<unsigned>(std::stoul(field[1].substr(field[1].find(':') + 1), nullptr, 16));
  }
  return 0;
}

std::string address_of(const Child& child) {
  unsigned port = 0;
  CHECK(eventually([&] { return (port = port_of(child)) != 0; }));
  return "127.0.0.1:" + std::to_string(port);
}

/// What a line becomes that is sent there, or why there is none.
std::string echoed_by(Engine engine, const std::string& address, const TlsContext& context,
                      const std::string& line, std::string* version) {
  EventLoop loop(LoopOptions{.engine = engine});
  std::string got;
  const auto talk = [&]() -> Task<> {
    ConnectOptions options;
    options.tls = &context;
    options.server_name = "localhost";
    try {
      TcpConnection conn = co_await connect(address, options);
      if (version != nullptr) *version = tls_info(conn)->version;
      co_await conn.send(line);
      const Chunk answer = co_await conn.read_exactly(line.size());
      got = answer.view();
      co_await conn.shutdown();
      const Chunk end = co_await conn.read();
      CHECK(end.is_end());
    } catch (const std::system_error& error) {
      got = error.what();
    }
  };
  loop.run_until_complete(talk());
  return got;
}

}  // namespace

TEST_CASE("gnutls-serv gives back what a client says, at each version, and takes its certificate") {
  if (!is_here(kGnutlsServer)) return;
  const Credentials& credentials = Credentials::instance();
  TlsClientOptions named = credentials.client();
  named.certificate_file = credentials.client_certificate_file;
  named.private_key_file = credentials.client_key_file;
  const std::string line = std::string(3000, 'x') + "\n";
  for (const bool asks : {false, true}) {
    for (const std::string version : {"1.2", "1.3"}) {
      CAPTURE(asks);
      CAPTURE(version);
      Child server(
          kGnutlsServer,
          {"--echo", "--quiet", "--port", "0", "--x509certfile", credentials.certificate_file,
           "--x509keyfile", credentials.private_key_file, "--x509cafile", credentials.ca_file,
           "--priority", "NORMAL:-VERS-ALL:+VERS-TLS" + version,
           asks ? "--require-client-cert" : "--disable-client-cert", "--verify-client-cert"});
      const std::string address = address_of(server);
      for_each_engine([&](Engine engine) {
        std::string spoken;
        CHECK(echoed_by(engine, address, TlsContext::client(named), line, &spoken) == line);
        CHECK(spoken == "TLSv" + version);
        CHECK(echoed_by(engine, address,
                        TlsContext::client({.ca_file = credentials.client_certificate_file}), line,
                        nullptr)
                  .find("verifying") != std::string::npos);
        if (asks) {
          CHECK(echoed_by(engine, address, client_context(), line, nullptr).find("alert") !=
                std::string::npos);
        }
      });
    }
  }
}

namespace {

/// What sslscan says of a server with that certificate: for people, and as XML behind it.
std::string scan(const Certificate::Options& certificate) {
  const Credentials& credentials = Credentials::instance();
  const Directory directory;
  credentials.write(certificate, directory.file("certificate"), directory.file("key"));
  TlsServerThread server(Engine::automatic,
                         {.certificate_file = directory.file("certificate"),
                          .private_key_file = directory.file("key")},
                         &echo);
  Child scanner(kSslscan, {"--no-colour", "--xml=" + directory.file("xml"), server.address()});
  const std::string said = scanner.read_all();
  CHECK(scanner.wait() == 0);
  return said + text_in(directory.file("xml"));
}

}  // namespace

TEST_CASE("sslscan finds nothing in a server as it is that should not be there") {
  if (!is_here(kSslscan)) return;
  for (const std::size_t rsa_bits : {0U, 2048U}) {
    CAPTURE(rsa_bits);
    const std::string found = scan({.rsa_bits = rsa_bits});
    INFO(found);
    for (
        const std::string line : {
            R"(<protocol type="ssl" version="2" enabled="0" />)",
            R"(<protocol type="ssl" version="3" enabled="0" />)",
            R"(<protocol type="tls" version="1.0" enabled="0" />)",
            R"(<protocol type="tls" version="1.1" enabled="0" />)",
            R"(<protocol type="tls" version="1.2" enabled="1" />)",
            R"(<protocol type="tls" version="1.3" enabled="1" />)",
            R"(<renegotiation supported="0")",
            R"(status="preferred" sslversion="TLSv1.3" bits="256" cipher="TLS_AES_256_GCM_SHA384")",
            "Server supports TLS Fallback SCSV",
        }) {
      CAPTURE(line);
      CHECK(found.find(line) != std::string::npos);
    }
    CHECK(count(found, R"(vulnerable="0")") == 2);  // to heartbleed
    CHECK(count(found, R"(status="preferred")") == 2);
    CHECK(count(found, R"(GCM-SHA384" id)") > 0);
    for (const std::string word :
         {R"(vulnerable="1")", "Compression enabled", R"(strength="weak")", R"(strength="null")",
          R"(strength="anonymous")", "RC4", "DES-", "NULL", "EXP", "ADH", "AECDH", "MD5"}) {
      CAPTURE(word);
      CHECK(found.find(word) == std::string::npos);
    }
  }
}
