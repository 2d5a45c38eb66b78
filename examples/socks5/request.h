#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// The messages of RFC 1928 as far as the proxy goes: no authentication, CONNECT.
namespace socks5 {

enum class Reply : unsigned char {
  succeeded = 0,
  failure = 1,
  not_allowed = 2,
  network_unreachable = 3,
  host_unreachable = 4,
  refused = 5,
  ttl_expired = 6,
  command_unknown = 7,
  address_type_unknown = 8,
};

inline constexpr char kVersion = 5;

namespace detail {
inline std::size_t byte_at(std::string_view message, std::size_t index) {
  return static_cast<unsigned char>(message[index]);
}
}  // namespace detail

/// How many bytes of the client's greeting (version, number of methods, methods) are missing at
/// least; 0: it is whole.
inline std::size_t missing_of_greeting(std::string_view message) {
  if (message.size() < 2) return 2 - message.size();
  const std::size_t whole = 2 + detail::byte_at(message, 1);
  return whole - std::min(message.size(), whole);
}

/// True if a whole greeting is of this version, and offers to do without authentication.
inline bool acceptable(std::string_view greeting) {
  return greeting[0] == kVersion && greeting.substr(2).find('\0') != std::string_view::npos;
}

/// The same for the request: version, command, 0, type of address, address, port. No more than that
/// is asked for of a message that is wrong already.
inline std::size_t missing_of_request(std::string_view message) {
  if (message.size() < 5) return 5 - message.size();
  std::size_t whole = 5;
  switch (message[3]) {
    case 1:
      whole = 4 + 4 + 2;
      break;
    case 3:
      whole = 4 + 1 + detail::byte_at(message, 4) + 2;
      break;
    case 4:
      whole = 4 + 16 + 2;
      break;
    default:
      break;
  }
  return whole - std::min(message.size(), whole);
}

struct Request {
  Reply problem = Reply::succeeded;  // what is wrong with it
  std::string target;                // "1.2.3.4:80", "[2001:db8::1]:80", "example.org:80"
};

/// Reads a whole request; `std::nullopt` if it is none of version 5.
inline std::optional<Request> parse_request(std::string_view message) {
  using detail::byte_at;
  if (message[0] != kVersion || message[2] != 0) return std::nullopt;
  if (message[1] != 1) return Request{Reply::command_unknown, {}};
  const auto port = [&] {
    const std::size_t end = message.size();
    return ':' + std::to_string((byte_at(message, end - 2) << 8) | byte_at(message, end - 1));
  };
  std::string host;
  switch (message[3]) {
    case 1:
      for (std::size_t i = 4; i < 8; ++i) {
        if (i > 4) host += '.';
        host += std::to_string(byte_at(message, i));
      }
      return Request{Reply::succeeded, host + port()};
    case 4:
      host = "[";
      for (std::size_t i = 4; i < 20; i += 2) {
        constexpr std::string_view kDigits = "0123456789abcdef";
        if (i > 4) host += ':';
        for (const std::size_t byte : {byte_at(message, i), byte_at(message, i + 1)}) {
          host += kDigits[byte >> 4];
          host += kDigits[byte & 15];
        }
      }
      return Request{Reply::succeeded, host + ']' + port()};
    case 3: {
      host = message.substr(5, message.size() - 7);
      // Names only: no colon, slash or at sign, which would make another kind of address of it.
      const bool name = !host.empty() && std::ranges::all_of(host, [](unsigned char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               c == '-' || c == '.' || c == '_';
      });
      if (!name) return Request{Reply::host_unreachable, {}};
      return Request{Reply::succeeded, host + port()};
    }
    default:
      return Request{Reply::address_type_unknown, {}};
  }
}

/// The reply to a request; `address` is 4 or 16 bytes, in the network's order.
inline std::string make_reply(Reply reply, std::string_view address = {"\0\0\0\0", 4},
                              std::uint16_t port = 0) {
  std::string message{kVersion, static_cast<char>(reply), '\0', address.size() == 16 ? '\4' : '\1'};
  message.append(address);
  message.push_back(static_cast<char>(port >> 8));
  message.push_back(static_cast<char>(port & 0xff));
  return message;
}

}  // namespace socks5
