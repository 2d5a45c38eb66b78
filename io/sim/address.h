#pragma once

#include <weir/core/sockets.h>

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace weir::sim::detail {

using namespace weir::detail;  // NOLINT: below weir it stands for the same

/// An IP address and port. IPv4 stands in the first four bytes.
struct Address {
  std::array<std::uint8_t, 16> ip{};
  bool v6 = false;
  std::uint16_t port = 0;

  static std::optional<Address> from(const RawAddress& raw) noexcept;
  /// An address without a port, as text.
  static std::optional<Address> parse(std::string_view text);
  [[nodiscard]] RawAddress raw() const noexcept;
  [[nodiscard]] std::string text() const;
  [[nodiscard]] bool is_any() const noexcept { return ip == std::array<std::uint8_t, 16>{}; }
  [[nodiscard]] bool is_loopback() const noexcept;
  [[nodiscard]] Address with_port(std::uint16_t other) const noexcept;

  friend auto operator<=>(const Address&, const Address&) = default;
};

}  // namespace weir::sim::detail
