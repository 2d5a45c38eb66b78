#pragma once

#include <ctime>

namespace weir::detail {

/// Whether the current loop is simulated: then OpenSSL draws from the world's randomness whatever
/// it needs on this thread while that loop runs.
bool draw_from_simulation();

/// While this lives the thread draws from no simulation: for what is made once and used by many
/// runs.
class RealRandom {
 public:
  RealRandom() noexcept;
  RealRandom(const RealRandom&) = delete;
  RealRandom& operator=(const RealRandom&) = delete;
  ~RealRandom();
};

/// What simulated worlds take for the time at which they begin is this: the certificates that they
/// meet are of the real world.
void files_were_read() noexcept;
/// By which the current world's certificates are looked at.
[[nodiscard]] std::time_t simulated_time();

}  // namespace weir::detail
