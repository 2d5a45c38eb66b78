#pragma once

#include <weir/coro/scheduler.h>

#include <span>
#include <string_view>

namespace weir::detail {

/// Tells whoever started this process as a service how it is (sd_notify(3)): "READY=1",
/// "STOPPING=1", "WATCHDOG=1". Nothing where there is nobody (NOTIFY_SOCKET). It never waits; what
/// does not go is lost. From any thread.
void tell_service_manager(std::string_view state) noexcept;

/// Gives it copies of descriptors, 253 at the most, to keep for the next process of the service
/// (FDSTORE=1). False where there is nobody, they are more, or it did not go.
bool store_descriptors(std::span<const int> descriptors) noexcept;

/// How long the service may say nothing before it is taken for stuck (sd_watchdog_enabled(3)); 0:
/// nobody looks, or not at this process.
[[nodiscard]] Duration service_watchdog() noexcept;

}  // namespace weir::detail
