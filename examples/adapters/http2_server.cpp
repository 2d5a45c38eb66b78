// http2_server --port N --tls-certificate FILE --tls-key FILE [--address A] [--threads T]
//              [--engine auto|uring|epoll]
// HTTP/2 over TLS, which clients ask for by ALPN: says what was asked for, and echoes bodies.
#include <weir/tls.h>

#include <cstdio>
#include <exception>
#include <string>

#include "../common/arguments.h"
#include "http2.h"

using namespace weir;

namespace {

Task<adapters::Http2Message> answer(adapters::Http2Message request) {
  adapters::Http2Message response;
  response.headers = {{":status", "200"}, {"content-type", "text/plain"}, {"server", "weir"}};
  response.body = request.headers[":method"] + ' ' + request.headers[":path"] + '\n' + request.body;
  co_return response;
}

Task<> serve_client(TcpConnection conn) {
  const adapters::Http2Handler handler = answer;
  adapters::Http2Session session(conn, handler);
  co_await session.run();
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv);
  TlsServerOptions files;
  files.certificate_file = arguments.text("tls-certificate");
  files.private_key_file = arguments.text("tls-key");
  files.alpn = {"h2"};
  files.allow_truncation = true;  // HTTP/2 has lengths of its own
  const TlsContext tls = TlsContext::server(files);
  ServerOptions options = arguments.server_options("http2");
  options.tls = &tls;
  TcpServer server(options);
  serve(server, serve_client);
} catch (const std::exception& error) {
  std::fprintf(stderr, "http2_server: %s\n", error.what());
  return 1;
}
