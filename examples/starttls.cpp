// starttls --port N --tls-certificate FILE --tls-key FILE [--address A] [--threads T]: as much of a
// mail server (SMTP, RFC 5321) as it takes to go over to TLS in the middle (STARTTLS, RFC 3207).
// What it is given it throws away.
#include <weir/tls.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string_view>
#include <utility>

#include "common/arguments.h"

using namespace weir;

namespace {

constexpr std::size_t kLongestLine = 1000;

bool is(std::string_view line, std::string_view command) {
  const auto same = [](char a, char b) { return (a & ~0x20) == (b & ~0x20); };
  return line.size() >= command.size() &&
         std::equal(command.begin(), command.end(), line.begin(), same);
}

/// What a client is told before its TLS begins counts for nothing afterwards.
Task<> serve_mail(TcpConnection conn, TlsContext tls) {
  co_await conn.send("220 weir\r\n");
  for (;;) {
    const Chunk read = co_await conn.read_until("\r\n", kLongestLine);
    if (read.is_end()) co_return;
    const std::string_view line = read.view();
    const bool secure = tls_info(conn).has_value();
    if (is(line, "EHLO") || is(line, "HELO")) {
      co_await conn.send(secure ? "250 weir\r\n" : "250-weir\r\n250 STARTTLS\r\n");
    } else if (is(line, "STARTTLS") && !secure) {
      co_await conn.send("220 go ahead\r\n");
      co_await start_tls(conn, tls);  // throws at what came behind the command, in the clear
    } else if (is(line, "QUIT")) {
      co_await conn.send("221 bye\r\n");
      co_return;
    } else if (!secure) {
      co_await conn.send("530 say STARTTLS first\r\n");
    } else if (is(line, "DATA")) {
      co_await conn.send("354 end it with a dot\r\n");
      Chunk next;
      do {
        next = co_await conn.read_until("\r\n", kLongestLine);
        if (next.is_end()) co_return;
      } while (next.view() != ".\r\n");
      co_await conn.send("250 thrown away\r\n");
    } else {
      co_await conn.send("250 as you say\r\n");
    }
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv, {});
  const TlsContext tls = TlsContext::server({.certificate_file = arguments.text("tls-certificate"),
                                             .private_key_file = arguments.text("tls-key")});
  TcpServer server(arguments.server_options("starttls"));
  serve(server, [tls](TcpConnection conn) { return serve_mail(std::move(conn), tls); });
} catch (const std::exception& error) {
  std::fprintf(stderr, "starttls: %s\n", error.what());
  return 1;
}
