#include <weir/io/sim/address.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace weir::sim::detail {

std::optional<Address> Address::from(const RawAddress& raw) noexcept {
  sa_family_t family = 0;
  if (raw.size < sizeof family) return std::nullopt;
  std::memcpy(&family, raw.bytes, sizeof family);
  Address address;
  if (family == AF_INET && raw.size >= sizeof(sockaddr_in)) {
    sockaddr_in in{};
    std::memcpy(&in, raw.bytes, sizeof in);
    std::memcpy(address.ip.data(), &in.sin_addr, 4);
    address.port = ntohs(in.sin_port);
    return address;
  }
  if (family == AF_INET6 && raw.size >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in{};
    std::memcpy(&in, raw.bytes, sizeof in);
    std::memcpy(address.ip.data(), &in.sin6_addr, 16);
    address.v6 = true;
    address.port = ntohs(in.sin6_port);
    return address;
  }
  return std::nullopt;
}

std::optional<Address> Address::parse(std::string_view text) {
  Address address;
  const std::string copy(text);
  if (::inet_pton(AF_INET, copy.c_str(), address.ip.data()) == 1) return address;
  address.v6 = true;
  if (::inet_pton(AF_INET6, copy.c_str(), address.ip.data()) == 1) return address;
  return std::nullopt;
}

RawAddress Address::raw() const noexcept {
  RawAddress raw;
  if (v6) {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(port);
    std::memcpy(&in.sin6_addr, ip.data(), 16);
    std::memcpy(raw.bytes, &in, sizeof in);
    raw.size = sizeof in;
  } else {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    std::memcpy(&in.sin_addr, ip.data(), 4);
    std::memcpy(raw.bytes, &in, sizeof in);
    raw.size = sizeof in;
  }
  return raw;
}

std::string Address::text() const {
  char shown[INET6_ADDRSTRLEN] = {};
  ::inet_ntop(v6 ? AF_INET6 : AF_INET, ip.data(), shown, sizeof shown);
  std::string text = v6 ? "[" + std::string(shown) + "]" : std::string(shown);
  return port == 0 ? text : text + ":" + std::to_string(port);
}

bool Address::is_loopback() const noexcept {
  if (!v6) return ip[0] == 127;
  return std::all_of(ip.begin(), ip.end() - 1, [](auto byte) { return byte == 0; }) && ip[15] == 1;
}

Address Address::with_port(std::uint16_t other) const noexcept {
  Address address = *this;
  address.port = other;
  return address;
}

}  // namespace weir::sim::detail
