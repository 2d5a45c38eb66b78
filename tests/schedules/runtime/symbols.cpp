#include "symbols.h"

#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "report.h"

namespace weir::schedules {
namespace {

/// Of those inlined into one another, the innermost that is no standard header's.
std::string name_of(const std::string& address) {
  std::array<char, 4096> path{};
  const ssize_t size = ::readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (size <= 0) return address;
  const std::string command =
      "addr2line -i -e '" + std::string(path.data()) + "' " + address + " 2>/dev/null";
  std::FILE* const lines = ::popen(command.c_str(), "r");
  if (lines == nullptr) return address;
  std::string found;
  for (std::array<char, 4096> line{}; std::fgets(line.data(), line.size(), lines) != nullptr;) {
    std::string_view text(line.data());
    text = text.substr(0, text.find_first_of(" \n"));
    if (text.find("/c++/") != std::string_view::npos || text.starts_with("??")) continue;
    found = text;
    break;
  }
  ::pclose(lines);
  return found.empty() ? address : found;
}

}  // namespace

/// Where a call returns to is behind it.
std::string place(const void* from) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "{0x%llx}",
                static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(from) - 1));
  return text.data();
}

std::string with_places_named(const std::string& text) {
  std::string named;
  std::size_t at = 0;
  for (;;) {
    const std::size_t begin = text.find("{0x", at);
    if (begin == std::string::npos) return named + text.substr(at);
    const std::size_t end = text.find('}', begin);
    named +=
        text.substr(at, begin - at) + "(" + name_of(text.substr(begin + 1, end - begin - 1)) + ")";
    at = end + 1;
  }
}

}  // namespace weir::schedules
