#pragma once

#include <weir/coro/task.h>

#include <chrono>
#include <string>
#include <vector>

namespace top {

/// Where to look, and what that is called.
struct Target {
  std::string title;
  int pid = 0;  // 0: not known
  std::vector<std::string> addresses;
};

/// Draws on the terminal of the standard streams until somebody presses q, or a signal ends it, and
/// leaves the terminal as it was. Throws `std::runtime_error` where there is none that can be drawn
/// on, and when the process has ended.
weir::Task<> show(Target target, std::chrono::milliseconds interval);

}  // namespace top
