// reverse_proxy --port N --backends HOST:PORT[,HOST:PORT…] [--address A] [--threads T]
//               [--engine auto|uring|epoll] [--max-connections N] [--max-body BYTES]
//               [--connect-timeout MS] [--request-timeout MS] [--idle-timeout MS]
//               [--backend-timeout MS] [--tls-certificate FILE --tls-key FILE]
//
// HTTP/1.1 in front of other servers, whose connections are kept and used again. Both sides are
// parsed, and what goes on is written anew (http/forwarding.h), so that no backend sees two
// requests where this saw one. Bodies stream both ways (http/exchange.h): while `send` waits,
// nothing more is read.
#include <weir/weir.h>

#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/arguments.h"
#include "common/tls_files.h"
#include "http/backends.h"
#include "http/exchange.h"

using namespace weir;
using namespace std::chrono_literals;

namespace {

struct Settings {
  http::BackendOptions backends;
  std::chrono::milliseconds request_timeout;  // for a head, and for each piece of a body
  std::chrono::milliseconds idle_timeout;     // between requests
  std::chrono::milliseconds backend_timeout;
  http::Limits limits;
};

/// Ends the connection, with an answer if none has begun.
Task<> refuse(http::Client& client, int status) {
  std::string answer = http::refusal(status, client.parser.is_head());
  (void)co_await as_tuple(client.conn.send(std::move(answer)));
}

/// False if nothing can follow on the connection. What is safe to do again, is, if it came to a
/// backend just as that closed a connection that had been idle.
Task<bool> serve_request(http::Client& client, http::Backends& backends, const Settings& settings) {
  const http::Request& request = client.parser.request();
  const std::string peer = client.conn.peer_address().to_string();
  const auto head = http::forwarded(request, std::string_view(peer).substr(0, peer.rfind(':')));
  const bool repeatable = http::framing_of(request) == http::Framing::none &&
                          (request.method == "GET" || request.method == "HEAD");
  int status = head ? 502 : 400;
  for (bool again = head.has_value(); again;) {
    ConnectionPool::Lease lease;
    std::optional<http::Exchange> exchange;
    try {
      lease = co_await backends.acquire();
      const http::Exchange::Times times = {settings.request_timeout, settings.backend_timeout};
      exchange.emplace(client, *lease, times);
      co_await exchange->run(*head);
      if (exchange->backend_is_free()) lease.give_back();
      co_return exchange->client_is_free();
    } catch (const http::Refused& refused) {
      status = refused.status;
      again = false;
    } catch (const std::system_error& error) {
      const bool late = error.code() == std::errc::timed_out;
      status = late ? 504 : 502;
      again = !late && repeatable && exchange && !exchange->heard() && lease.is_reused();
    }
    if (exchange && exchange->begun()) {
      client.conn.force_close();  // the part that it has is not the whole
      co_return false;
    }
  }
  co_await refuse(client, status);
  co_return false;
}

/// The status that refuses what has come; 0 for a request, nothing where the connection ends.
Task<std::optional<int>> read_request(http::Client& client, const Settings& settings) {
  EventLoop& loop = EventLoop::current();
  bool idle = !client.has_more() && !client.parser.midway();
  TimePoint deadline = loop.now() + (idle ? settings.idle_timeout : settings.request_timeout);
  try {
    while (!client.parser.has_head()) {
      const bool more = co_await client.parse_more(deadline - loop.now());
      if (!more) co_return std::nullopt;
      if (std::exchange(idle, false)) deadline = loop.now() + settings.request_timeout;
    }
  } catch (const http::Refused& refused) {
    co_return refused.status;
  } catch (const std::system_error& error) {
    if (error.code() == errc::deadline && client.parser.midway()) co_return 408;
    co_return std::nullopt;
  }
  co_return 0;
}

Task<> serve_client(TcpConnection conn, LoopLocal<http::Backends>& backends,
                    const Settings& settings) {
  http::Client client(conn, settings.limits);
  for (bool more = true; more; client.parser.next()) {
    const std::optional<int> status = co_await read_request(client, settings);
    if (!status) co_return;
    if (*status != 0) {
      co_await refuse(client, *status);
      co_return;
    }
    more = co_await serve_request(client, backends.get(), settings);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv,
                            {{"backends", ""},
                             {"max-connections", "64"},
                             {"max-body", "1073741824"},
                             {"connect-timeout", "5000"},
                             {"request-timeout", "10000"},
                             {"idle-timeout", "30000"},
                             {"backend-timeout", "30000"}});
  Settings settings = {
      .backends = {http::parse_backends(arguments.text("backends")),
                   arguments.number("max-connections"), arguments.milliseconds("connect-timeout")},
      .request_timeout = arguments.milliseconds("request-timeout"),
      .idle_timeout = arguments.milliseconds("idle-timeout"),
      .backend_timeout = arguments.milliseconds("backend-timeout"),
      .limits = {.body = arguments.number("max-body")}};
  (void)http::Backends(settings.backends);  // throws for a bad option
  ServerOptions options = arguments.server_options("proxy");
  options.write_timeout = settings.idle_timeout;  // for those who do not read
  options.idle_timeout =
      settings.request_timeout + settings.idle_timeout + settings.backend_timeout;
  options.connection.water_marks = {.high = 256 << 10, .low = 64 << 10};
  options.connection.input_high = 128 << 10;
  TlsFiles tls(arguments.text("tls-certificate"), arguments.text("tls-key"));
  options.tls = tls.context();
  LoopLocal<http::Backends> backends([&settings] { return http::Backends(settings.backends); });
  TcpServer server(options);
  tls.reload_with(server);
  serve(server, [&backends, &settings](TcpConnection conn) {
    return serve_client(std::move(conn), backends, settings);
  });
} catch (const std::exception& error) {
  std::fprintf(stderr, "reverse_proxy: %s\n", error.what());
  return 1;
}
