#pragma once

#include <weir/weir.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace rpc {

inline constexpr std::size_t kLongestBody = 1 << 20;

/// A call or its answer. On the wire: the body's size in four bytes, the call's number in eight,
/// the body.
struct Frame {
  std::uint64_t id = 0;
  std::string body = {};
};

/// Throws `std::length_error` for a body that the other side would not take.
inline std::string to_bytes(std::uint64_t id, std::string_view body) {
  if (body.size() > kLongestBody) throw std::length_error("rpc: the body is too long");
  std::string bytes;
  weir::append_big(bytes, static_cast<std::uint32_t>(body.size()));
  weir::append_big(bytes, id);
  return bytes.append(body);
}

/// Nothing at the end of the stream. Throws `std::errc::message_size` for a body that is too long,
/// `connection_aborted` for an end within a frame. Dropped, it has the stream out of step.
inline weir::Task<std::optional<Frame>> read_frame(weir::ByteStream auto& stream) {
  const weir::Chunk first = co_await stream.peek(1);
  if (!first) co_return std::nullopt;
  const auto size = co_await stream.template read_big<std::uint32_t>();
  const auto id = co_await stream.template read_big<std::uint64_t>();
  if (size > kLongestBody) {
    throw std::system_error(std::make_error_code(std::errc::message_size), "rpc: a frame");
  }
  const weir::Chunk body = co_await stream.read_exactly(size);
  if (body.is_end()) {
    throw std::system_error(std::make_error_code(std::errc::connection_aborted), "rpc: a frame");
  }
  co_return Frame{id, std::string(body.view())};
}

}  // namespace rpc
