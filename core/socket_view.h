#pragma once

#include <cstdint>

namespace weir::detail {

/// What the kernel says of a TCP connection (tcp(7): TCP_INFO).
struct SocketView {
  std::uint64_t received = 0;      // bytes, acknowledged or not
  std::uint64_t acknowledged = 0;  // bytes of ours, by the peer
  std::uint32_t idle_ms = 0;       // since data came or went
  std::uint32_t round_trip_us = 0;
  std::uint32_t retransmits = 0;
};

}  // namespace weir::detail
