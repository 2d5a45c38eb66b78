// The examples with --tls-certificate; left out where the examples are not built.
#ifdef WEIR_EXAMPLES_DIR
#include "../support/tls.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <string>
#include <vector>

#include "../support/child.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

std::string address_of(Child& server) {
  const std::string line = server.read_line();
  return line.substr(line.rfind(' ') + 1);
}

Task<std::string> subject_at(std::string address) {
  const TlsContext trusting = client_context();
  ConnectOptions options;
  options.tls = &trusting;
  TcpConnection conn = co_await connect(address, options);
  co_await conn.send("hello");
  const Chunk got = co_await conn.read_exactly(5);
  CHECK(got.view() == "hello");
  co_return tls_info(conn)->peer_subject;
}

}  // namespace

TEST_CASE("the echo example speaks TLS, and takes new certificates upon SIGHUP") {
  const Credentials& credentials = Credentials::instance();
  const Directory directory;
  const std::string certificate = directory.file("c");
  const std::string key = directory.file("k");
  credentials.write({.name = "old"}, certificate, key);
  Child server(WEIR_EXAMPLES_DIR "/echo_server",
               {"--port", "0", "--tls-certificate", certificate, "--tls-key", key});
  const std::string address = address_of(server);
  CHECK(run(subject_at(address)) == "CN=old");
  credentials.write({.name = "new"}, certificate, key);
  server.signal(SIGHUP);
  CHECK(eventually([&] { return run(subject_at(address)) == "CN=new"; }));
  std::ofstream(certificate) << "nothing";
  server.signal(SIGHUP);
  // A machine that is slow may say of itself that it is.
  CHECK(eventually([&] { return server.read_line().find(certificate) != std::string::npos; }));
  CHECK(run(subject_at(address)) == "CN=new");
  server.signal(SIGTERM);
  CHECK(server.wait() == 0);
}

TEST_CASE("the client's example fetches from the server's over TLS, and from nobody else") {
  if (::access(WEIR_EXAMPLES_DIR "/http_server", X_OK) != 0) {
    MESSAGE("skipped: http_server is not built, for want of llhttp");
    return;
  }
  const Credentials& credentials = Credentials::instance();
  const Directory directory;
  std::ofstream(directory.file("page")) << "a page";
  Child server(WEIR_EXAMPLES_DIR "/http_server",
               {"--port", "0", "--root", directory.file(""), "--tls-certificate",
                credentials.certificate_file, "--tls-key", credentials.private_key_file});
  const std::string url = "https://" + address_of(server) + "/page";
  Child client(WEIR_EXAMPLES_DIR "/https_client", {url, "--ca", credentials.ca_file});
  const std::string said = client.read_all();
  INFO(said);
  CHECK(said.ends_with("a page"));
  CHECK(said.find("TLSv1.3") != std::string::npos);
  CHECK(client.wait() == 0);
  Child distrustful(WEIR_EXAMPLES_DIR "/https_client", {url});
  CHECK(distrustful.read_all().find("verifying the certificate") != std::string::npos);
  CHECK(distrustful.wait() == 1);
}

TEST_CASE(
    "the example of STARTTLS takes a mail under TLS alone, and nothing slipped in before it") {
  const Credentials& credentials = Credentials::instance();
  Child server(WEIR_EXAMPLES_DIR "/starttls",
               {"--port", "0", "--tls-certificate", credentials.certificate_file, "--tls-key",
                credentials.private_key_file});
  const auto address = SocketAddress::parse(address_of(server));
  const auto ask = [](auto& peer, std::string_view said, std::string_view answer) {
    peer.send(said);
    CHECK(peer.receive_exactly(answer.size()) == answer);
  };
  Peer peer = Peer::connect(address);
  ask(peer, "", "220 weir\r\n");
  ask(peer, "EHLO me\r\n", "250-weir\r\n250 STARTTLS\r\n");
  ask(peer, "MAIL FROM:<me>\r\n", "530 say STARTTLS first\r\n");
  ask(peer, "starttls\r\n", "220 go ahead\r\n");
  TlsPeer secure(std::move(peer), false);
  secure.shake_hands();
  ask(secure, "EHLO me\r\n", "250 weir\r\n");
  ask(secure, "DATA\r\n", "354 end it with a dot\r\n");
  ask(secure, "STARTTLS\r\n.\r\n", "250 thrown away\r\n");
  ask(secure, "QUIT\r\n", "221 bye\r\n");
  CHECK(secure.ends());
  Peer sly = Peer::connect(address);
  ask(sly, "", "220 weir\r\n");
  ask(sly, "STARTTLS\r\nMAIL FROM:<me>\r\n", "220 go ahead\r\n");
  int error = 0;
  CHECK(sly.receive_all(&error).find("50 ") == std::string::npos);  // no answer
  server.signal(SIGTERM);
  CHECK(server.wait() == 0);
}
#endif
