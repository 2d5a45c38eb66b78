#include <weir/net/inspect/text.h>

#include <array>
#include <cstdio>

namespace weir::detail {

std::string json_string(std::string_view text) {
  std::string written = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      written += '\\';
      written += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      std::array<char, 8> code{};
      std::snprintf(code.data(), code.size(), "\\u%04x", static_cast<unsigned>(c));
      written += code.data();
    } else {
      written += c;
    }
  }
  return written + '"';
}

std::string seconds(std::uint32_t ms) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3f s", ms / 1000.0);
  return text.data();
}

}  // namespace weir::detail
