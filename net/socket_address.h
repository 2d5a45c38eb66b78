#pragma once

#include <weir/core/sockets.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace weir {

/// An IPv4, IPv6 or Unix-domain address of a stream socket. A plain value, trivially destructible.
class SocketAddress {
 public:
  /// No address at all: what an unknown peer has.
  constexpr SocketAddress() noexcept = default;
  explicit constexpr SocketAddress(const detail::RawAddress& raw) noexcept : raw_(raw) {}

  /// "1.2.3.4:80", "[::1]:80", "[fe80::1%eth0]:80", "unix:/path" or "unix:@name" (abstract,
  /// unix(7)). Numbers only: names are `connect`'s business. Throws `std::invalid_argument` that
  /// names the text and what is wrong with it.
  static SocketAddress parse(std::string_view text);

  /// What `parse` reads; "unknown" without an address, "unix:" for an unnamed peer. Control
  /// characters of a path come out escaped.
  [[nodiscard]] std::string to_string() const;

  /// 0 for Unix addresses.
  [[nodiscard]] std::uint16_t port() const noexcept;
  /// The same host with another port; a Unix address as it is.
  [[nodiscard]] SocketAddress with_port(std::uint16_t port) const noexcept;
  /// AF_INET, AF_INET6, AF_UNIX, or AF_UNSPEC.
  [[nodiscard]] int family() const noexcept;
  [[nodiscard]] bool is_ip() const noexcept;
  [[nodiscard]] bool is_unix() const noexcept;
  explicit operator bool() const noexcept { return raw_.size != 0; }

  /// The path of a Unix address that stands in the file system, else empty.
  [[nodiscard]] std::string_view unix_path() const noexcept;

  /// The same host for counting peers: the IPv4 address (mapped ones alike), the /64 of an IPv6
  /// address, 0 for others.
  [[nodiscard]] std::uint64_t peer_key() const noexcept;

  [[nodiscard]] const detail::RawAddress& raw() const noexcept { return raw_; }

  friend bool operator==(const SocketAddress& a, const SocketAddress& b) noexcept;
  friend std::strong_ordering operator<=>(const SocketAddress& a, const SocketAddress& b) noexcept;

 private:
  detail::RawAddress raw_;
};

namespace detail {

/// The address of an IP peer in 28 bytes; nothing for other families.
class CompactAddress {
 public:
  CompactAddress() noexcept = default;
  explicit CompactAddress(const SocketAddress& address) noexcept;
  [[nodiscard]] SocketAddress expand() const noexcept;

 private:
  alignas(4) unsigned char bytes_[28] = {};  // a sockaddr_in6 at the most
};

}  // namespace detail

}  // namespace weir

template <>
struct std::hash<weir::SocketAddress> {
  std::size_t operator()(const weir::SocketAddress& address) const noexcept;
};
