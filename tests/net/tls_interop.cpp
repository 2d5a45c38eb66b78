// With what others wrote: the command openssl, curl.
#include <doctest/doctest.h>
#include <unistd.h>

#include <string>
#include <string_view>
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
