// nghttp2 on weir's connections, against curl and h2load.
#include <doctest/doctest.h>

#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../examples/adapters/http2.h"
#include "../support/tls.h"
#include "example.h"

using namespace weir;
using namespace weir::test;

namespace {

std::vector<std::string> with_certificate() {
  const Credentials& credentials = Credentials::instance();
  return {"--tls-certificate", credentials.certificate_file, "--tls-key",
          credentials.private_key_file};
}

/// What curl prints of the URL's answer, its status and version of HTTP behind it.
Ran fetch(const std::string& curl, const std::string& url, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"--silent",
                                        "--show-error",
                                        "--http2",
                                        "--cacert",
                                        Credentials::instance().ca_file,
                                        "--write-out",
                                        "%{http_code} %{http_version}",
                                        url};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_program(curl, arguments);
}

bool speaks_http2(const std::string& curl) {
  if (run_program(curl, {"--version"}).output.find("HTTP2") != std::string::npos) return true;
  MESSAGE("skipped: curl was built without HTTP/2");
  return false;
}

}  // namespace

TEST_CASE("curl speaks HTTP/2 over TLS with the example") {
  const std::string curl = client_program("curl");
  if (curl.empty() || !speaks_http2(curl)) return;
  for (const char* engine : {"auto", "epoll"}) {
    std::vector<std::string> options = with_certificate();
    options.insert(options.end(), {"--engine", engine});
    Example example("adapters/http2_server", options);
    const std::string url = "https://127.0.0.1:" + example.port();
    CHECK(fetch(curl, url + "/a/path?x=1").output == "GET /a/path?x=1\n200 2");
    const Directory directory;
    const std::string body = pattern(300'000);
    std::ofstream(directory.file("body")) << body;
    const Ran posted = fetch(curl, url + "/post", {"--data-binary", "@" + directory.file("body")});
    CHECK(posted.output == "POST /post\n" + body + "200 2");
    // More than it takes: the connection ends, the server does not.
    std::ofstream(directory.file("body")) << pattern(3 << 20);
    CHECK(fetch(curl, url, {"--data-binary", "@" + directory.file("body")}).status != 0);
    CHECK(fetch(curl, url + "/still").output == "GET /still\n200 2");
    CHECK(example.end() == 0);
  }
}

TEST_CASE("h2load has every one of its requests answered") {
  const std::string h2load = client_program("h2load");
  if (h2load.empty()) return;
  Example example("adapters/http2_server", with_certificate());
  const Ran ran = run_program(h2load, {"-n", "3000", "-c", "8", "-m", "32",
                                       "https://127.0.0.1:" + example.port() + "/page"});
  INFO(ran.output);
  CHECK(ran.status == 0);
  CHECK(ran.output.find("Application protocol: h2") != std::string::npos);
  CHECK(ran.output.find("3000 succeeded, 0 failed, 0 errored") != std::string::npos);
  CHECK(example.end() == 0);
}

TEST_CASE(
    "a request that waits is answered when its server drains, and one that fails gets a 500") {
  const std::string curl = client_program("curl");
  if (curl.empty() || !speaks_http2(curl)) return;
  on_each_kernel_engine("curl has sockets of its own", [&]() -> Task<> {
    TlsServerOptions options = Credentials::instance().server();
    options.alpn = {"h2"};
    options.allow_truncation = true;
    const TlsContext tls = TlsContext::server(options);
    ServerOptions with;
    with.address = SocketAddress::parse("127.0.0.1:0");
    with.tls = &tls;
    TcpServer server(EventLoop::current(), with);
    Event asked;
    Event go_on;
    const adapters::Http2Handler handler =
        [&](adapters::Http2Message request) -> Task<adapters::Http2Message> {
      if (request.headers[":path"] == "/fail") throw std::runtime_error("on purpose");
      asked.set();
      co_await go_on.wait();
      adapters::Http2Message response;
      response.headers = {{":status", "200"}};
      response.body = "late";
      co_return response;
    };
    server.start([&](TcpConnection conn) -> Task<> {
      adapters::Http2Session session(conn, handler);
      co_await session.run();
    });
    const std::string url = "https://" + server.address().to_string();
    auto failing = [&curl, url] { return fetch(curl, url + "/fail"); };
    const Ran failed = co_await blocking(std::move(failing));
    CHECK(failed.output == "500 2");
    std::string said;
    TaskGroup client;
    client.spawn([&]() -> Task<> {
      auto waiting = [&curl, url] { return fetch(curl, url + "/late"); };
      const Ran ran = co_await blocking(std::move(waiting));
      said = ran.output;
    });
    co_await asked.wait();
    client.spawn([&]() -> Task<> {
      const DrainReport report = co_await server.drain(kPatience);
      CHECK(report.forced == 0);
    });
    co_await yield();
    go_on.set();
    co_await client.join();
    CHECK(said == "late200 2");
  });
}
