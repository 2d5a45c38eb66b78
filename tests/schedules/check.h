#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "schedules.h"

namespace weir::schedules {

/// No schedule of the scenario fails.
inline void check(const std::string& name, const std::function<void()>& scenario,
                  const Limits& limits = {}) {
  const Outcome outcome = explore(name, scenario, limits);
  if (outcome.left_out) return;
  INFO("WEIR_SCHEDULE='", outcome.schedule, "'\n", outcome.account);
  CHECK(outcome.failure == "");
}

/// Some schedule fails, with that in its text.
inline void check_found(const std::string& name, const std::function<void()>& scenario,
                        const std::string& what, const Limits& limits = {}) {
  const Outcome outcome = explore(name, scenario, limits);
  if (outcome.left_out) return;
  INFO(outcome.failure, "\n", outcome.account);
  CHECK(outcome.failure.find(what) != std::string::npos);
}

}  // namespace weir::schedules
