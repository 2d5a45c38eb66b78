#pragma once

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "net_server.h"
#include "tls.h"

namespace weir::test {

/// A server on the current loop.
struct Serving {
  explicit Serving(TlsContext with, ServerOptions options = {}) : context(std::move(with)) {
    options.address = loopback();
    options.tls = &context;
    server.emplace(EventLoop::current(), std::move(options));
    server->start(&echo);
  }
  Task<> end() { (void)co_await server->drain(10s); }

  TlsContext context;
  std::optional<TcpServer> server;
};

/// Connects, says something and hears it; the error's text, or what was agreed on.
struct Talk {
  std::string error;
  std::error_code code;
  TlsInfo info;
};

inline Task<Talk> talk(SocketAddress address, TlsContext context, std::string name = "localhost") {
  Talk heard;
  try {
    ConnectOptions options;
    options.tls = &context;
    options.server_name = name;
    TcpConnection conn = co_await connect(address.to_string(), options);
    co_await conn.send("hello");
    const Chunk got = co_await conn.read_exactly(5);
    CHECK(got.view() == "hello");
    heard.info = tls_info(conn).value();
    co_await conn.shutdown();
    const Chunk end = co_await conn.read();
    CHECK(end.is_end());
  } catch (const std::system_error& error) {
    heard.error = error.what();
    heard.code = error.code();
  }
  co_return heard;
}

}  // namespace weir::test
