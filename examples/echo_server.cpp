// echo_server --port N [--address A] [--threads T] [--engine auto|uring|epoll] [--buffer BYTES]
//             [--tls-certificate FILE --tls-key FILE]
#include <weir/weir.h>

#include <cstdio>
#include <exception>

#include "common/arguments.h"
#include "common/tls_files.h"

using namespace weir;

Task<> echo(TcpConnection conn) {
  while (Chunk data = co_await conn.read())  // empty Chunk = the peer sent FIN
    co_await conn.send(std::move(data));     // lease handed on: no copy in user space
}

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv, {{"buffer", ""}});
  ServerOptions options = arguments.server_options("echo");
  if (!arguments.text("buffer").empty()) options.loop.buffer_size = arguments.number("buffer");
  TlsFiles tls(arguments.text("tls-certificate"), arguments.text("tls-key"));
  options.tls = tls.context();
  TcpServer server(options);
  tls.reload_with(server);
  serve(server, echo);
} catch (const std::exception& error) {
  std::fprintf(stderr, "echo_server: %s\n", error.what());
  return 1;
}
