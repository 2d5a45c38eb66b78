#pragma once

#include <weir/core/event_loop.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "json.h"

namespace look {

/// How late a loop's timers fired, all of them together.
struct Lag {
  double seconds = 0;
  double timers = 0;
};

/// What an inspector told: `/loops`, `/tasks` and `/connections`, each an array, and of `/metrics`
/// the lag of each loop, by its number.
struct Look {
  std::string address;
  weir::TimePoint when;  // on the loop's clock
  Json loops;
  Json tasks;
  Json connections;
  std::map<std::uint64_t, Lag> lags;
};

/// Of a loop.
bool is_stuck(const Json& loop);

/// How many there are of what.
struct Counts {
  std::size_t loops = 0;
  std::size_t stuck = 0;
  std::uint64_t tasks = 0;
  std::size_t connections = 0;

  /// In one line.
  [[nodiscard]] std::string text() const;
};
Counts counts_of(const Look& look);

/// Asks the inspector at an address that `weir::connect` reads. Throws `std::runtime_error`, which
/// says in one line what is wrong: nobody answers there, or not in time, or it is no inspector.
weir::Task<Look> look_at(std::string address, std::chrono::milliseconds patience);

/// The same with the first of the addresses where an inspector answers, of which each has a second
/// if there are several: the others are other servers', which may say nothing. Throws what was
/// wrong with the last.
weir::Task<Look> look_at_any(std::vector<std::string> addresses,
                             std::chrono::milliseconds patience);

}  // namespace look
