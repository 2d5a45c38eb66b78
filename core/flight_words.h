#pragma once

#include <weir/core/log_line.h>
#include <weir/coro/flight_recorder.h>

#include <chrono>
#include <optional>
#include <source_location>
#include <string>

namespace weir::detail {

/// The event without its time: "task 5f3a10 resumed in serve at server.cpp:17". Throws
/// `std::bad_alloc`.
void describe(LogLine& to, const FlightRecorder::Event& event);

/// "task 5f3a10", of an event that has one.
void write_task(LogLine& to, const FlightRecorder::Event& event) noexcept;

/// Of one that was resumed, where it had waited; nothing if that is not known, or has been unloaded
/// since.
[[nodiscard]] std::optional<std::source_location> place_of(
    const FlightRecorder::Event& event) noexcept;

/// Of a connection that broke, why. Throws `std::bad_alloc`.
[[nodiscard]] std::string failure_of(const FlightRecorder::Event& event);

/// The last of this thread's loop, if it runs one, on standard error: for who asks no inspector any
/// more.
void write_last_events(std::chrono::milliseconds limit) noexcept;

}  // namespace weir::detail
