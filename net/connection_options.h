#pragma once

#include <chrono>
#include <cstddef>

namespace weir {

/// Marks of the output side, in bytes.
struct WaterMarks {
  std::size_t high = 1 << 20;   // a send that finds or makes this much waits …
  std::size_t low = 256 << 10;  // … until this little is left
};

struct ConnectionOptions {
  WaterMarks water_marks = {};

  /// Unread bytes at which receiving is paused, until half of them are read. A mark, not a limit:
  /// what the kernel has under way by then still comes in.
  std::size_t input_high = 512 << 10;

  /// How long a close may go on in the background: to flush, and to wait for the peer's FIN.
  std::chrono::milliseconds linger = std::chrono::seconds(5);

  bool no_delay = true;
  bool keep_alive = true;  // first probe after 60 s, then every 10 s, 6 times
};

namespace detail {

/// Throw `std::invalid_argument` that names the option and its value.
void check(const ConnectionOptions& options);
void check(WaterMarks marks, std::size_t input_high, const char* options);

}  // namespace detail
}  // namespace weir
