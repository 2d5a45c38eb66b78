#include <weir/net/proxy_header.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <stdexcept>

namespace weir {
namespace {

using detail::ProxyHeader;
using detail::RawAddress;

constexpr std::string_view kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr std::string_view kWord = "PROXY ";
constexpr std::size_t kLongestLine = 107;
constexpr std::size_t kFixed = 16;  // of version 2, before the addresses

// Version 2: commands, and families with protocols.
constexpr unsigned char kLocal = 0x20;
constexpr unsigned char kProxy = 0x21;
constexpr unsigned char kInetStream = 0x11;
constexpr unsigned char kInet6Stream = 0x21;
constexpr unsigned char kUnixStream = 0x31;
constexpr std::size_t kUnixPath = 108;

constexpr ProxyHeader kIncomplete{ProxyHeader::State::incomplete};
constexpr ProxyHeader kMalformed{ProxyHeader::State::malformed};

ProxyHeader complete(std::size_t size, const SocketAddress& client = {}) noexcept {
  return {ProxyHeader::State::complete, size, client};
}

template <class Address>
SocketAddress address_of(const Address& address, std::size_t size = sizeof(Address)) noexcept {
  RawAddress raw;
  std::memcpy(raw.bytes, &address, size);
  raw.size = static_cast<std::uint32_t>(size);
  return SocketAddress(raw);
}

SocketAddress inet_address(const void* host, std::uint16_t port_in_order) noexcept {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = port_in_order;
  std::memcpy(&address.sin_addr, host, sizeof address.sin_addr);
  return address_of(address);
}

SocketAddress inet6_address(const void* host, std::uint16_t port_in_order) noexcept {
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = port_in_order;
  std::memcpy(&address.sin6_addr, host, sizeof address.sin6_addr);
  return address_of(address);
}

SocketAddress unix_address(const char* path) noexcept {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  static_assert(sizeof address.sun_path == kUnixPath);
  std::memcpy(address.sun_path, path, kUnixPath);
  const std::string_view all(path, kUnixPath);
  constexpr std::size_t kBefore = offsetof(sockaddr_un, sun_path);
  if (path[0] != '\0') return address_of(address, kBefore + std::min(all.find('\0'), kUnixPath));
  const std::size_t last = all.find_last_not_of('\0');  // of an abstract name
  return address_of(address, kBefore + (last == std::string_view::npos ? 0 : last + 1));
}

// ---- version 1 ----------------------------------------------------------------------------------

/// The next of the fields that one space each stands between.
std::string_view next_field(std::string_view& line) noexcept {
  const std::size_t space = line.find(' ');
  const std::string_view field = line.substr(0, space);
  line.remove_prefix(space == std::string_view::npos ? line.size() : space + 1);
  return field;
}

std::optional<std::uint16_t> port_of(std::string_view text) noexcept {
  if (text.empty() || (text.front() == '0' && text.size() > 1)) return std::nullopt;
  std::uint16_t port = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), port);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return htons(port);
}

bool host_of(int family, std::string_view text, unsigned char (&host)[16]) noexcept {
  char terminated[INET6_ADDRSTRLEN] = {};
  if (text.size() >= sizeof terminated) return false;
  std::copy(text.begin(), text.end(), terminated);
  return std::strlen(terminated) == text.size() && ::inet_pton(family, terminated, host) == 1;
}

ProxyHeader parse_addresses(int family, std::string_view fields, std::size_t size) noexcept {
  if (std::count(fields.begin(), fields.end(), ' ') != 3) return kMalformed;
  unsigned char client[16];
  unsigned char server[16];
  if (!host_of(family, next_field(fields), client)) return kMalformed;
  if (!host_of(family, next_field(fields), server)) return kMalformed;
  const auto port = port_of(next_field(fields));
  if (!port || !port_of(next_field(fields))) return kMalformed;
  return complete(size,
                  family == AF_INET ? inet_address(client, *port) : inet6_address(client, *port));
}

ProxyHeader parse_line(std::string_view bytes) noexcept {
  const std::size_t end = bytes.substr(0, kLongestLine).find_first_of("\r\n");
  if (end == std::string_view::npos) {
    return bytes.size() < kLongestLine ? kIncomplete : kMalformed;
  }
  const std::size_t size = end + 2;
  if (bytes[end] != '\r' || size > kLongestLine) return kMalformed;
  if (bytes.size() < size) return kIncomplete;
  if (bytes[end + 1] != '\n') return kMalformed;
  std::string_view fields = bytes.substr(kWord.size(), end - kWord.size());
  const std::string_view family = next_field(fields);
  if (family == "TCP4") return parse_addresses(AF_INET, fields, size);
  if (family == "TCP6") return parse_addresses(AF_INET6, fields, size);
  return family == "UNKNOWN" ? complete(size) : kMalformed;  // what follows that is ignored
}

// ---- version 2 ----------------------------------------------------------------------------------

ProxyHeader parse_binary(std::string_view bytes) noexcept {
  if (bytes.size() <= kSignature.size()) return kIncomplete;
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char command = at(12);
  if (command != kLocal && command != kProxy) return kMalformed;
  if (bytes.size() < kFixed) return kIncomplete;
  const unsigned char kind = at(13);
  const std::size_t length = std::size_t{at(14)} << 8 | at(15);
  const std::size_t size = kFixed + length;
  if (size > ProxyHeader::kLongest) return kMalformed;
  const bool known = (kind >> 4) <= 3 && (kind & 15) <= 2;
  if (command == kProxy && !known) return kMalformed;
  const std::size_t needed = kind == kInetStream    ? 12
                             : kind == kInet6Stream ? 36
                             : kind == kUnixStream  ? 2 * kUnixPath
                                                    : 0;
  if (command == kProxy && length < needed) return kMalformed;
  if (bytes.size() < size) return kIncomplete;
  if (command == kLocal || needed == 0) return complete(size);
  const char* addresses = bytes.data() + kFixed;
  std::uint16_t port = 0;
  if (kind == kUnixStream) return complete(size, unix_address(addresses));
  std::memcpy(&port, addresses + needed - 4, sizeof port);  // the client's, then the server's
  return complete(
      size, kind == kInetStream ? inet_address(addresses, port) : inet6_address(addresses, port));
}

// ---- making one ---------------------------------------------------------------------------------

/// Host and port of an IP address, IPv4 mapped into IPv6.
struct Inet6 {
  explicit Inet6(const SocketAddress& address) noexcept : port(address.port()) {
    if (address.family() == AF_INET6) {
      std::memcpy(host, address.raw().bytes + offsetof(sockaddr_in6, sin6_addr), sizeof host);
    } else {
      host[10] = host[11] = 0xff;
      std::memcpy(host + 12, address.raw().bytes + offsetof(sockaddr_in, sin_addr), 4);
    }
  }

  unsigned char host[16] = {};
  std::uint16_t port;
};

std::string text_of(int family, const Inet6& address) {
  char text[INET6_ADDRSTRLEN] = {};
  ::inet_ntop(family, family == AF_INET ? address.host + 12 : address.host, text, sizeof text);
  return text;
}

void append_port(std::string& to, std::uint16_t port) {
  to += static_cast<char>(port >> 8);
  to += static_cast<char>(port & 0xff);
}

void append_path(std::string& to, const SocketAddress& address) {
  constexpr std::size_t kBefore = offsetof(sockaddr_un, sun_path);
  const std::size_t size = address.raw().size > kBefore ? address.raw().size - kBefore : 0;
  const auto* path = reinterpret_cast<const char*>(address.raw().bytes) + kBefore;
  to.append(path, std::min(size, kUnixPath));
  to.append(kUnixPath - std::min(size, kUnixPath), '\0');
}

std::string binary_header(unsigned char kind, const std::string& addresses) {
  std::string header(kSignature);
  header += static_cast<char>(kProxy);
  header += static_cast<char>(kind);
  append_port(header, static_cast<std::uint16_t>(addresses.size()));
  return header + addresses;
}

}  // namespace

std::string proxy_header(const SocketAddress& client, const SocketAddress& server, int version) {
  if (version != 1 && version != 2) {
    throw std::invalid_argument("weir: proxy_header: the version is " + std::to_string(version) +
                                "; it must be 1 or 2");
  }
  if (client.is_unix() && server.is_unix() && version == 2) {
    std::string paths;
    append_path(paths, client);
    append_path(paths, server);
    return binary_header(kUnixStream, paths);
  }
  if (!client.is_ip() || !server.is_ip()) {
    return version == 1 ? "PROXY UNKNOWN\r\n" : binary_header(0, {});
  }
  const bool old = client.family() == AF_INET && server.family() == AF_INET;
  const Inet6 from(client);
  const Inet6 to(server);
  if (version == 1) {
    const int family = old ? AF_INET : AF_INET6;
    return std::string(kWord) + (old ? "TCP4 " : "TCP6 ") + text_of(family, from) + ' ' +
           text_of(family, to) + ' ' + std::to_string(from.port) + ' ' + std::to_string(to.port) +
           "\r\n";
  }
  std::string addresses;
  for (const Inet6* one : {&from, &to}) {
    const auto* host = reinterpret_cast<const char*>(one->host);
    addresses.append(old ? host + 12 : host, old ? 4 : 16);
  }
  append_port(addresses, from.port);
  append_port(addresses, to.port);
  return binary_header(old ? kInetStream : kInet6Stream, addresses);
}

detail::ProxyHeader detail::ProxyHeader::parse(std::string_view bytes) noexcept {
  const auto begins = [&](std::string_view with) {
    return bytes.substr(0, with.size()) == with.substr(0, bytes.size());
  };
  if (bytes.empty()) return kIncomplete;
  if (begins(kSignature)) return parse_binary(bytes);
  if (!begins(kWord)) return kMalformed;
  return bytes.size() < kWord.size() ? kIncomplete : parse_line(bytes);
}

}  // namespace weir
