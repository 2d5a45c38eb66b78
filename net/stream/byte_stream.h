#pragma once

#include <weir/coro/awaitable.h>
#include <weir/net/stream/chunk.h>

#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weir {

namespace detail {
template <class A, class T>
concept AwaitableOf = Awaitable<A> && std::same_as<AwaitResult<A>, T>;
}

/// A stream of bytes in both directions, as protocol code sees it: `TcpConnection` on a socket,
/// `PairedStream` in memory. What each call does is said at `TcpConnection`.
template <class S>
concept ByteStream =
    std::movable<S> && requires(S& stream, std::size_t count, std::string_view text,
                                std::span<const std::string_view> parts, std::string string,
                                std::vector<std::byte> bytes, Chunk chunk) {
      { stream.read() } -> detail::AwaitableOf<Chunk>;
      { stream.read(count) } -> detail::AwaitableOf<Chunk>;
      { stream.read_exactly(count) } -> detail::AwaitableOf<Chunk>;
      { stream.read_until(text, count) } -> detail::AwaitableOf<Chunk>;
      { stream.peek(count) } -> detail::AwaitableOf<Chunk>;
      { stream.send(text) } -> detail::AwaitableOf<void>;
      { stream.send(parts) } -> detail::AwaitableOf<void>;
      { stream.send(std::move(string)) } -> detail::AwaitableOf<void>;
      { stream.send(std::move(bytes)) } -> detail::AwaitableOf<void>;
      { stream.send(std::move(chunk)) } -> detail::AwaitableOf<void>;
      { stream.flush() } -> detail::AwaitableOf<void>;
      { stream.shutdown() } -> detail::AwaitableOf<void>;
      { stream.close() } noexcept;
    };

}  // namespace weir
