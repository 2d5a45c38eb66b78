#include <weir/net/socket_address.h>

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <type_traits>

namespace weir {
namespace {

static_assert(std::is_trivially_destructible_v<SocketAddress>);

constexpr std::size_t kPathOffset = offsetof(sockaddr_un, sun_path);
constexpr std::size_t kPathMost = sizeof(sockaddr_un::sun_path) - 1;  // 107, and a final NUL

[[noreturn]] void reject(std::string_view text, const char* why) {
  std::string shown(text.substr(0, 128));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  throw std::invalid_argument("weir: \"" + shown + "\" is no socket address: " + why +
                              " (1.2.3.4:80, [::1]:80 or unix:/path)");
}

template <class Address>
detail::RawAddress raw_of(const Address& address, std::size_t size = sizeof(Address)) noexcept {
  detail::RawAddress raw;
  std::memcpy(raw.bytes, &address, size);
  raw.size = static_cast<std::uint32_t>(size);
  return raw;
}

template <class Address>
Address as(const detail::RawAddress& raw) noexcept {
  Address address{};
  std::memcpy(&address, raw.bytes, std::min<std::size_t>(sizeof address, raw.size));
  return address;
}

std::uint16_t parse_port(std::string_view whole, std::string_view text) {
  std::uint16_t port = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, port);
  if (text.empty() || error != std::errc() || stop != end) {
    reject(whole, "the port must be a number from 0 to 65535");
  }
  return port;
}

detail::RawAddress parse_unix(std::string_view whole, std::string_view path) {
  if (path.empty()) reject(whole, "the path is empty");
  if (path.size() > kPathMost) reject(whole, "a Unix socket's path has 107 bytes at the most");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path.front() == '@') {
    address.sun_path[0] = '\0';
    return raw_of(address, kPathOffset + path.size());
  }
  return raw_of(address, kPathOffset + path.size() + 1);
}

detail::RawAddress parse_ipv6(std::string_view whole, std::string_view host, std::uint16_t port) {
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  const std::size_t percent = host.find('%');
  const std::string number(host.substr(0, percent));
  if (::inet_pton(AF_INET6, number.c_str(), &address.sin6_addr) != 1) {
    reject(whole, "what stands in the brackets is no IPv6 address");
  }
  if (percent != std::string_view::npos) {
    const std::string zone(host.substr(percent + 1));
    std::uint32_t index = 0;
    const auto parsed = std::from_chars(zone.data(), zone.data() + zone.size(), index);
    if (parsed.ec != std::errc() || parsed.ptr != zone.data() + zone.size()) {
      index = ::if_nametoindex(zone.c_str());
    }
    if (index == 0) reject(whole, "there is no such network interface");
    address.sin6_scope_id = index;
  }
  return raw_of(address);
}

/// The parts that make two addresses the same; padding and flow labels do not.
struct Key {
  int family;
  std::string_view path;
  in6_addr host;
  std::uint32_t scope;
  std::uint16_t port;
};

std::string_view path_bytes(const detail::RawAddress& raw) noexcept {
  if (raw.size <= kPathOffset) return {};
  const auto* path = reinterpret_cast<const char*>(raw.bytes) + kPathOffset;
  const std::size_t size = std::min<std::size_t>(raw.size, sizeof(sockaddr_un)) - kPathOffset;
  return *path == '\0' ? std::string_view(path, size)
                       : std::string_view(path, ::strnlen(path, size));
}

Key key_of(const SocketAddress& address) noexcept {
  Key key{address.family(), {}, {}, 0, address.port()};
  if (key.family == AF_INET) {
    const auto host = as<sockaddr_in>(address.raw()).sin_addr;
    std::memcpy(&key.host, &host, sizeof host);
  } else if (key.family == AF_INET6) {
    const auto raw = as<sockaddr_in6>(address.raw());
    key.host = raw.sin6_addr;
    key.scope = raw.sin6_scope_id;
  } else if (key.family == AF_UNIX) {
    key.path = path_bytes(address.raw());
  }
  return key;
}

}  // namespace

SocketAddress SocketAddress::parse(std::string_view text) {
  if (text.find('\0') != std::string_view::npos) reject(text, "there is a NUL in it");
  if (text.starts_with("unix:")) return SocketAddress(parse_unix(text, text.substr(5)));
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || text.ends_with(']')) reject(text, "the port is missing");
  const std::uint16_t port = parse_port(text, text.substr(colon + 1));
  const std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    return SocketAddress(parse_ipv6(text, host.substr(1, host.size() - 2), port));
  }
  if (host.find(':') != std::string_view::npos) {
    reject(text, "an IPv6 address stands in brackets");
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (::inet_pton(AF_INET, std::string(host).c_str(), &address.sin_addr) != 1) {
    reject(text, host.empty() || host == "*"
                     ? "0.0.0.0 or [::] stands for every address"
                     : "the host is no IPv4 address; names are resolved by weir::connect");
  }
  return SocketAddress(raw_of(address));
}

int SocketAddress::family() const noexcept {
  return raw_.size == 0 ? AF_UNSPEC : as<sockaddr>(raw_).sa_family;
}

bool SocketAddress::is_ip() const noexcept { return family() == AF_INET || family() == AF_INET6; }

bool SocketAddress::is_unix() const noexcept { return family() == AF_UNIX; }

std::uint16_t SocketAddress::port() const noexcept {
  switch (family()) {
    case AF_INET:
      return ntohs(as<sockaddr_in>(raw_).sin_port);
    case AF_INET6:
      return ntohs(as<sockaddr_in6>(raw_).sin6_port);
    default:
      return 0;
  }
}

SocketAddress SocketAddress::with_port(std::uint16_t port) const noexcept {
  if (family() == AF_INET) {
    auto address = as<sockaddr_in>(raw_);
    address.sin_port = htons(port);
    return SocketAddress(raw_of(address));
  }
  if (family() == AF_INET6) {
    auto address = as<sockaddr_in6>(raw_);
    address.sin6_port = htons(port);
    return SocketAddress(raw_of(address));
  }
  return *this;
}

std::string_view SocketAddress::unix_path() const noexcept {
  if (!is_unix()) return {};
  const std::string_view path = path_bytes(raw_);
  return !path.empty() && path.front() == '\0' ? std::string_view() : path;
}

std::string SocketAddress::to_string() const {
  char host[INET6_ADDRSTRLEN] = {};
  switch (family()) {
    case AF_INET: {
      const auto address = as<sockaddr_in>(raw_);
      ::inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
      return std::string(host) + ':' + std::to_string(port());
    }
    case AF_INET6: {
      const auto address = as<sockaddr_in6>(raw_);
      ::inet_ntop(AF_INET6, &address.sin6_addr, host, sizeof host);
      std::string text = std::string("[") + host;
      if (address.sin6_scope_id != 0) text += '%' + std::to_string(address.sin6_scope_id);
      return text + "]:" + std::to_string(port());
    }
    case AF_UNIX: {
      std::string text = "unix:";
      const std::string_view path = path_bytes(raw_);
      for (std::size_t i = 0; i < path.size(); ++i) {
        const auto byte = static_cast<unsigned char>(path[i]);
        if (i == 0 && byte == 0) {
          text += '@';
        } else if (byte < 0x20 || byte == 0x7f) {
          constexpr char kDigits[] = "0123456789abcdef";
          text += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
        } else {
          text += path[i];
        }
      }
      return text;
    }
    default:
      return "unknown";
  }
}

std::uint64_t SocketAddress::peer_key() const noexcept {
  if (family() == AF_INET) return ntohl(as<sockaddr_in>(raw_).sin_addr.s_addr) | (1ULL << 32);
  if (family() != AF_INET6) return 0;
  const in6_addr host = as<sockaddr_in6>(raw_).sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&host)) {
    std::uint32_t v4 = 0;
    std::memcpy(&v4, host.s6_addr + 12, sizeof v4);
    return ntohl(v4) | (1ULL << 32);
  }
  std::uint64_t network = 0;
  for (int i = 0; i < 8; ++i) network = network << 8 | host.s6_addr[i];
  return network | (1ULL << 63);
}

detail::CompactAddress::CompactAddress(const SocketAddress& address) noexcept {
  static_assert(sizeof bytes_ == sizeof(sockaddr_in6));
  if (!address.is_ip()) return;
  std::memcpy(bytes_, address.raw().bytes,
              std::min<std::size_t>(address.raw().size, sizeof bytes_));
}

SocketAddress detail::CompactAddress::expand() const noexcept {
  sa_family_t family = AF_UNSPEC;
  std::memcpy(&family, bytes_, sizeof family);
  static_assert(offsetof(sockaddr, sa_family) == 0);
  if (family == AF_UNSPEC) return {};
  detail::RawAddress raw;
  raw.size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  std::memcpy(raw.bytes, bytes_, raw.size);
  return SocketAddress(raw);
}

bool operator==(const SocketAddress& a, const SocketAddress& b) noexcept {
  return (a <=> b) == std::strong_ordering::equal;
}

std::strong_ordering operator<=>(const SocketAddress& a, const SocketAddress& b) noexcept {
  const Key left = key_of(a);
  const Key right = key_of(b);
  if (left.family != right.family) return left.family <=> right.family;
  if (left.path != right.path) return left.path <=> right.path;
  if (const int hosts = std::memcmp(&left.host, &right.host, sizeof left.host); hosts != 0) {
    return hosts <=> 0;
  }
  if (left.scope != right.scope) return left.scope <=> right.scope;
  return left.port <=> right.port;
}

}  // namespace weir

std::size_t std::hash<weir::SocketAddress>::operator()(
    const weir::SocketAddress& address) const noexcept {
  const weir::Key key = weir::key_of(address);
  std::size_t value = std::hash<std::string_view>()(key.path);
  const std::string_view host(reinterpret_cast<const char*>(&key.host), sizeof key.host);
  value = value * 31 + std::hash<std::string_view>()(host);
  value = value * 31 + key.scope;
  return value * 31 + key.port + static_cast<std::size_t>(key.family) * 65536;
}
