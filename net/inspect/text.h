#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace weir::detail {

/// As RFC 8259 has it, with its quotes.
std::string json_string(std::string_view text);

/// "1.250 s".
std::string seconds(std::uint32_t ms);

}  // namespace weir::detail
