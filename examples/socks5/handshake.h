#pragma once

#include <weir/coro/task.h>
#include <weir/net/stream/byte_stream.h>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "request.h"

namespace socks5 {

/// The client's request, after the greeting; nothing if the client speaks another protocol.
weir::Task<std::optional<Request>> read_request(weir::ByteStream auto& client) {
  std::string greeting;
  while (const std::size_t missing = missing_of_greeting(greeting)) {
    const weir::Chunk bytes = co_await client.read_exactly(missing);
    greeting += bytes.view();
    // Another protocol's client may wait for us, and never send what is missing.
    if (!bytes || greeting[0] != kVersion) co_return std::nullopt;
  }
  if (!acceptable(greeting)) {
    co_await client.send("\x05\xff");
    co_return std::nullopt;
  }
  co_await client.send(std::string_view("\x05\x00", 2));
  std::string message;
  while (const std::size_t missing = missing_of_request(message)) {
    const weir::Chunk bytes = co_await client.read_exactly(missing);
    if (!bytes) co_return std::nullopt;
    message += bytes.view();
  }
  co_return parse_request(message);
}

}  // namespace socks5
