#pragma once

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "sha1.h"

namespace websocket {

/// What a client's request is answered with: 101, or the status that refuses it.
struct Upgrade {
  int status = 400;
  std::string path = {};    // without the query
  std::string accept = {};  // Sec-WebSocket-Accept
  std::string origin = {};  // of the page that a browser has loaded; empty: none was named
};

namespace detail {

inline bool same_word(std::string_view one, std::string_view other) {
  return std::ranges::equal(one, other, [](unsigned char a, unsigned char b) {
    return std::tolower(a) == std::tolower(b);
  });
}
inline std::string_view without_blanks(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
  return text;
}
/// The next part up to the mark, or all there is; `text` is what follows.
inline std::string_view next_part(std::string_view& text, std::string_view mark) {
  const std::size_t end = std::min(text.find(mark), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + mark.size(), text.size()));
  return part;
}
inline bool list_has(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    if (same_word(without_blanks(next_part(list, ",")), word)) return true;
  }
  return false;
}
inline bool is_token(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) != 0 ||
           std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
  });
}
/// 16 bytes in base64.
inline bool is_key(std::string_view text) {
  return text.size() == 24 && text.ends_with("==") &&
         std::ranges::all_of(text.substr(0, 22), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '+' || c == '/';
         });
}

using Headers = std::map<std::string, std::string>;  // names in lower case

/// Nothing for what is no header. Of what may be there several times the values stand in a list.
inline std::optional<Headers> parse_headers(std::string_view lines) {
  Headers headers;
  while (!lines.empty()) {
    std::string_view line = next_part(lines, "\r\n");
    const bool sound = std::ranges::all_of(
        line, [](unsigned char c) { return (c >= ' ' && c != 0x7f) || c == '\t'; });
    if (!sound || line.find(':') == std::string_view::npos) return std::nullopt;
    const std::string_view name = next_part(line, ":");
    if (!is_token(name)) return std::nullopt;  // a line that goes on from the last begins blank
    std::string key(name);
    std::ranges::transform(key, key.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const auto [place, is_new] = headers.try_emplace(std::move(key), without_blanks(line));
    if (!is_new) (place->second += ", ") += without_blanks(line);
  }
  return headers;
}

}  // namespace detail

/// Reads a whole head, up to its empty line, as RFC 6455, section 4.2.1 has a server do.
inline Upgrade read_upgrade(std::string_view head) {
  using namespace detail;
  head.remove_suffix(head.ends_with("\r\n\r\n") ? 4 : 0);
  std::string_view line = next_part(head, "\r\n");
  const std::string_view method = next_part(line, " ");
  std::string_view target = next_part(line, " ");
  if (line != "HTTP/1.1" || !target.starts_with('/') || !is_token(method)) return {};
  const bool printable =
      std::ranges::all_of(target, [](unsigned char c) { return c > ' ' && c < 0x7f; });
  auto headers = parse_headers(head);
  if (!printable || !headers) return {};
  auto& all = *headers;
  const std::string& host = all["host"];
  if (host.empty() || host.find(',') != std::string::npos) return {};
  if (all.contains("transfer-encoding")) return {};  // a body would be taken for frames
  if (all.contains("content-length") && all["content-length"] != "0") return {};
  if (method != "GET") return {.status = 405};
  if (!list_has(all["upgrade"], "websocket") || !list_has(all["connection"], "upgrade") ||
      all["sec-websocket-version"] != "13") {
    return {.status = 426};
  }
  if (!is_key(all["sec-websocket-key"])) return {};
  const std::string mixed = all["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  return {.status = 101,
          .path = std::string(next_part(target, "?")),
          .accept = base64(sha1(mixed)),
          .origin = all["origin"]};
}

/// What goes to the client. After all but 101 the connection ends.
inline std::string answer(const Upgrade& upgrade) {
  static const std::map<int, std::string> reasons = {
      {400, "Bad Request"},        {403, "Forbidden"},        {404, "Not Found"},
      {405, "Method Not Allowed"}, {426, "Upgrade Required"}, {431, "Request Header Too Large"}};
  if (upgrade.status == 101) {
    return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           "Sec-WebSocket-Accept: " +
           upgrade.accept + "\r\n\r\n";
  }
  std::string text = "HTTP/1.1 " + std::to_string(upgrade.status) + ' ';
  text += reasons.at(upgrade.status);
  text += "\r\nConnection: close\r\nContent-Length: 0\r\n";
  if (upgrade.status == 405) text += "Allow: GET\r\n";
  if (upgrade.status == 426) {
    text += "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    text.replace(text.find("close"), 5, "close, Upgrade");
  }
  return text += "\r\n";
}

}  // namespace websocket
