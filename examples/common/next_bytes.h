#pragma once

#include <weir/weir.h>

#include <utility>
#include <variant>

/// What comes next, nothing at the end: the client's, or, between two requests, that of a server
/// which drains.
inline weir::Task<weir::Chunk> next_bytes(weir::TcpConnection& conn, bool between_requests) {
  if (!between_requests) {
    weir::Chunk data = co_await conn.read();
    co_return data;
  }
  auto first = co_await weir::when_any(conn.draining(), conn.read());
  co_return first.index() == 1 ? std::get<1>(std::move(first)) : weir::Chunk();
}
