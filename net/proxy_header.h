#pragma once

#include <weir/net/socket_address.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace weir {

/// The header of the PROXY protocol (haproxy's doc/proxy-protocol.txt) that tells a server for whom
/// a connection is made: `version` 1 is a line of text, 2 is binary. `client` is whose connection
/// is forwarded, `server` where that client had connected to. Addresses that the version cannot
/// tell of, or that are not of one family, make the header of an unknown client (an IPv4 one among
/// IPv6 is mapped). Throws `std::invalid_argument` for another version, and `std::bad_alloc`. From
/// any thread.
[[nodiscard]] std::string proxy_header(const SocketAddress& client, const SocketAddress& server,
                                       int version = 2);

namespace detail {

/// What bytes that begin a connection say about its client.
struct ProxyHeader {
  /// Of all a header may have. The specification leaves it to the receiver.
  static constexpr std::size_t kLongest = 4096;

  enum class State : std::uint8_t { incomplete, malformed, complete };

  State state = State::malformed;
  std::size_t size = 0;       // of a complete one, in bytes
  SocketAddress client = {};  // empty: the addresses of the connection itself hold

  /// Of the bytes so far. What is malformed stays so, whatever follows.
  [[nodiscard]] static ProxyHeader parse(std::string_view bytes) noexcept;
};

}  // namespace detail
}  // namespace weir
