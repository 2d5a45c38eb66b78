// http_server --port N --root DIRECTORY [--address A] [--threads T] [--engine auto|uring|epoll]
//             [--request-timeout MS] [--idle-timeout MS] [--write-timeout MS] [--max-header BYTES]
//
// HTTP/1.1 on the files of a directory, and a text at /hello: GET and HEAD, keep-alive, pipelining,
// single ranges. http/request_parser.h takes requests out of the stream, http/site.h answers them.
#include <weir/weir.h>

#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/arguments.h"
#include "common/next_bytes.h"
#include "common/tls_files.h"
#include "http/request_parser.h"
#include "http/site.h"

using namespace weir;
using namespace std::chrono_literals;

namespace {

struct Settings {
  std::chrono::milliseconds request_timeout;  // from a request's first byte to its last
  std::chrono::milliseconds idle_timeout;     // between requests
  http::Limits limits;
};

/// Of a file, or a part of one, that leaves in one message with its head: it costs less to copy so
/// much than to send it by itself.
constexpr std::size_t kSmall = 16 << 10;

using FileSend = decltype(std::declval<TcpConnection&>().send_file(0, 0, 0));

/// The file has a descriptor of its own then: one for each client is enough.
bool prepare_file(TcpConnection& conn, http::Response& response, std::optional<FileSend>& file) {
  try {
    file.emplace(conn.send_file(response.file.fd(), response.offset, response.length));
  } catch (const std::exception&) {
    // There is none to be had, or no memory.
  }
  response.file = {};
  return file.has_value();
}

/// False if the connection broke, or has to.
Task<bool> send_response(TcpConnection& conn, http::Response response) {
  response.head += response.body;
  if (response.length > 0 && response.length <= kSmall) {
    if (!response.file.append_to(response.head, response.offset, response.length)) co_return false;
    response.length = 0;
  }
  // Before the head, which promises it: there may be no descriptor for it.
  std::optional<FileSend> file;
  const bool refused = response.length > 0 && !prepare_file(conn, response, file);
  if (refused) {
    http::Response refusal = http::Site::refuse(503, false);
    response.head = refusal.head + refusal.body;
  }
  auto [broken, sent] = co_await as_tuple(conn.send(std::move(response.head)));
  if (broken || !file) co_return !broken && !refused;
  auto [failed, done] = co_await as_tuple(std::move(*file));
  co_return !failed;
}

Task<> serve_client(TcpConnection conn, const http::Site& site, Settings settings) {
  EventLoop& loop = EventLoop::current();
  http::RequestParser parser(settings.limits);
  TimePoint deadline = loop.now() + settings.idle_timeout;
  for (;;) {
    auto [error, data] =
        co_await as_tuple(timeout(deadline - loop.now(), next_bytes(conn, !parser.midway())));
    if (error == std::errc::timed_out && parser.midway()) {
      http::Response response = http::Site::refuse(408, parser.is_head());
      (void)co_await send_response(conn, std::move(response));
      co_return;
    }
    if (error || !data) co_return;
    if (!parser.midway()) deadline = loop.now() + settings.request_timeout;

    for (std::string_view left = data.view(); !left.empty();) {
      left.remove_prefix(parser.feed(left));
      if (const int status = parser.problem(); status != 0) {
        http::Response response = http::Site::refuse(status, parser.is_head());
        (void)co_await send_response(conn, std::move(response));
        co_return;
      }
      if (!parser.whole()) continue;
      http::Request request = parser.request();
      if (conn.is_draining()) request.keep_alive = false;
      http::Response response = site.respond(request);
      const bool keep_alive = response.keep_alive;
      const bool sent = co_await send_response(conn, std::move(response));
      if (!sent || !keep_alive) co_return;
      parser.next();
      deadline = loop.now() + (left.empty() ? settings.idle_timeout : settings.request_timeout);
    }
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv,
                            {{"root", ""},
                             {"request-timeout", "10000"},
                             {"idle-timeout", "30000"},
                             {"write-timeout", "30000"},
                             {"max-header", "16384"}});
  Settings settings = {.request_timeout = arguments.milliseconds("request-timeout"),
                       .idle_timeout = arguments.milliseconds("idle-timeout"),
                       .limits = {.head = arguments.number("max-header")}};
  ServerOptions options = arguments.server_options("http");
  options.write_timeout = arguments.milliseconds("write-timeout");  // for those who do not read
  options.idle_timeout = settings.request_timeout + settings.idle_timeout;
  if (arguments.text("root").empty()) throw std::invalid_argument("--root is missing");
  const http::Site site(arguments.text("root"));
  TlsFiles tls(arguments.text("tls-certificate"), arguments.text("tls-key"));
  options.tls = tls.context();
  TcpServer server(options);
  tls.reload_with(server);
  serve(server, [&site, settings](TcpConnection conn) {
    return serve_client(std::move(conn), site, settings);
  });
} catch (const std::exception& error) {
  std::fprintf(stderr, "http_server: %s\n", error.what());
  return 1;
}
