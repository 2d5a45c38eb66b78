// https_client https://HOST[:PORT][/PATH] [--ca FILE]: fetches a page from a server that proves its
// name.
#include <weir/tls.h>

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>

using namespace weir;

namespace {

struct Url {
  std::string host;
  std::string port = "443";
  std::string path = "/";
};

Url parse(std::string_view text) {
  constexpr std::string_view kScheme = "https://";
  if (!text.starts_with(kScheme)) throw std::invalid_argument("the URL must begin with https://");
  text.remove_prefix(kScheme.size());
  Url url;
  const std::size_t slash = text.find('/');
  if (slash != std::string_view::npos) url.path = text.substr(slash);
  std::string_view host = text.substr(0, slash);
  const std::size_t colon = host.rfind(':');
  if (colon != std::string_view::npos && host.find(']', colon) == std::string_view::npos) {
    url.port = host.substr(colon + 1);
    host = host.substr(0, colon);
  }
  url.host = host;
  if (url.host.empty()) throw std::invalid_argument("the URL names no host");
  return url;
}

/// Writes the answer's body to standard output. HTTP/1.0: it ends with the connection.
Task<int> fetch(Url url, TlsContext tls) {
  ConnectOptions options;
  options.tls = &tls;
  TcpConnection conn = co_await connect(url.host + ":" + url.port, options);
  const TlsInfo info = tls_info(conn).value();
  std::fprintf(stderr, "%s, %s, %s\n", info.version.c_str(), info.cipher.c_str(),
               info.peer_subject.c_str());
  co_await conn.send("GET " + url.path + " HTTP/1.0\r\nHost: " + url.host +
                     "\r\nUser-Agent: weir\r\n\r\n");
  const Chunk head = co_await conn.read_until("\r\n\r\n", 64 << 10);
  const std::string_view status = head.view().substr(0, head.view().find("\r\n"));
  std::fprintf(stderr, "%.*s\n", static_cast<int>(status.size()), status.data());
  // An end that the server did not say itself (close_notify) throws: nobody cut the page short.
  while (Chunk body = co_await conn.read()) {
    std::fwrite(body.data(), 1, body.size(), stdout);
  }
  co_return status.find(" 200") != std::string_view::npos ? 0 : 2;
}

}  // namespace

int main(int argc, char** argv) try {
  const bool with_ca = argc == 4 && std::string_view(argv[2]) == "--ca";
  if (argc != 2 && !with_ca) {
    throw std::invalid_argument("usage: https_client https://HOST[:PORT][/PATH] [--ca FILE]");
  }
  TlsClientOptions trust;
  if (with_ca) trust.ca_file = argv[3];
  return run(fetch(parse(argv[1]), TlsContext::client(trust)));
} catch (const std::exception& error) {
  std::fprintf(stderr, "https_client: %s\n", error.what());
  return 1;
}
