#pragma once

#include <weir/core/log_line.h>
#include <weir/coro/flight_recorder.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <source_location>
#include <string>

namespace weir::detail {

/// Where tasks had waited that were resumed, each found out once: a look at what is loaded goes
/// through all the symbols of a library, and most events are of a few places.
class Places {
 public:
  /// Nothing if it is not known, has been unloaded since, or the event is none of those.
  [[nodiscard]] std::optional<std::source_location> of(const FlightRecorder::Event& event) noexcept;

 private:
  struct Known {
    std::uint64_t what = 0;
    std::optional<std::source_location> place;
  };

  std::array<Known, 128> known_;
};

/// What `Waiter::place` gave, as a place. Nothing if it is none, or not there any more.
[[nodiscard]] std::optional<std::source_location> place_at(std::uint64_t what) noexcept;

/// The event without its time: "task 5f3a10 resumed in serve at server.cpp:17". Throws
/// `std::bad_alloc`.
void describe(LogLine& to, const FlightRecorder::Event& event, Places& places);

/// "task 5f3a10", of an event that has one.
void write_task(LogLine& to, const FlightRecorder::Event& event) noexcept;

/// Of a connection that broke, why. Throws `std::bad_alloc`.
[[nodiscard]] std::string failure_of(const FlightRecorder::Event& event);

/// The last of this thread's loop, if it runs one, on standard error: for who asks no inspector any
/// more.
void write_last_events(std::chrono::milliseconds limit) noexcept;

}  // namespace weir::detail
