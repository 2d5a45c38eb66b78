// socks5_proxy --port N [--address A] [--threads T] [--engine auto|uring|epoll]
//              [--handshake-timeout MS] [--connect-timeout MS] [--idle-timeout MS]
//
// RFC 1928: CONNECT to IPv4 and IPv6 addresses and to names, without authentication. Bytes go from
// one connection to the other in the buffers they came in; the FIN of either side goes through, and
// the other direction goes on. A slow side holds back the fast one: `send` waits, so nothing is
// read.
#include <weir/weir.h>

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "common/arguments.h"
#include "socks5/handshake.h"

using namespace weir;
using namespace std::chrono_literals;

namespace {

struct Settings {
  std::chrono::milliseconds handshake_timeout;
  std::chrono::milliseconds connect_timeout;
  ConnectionOptions connection;
};

socks5::Reply reply_for(const std::error_code& error) {
  using socks5::Reply;
  using std::errc;
  if (error == errc::connection_refused) return Reply::refused;
  if (error == errc::network_unreachable) return Reply::network_unreachable;
  if (error == errc::timed_out) return Reply::ttl_expired;
  if (error == errc::permission_denied) return Reply::not_allowed;
  if (error.category() == std::generic_category() || error.category() == std::system_category()) {
    return error == errc::host_unreachable ? Reply::host_unreachable : Reply::failure;
  }
  return Reply::host_unreachable;  // the resolver's: no such name
}

Task<Socket> connect_to(std::string target) {
  std::vector<SocketAddress> addresses = co_await resolve(std::move(target));
  // A host called "unix" must not lead to a Unix socket.
  std::erase_if(addresses, [](const SocketAddress& address) { return !address.is_ip(); });
  if (addresses.empty()) {
    throw std::system_error(std::make_error_code(std::errc::host_unreachable));
  }
  co_return co_await connect_any(std::move(addresses), 250ms);
}

std::string success(const SocketAddress& local) {
  const char* raw = reinterpret_cast<const char*>(local.raw().bytes);
  const std::string_view address =
      local.family() == AF_INET6 ? std::string_view(raw + offsetof(sockaddr_in6, sin6_addr), 16)
                                 : std::string_view(raw + offsetof(sockaddr_in, sin_addr), 4);
  return socks5::make_reply(socks5::Reply::succeeded, address, local.port());
}

/// One direction, to its FIN.
Task<> pump(ByteStream auto& from, ByteStream auto& to) {
  while (Chunk data = co_await from.read()) co_await to.send(std::move(data));
  co_await to.shutdown();
}

Task<> proxy(TcpConnection client, Settings settings) {
  auto [bad, request] =
      co_await as_tuple(timeout(settings.handshake_timeout, socks5::read_request(client)));
  if (bad || !request) co_return;
  if (request->problem != socks5::Reply::succeeded) {
    (void)co_await as_tuple(client.send(socks5::make_reply(request->problem)));
    co_return;
  }
  auto [unreachable, socket] =
      co_await as_tuple(timeout(settings.connect_timeout, connect_to(request->target)));
  if (unreachable) {
    (void)co_await as_tuple(client.send(socks5::make_reply(reply_for(unreachable))));
    co_return;
  }
  TcpConnection upstream(std::move(socket), settings.connection);
  auto [gone, sent] = co_await as_tuple(client.send(success(upstream.local_address())));
  if (gone) co_return;
  auto [broken, done] = co_await as_tuple(when_all(pump(client, upstream), pump(upstream, client)));
  if (broken) {  // what became of one side becomes of the other
    client.force_close();
    upstream.force_close();
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(
      argc, argv,
      {{"handshake-timeout", "10000"}, {"connect-timeout", "30000"}, {"idle-timeout", "300000"}});
  ServerOptions options = arguments.server_options("socks5");
  options.idle_timeout = arguments.milliseconds("idle-timeout");
  options.connection.water_marks = {.high = 256 << 10, .low = 64 << 10};
  options.connection.input_high = 128 << 10;
  const Settings settings = {.handshake_timeout = arguments.milliseconds("handshake-timeout"),
                             .connect_timeout = arguments.milliseconds("connect-timeout"),
                             .connection = options.connection};
  TcpServer server(options);
  serve(server, [settings](TcpConnection conn) { return proxy(std::move(conn), settings); });
} catch (const std::exception& error) {
  std::fprintf(stderr, "socks5_proxy: %s\n", error.what());
  return 1;
}
