#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "message_parser.h"
#include "request_parser.h"
#include "response_parser.h"

namespace http {

/// How the end of a body is told.
enum class Framing { none, length, chunked, close };

namespace detail {

/// Whether a list has that word, in whatever case; the word is in lower case.
inline bool list_names(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    std::string_view item = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    while (item.starts_with(' ') || item.starts_with('\t')) item.remove_prefix(1);
    while (item.ends_with(' ') || item.ends_with('\t')) item.remove_suffix(1);
    if (std::ranges::equal(item, word,
                           [](unsigned char a, unsigned char b) { return std::tolower(a) == b; })) {
      return true;
    }
  }
  return false;
}

/// The header without what concerns this connection alone (RFC 9110, section 7.6.1): framing and
/// Connection are for each side to say anew, and nobody may have Host taken away.
inline std::string end_to_end(const Message& message) {
  static constexpr std::array<std::string_view, 12> kOwn = {
      "connection", "content-length",     "expect",           "host", "keep-alive",
      "te",         "proxy-authenticate", "proxy-connection", "via",  "proxy-authorization",
      "trailer",    "transfer-encoding"};
  std::string lines;
  for (const auto& [name, value] : message.headers) {
    bool dropped = name == "upgrade" || std::ranges::find(kOwn, name) != kOwn.end();
    for (const auto& [other, list] : message.headers) {
      dropped = dropped || (other == "connection" && list_names(list, name));
    }
    if (!dropped) ((lines += name) += ": ").append(value).append("\r\n");
  }
  return lines;
}

/// All of one name, as one list, and one more item.
inline std::string extended(const Message& message, std::string_view name, std::string_view item) {
  std::string list;
  for (const auto& [each, value] : message.headers) {
    if (each == name && !value.empty()) list.append(value).append(", ");
  }
  return list.append(item);
}

inline std::string framing_line(Framing framing, const Message& message) {
  if (framing == Framing::chunked) return "Transfer-Encoding: chunked\r\n";
  const std::string* length = message.header("content-length");
  return framing != Framing::length || length == nullptr ? ""
                                                         : "Content-Length: " + *length + "\r\n";
}

}  // namespace detail

inline Framing framing_of(const Request& request) {
  if (request.header("transfer-encoding") != nullptr) return Framing::chunked;
  return request.header("content-length") != nullptr ? Framing::length : Framing::none;
}

/// What the answer to that request goes on with: as it came, if the client can take it so.
inline Framing framing_of(const ResponseHead& head, bool has_no_body, const Request& request) {
  const bool sized = head.header("content-length") != nullptr && head.status != 204;
  if (has_no_body) return sized ? Framing::length : Framing::none;
  if (head.header("transfer-encoding") == nullptr && sized) return Framing::length;
  return request.minor_version > 0 ? Framing::chunked : Framing::close;
}

/// A piece of a body.
inline std::string framed(Framing framing, std::string piece) {
  if (framing != Framing::chunked || piece.empty()) return piece;
  std::array<char, 16> digits{};
  const auto end = std::to_chars(digits.begin(), digits.end(), piece.size(), 16).ptr;
  return std::string(digits.begin(), end).append("\r\n").append(piece).append("\r\n");
}
inline std::string_view end_of_body(Framing framing) {
  return framing == Framing::chunked ? "0\r\n\r\n" : "";
}

/// The request's head for a backend; nothing if its target is none. `client` is its address.
inline std::optional<std::string> forwarded(const Request& request, std::string_view client) {
  std::string_view target = request.target;
  const std::string* named = request.header("host");
  std::string host = named == nullptr ? "" : *named;
  if (target.starts_with("http://") || target.starts_with("https://")) {  // it names the host
    target.remove_prefix(target.find("//") + 2);
    host = target.substr(0, target.find_first_of("/?"));
    target.remove_prefix(host.size());
    if (host.empty() || !detail::is_host(host)) return std::nullopt;
  }
  const bool printable =
      std::ranges::all_of(target, [](unsigned char c) { return c > ' ' && c < 0x7f; });
  const bool whole = target == "*" && request.method == "OPTIONS";
  std::string path(target);
  if (!path.starts_with('/') && !whole && target.data() != request.target.data()) path = '/' + path;
  if (!printable || (!path.starts_with('/') && !whole)) return std::nullopt;
  using namespace detail;
  const Framing framing = framing_of(request);
  std::string head = request.method + ' ' + path + " HTTP/1.1\r\nHost: " + host + "\r\n";
  Message rest;
  for (const auto& header : request.headers) {
    if (header.first != "x-forwarded-for") rest.headers.push_back(header);
  }
  head += end_to_end(rest) + framing_line(framing, request);
  head += "X-Forwarded-For: " + extended(request, "x-forwarded-for", client) + "\r\n";
  return head += "Via: " + extended(request, "via", "1.1 weir") + "\r\n\r\n";
}

/// The answer's head for the client.
inline std::string forwarded(const ResponseHead& head, Framing framing, const Request& request,
                             bool keep_alive) {
  using namespace detail;
  std::string text = "HTTP/1.1 " + std::to_string(head.status) + ' ' + head.reason + "\r\n";
  text += end_to_end(head) + framing_line(framing, head);
  text += "Via: " + extended(head, "via", "1.1 weir") + "\r\n";
  if (!keep_alive) text += "Connection: close\r\n";
  if (keep_alive && request.minor_version == 0) text += "Connection: keep-alive\r\n";
  return text += "\r\n";
}

/// An answer of one's own, behind which the connection ends.
inline std::string refusal(int status, bool is_head) {
  static const std::map<int, std::string_view> reasons = {
      {400, "Bad Request"},        {405, "Method Not Allowed"},
      {408, "Request Timeout"},    {413, "Content Too Large"},
      {417, "Expectation Failed"}, {431, "Request Header Fields Too Large"},
      {501, "Not Implemented"},    {502, "Bad Gateway"},
      {504, "Gateway Timeout"},    {505, "HTTP Version Not Supported"}};
  const std::string body = std::to_string(status).append(" ").append(reasons.at(status)) + '\n';
  std::string text = "HTTP/1.1 " + body.substr(0, body.size() - 1);
  text += "\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(body.size());
  text += status == 405 ? "\r\nAllow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH" : "";
  text += "\r\nConnection: close\r\n\r\n";
  return is_head ? text : text + body;
}

}  // namespace http
