#include <sys/resource.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "../support/allocations.h"
#include "failing_engine.h"
#include "sweep.h"

using namespace weir;
using namespace weir::test;
using namespace weir::test::sweep;

namespace {

/// WEIR_SWEEP=part of a name: only those scenarios. Under ThreadSanitizer those that have threads.
bool wanted(std::string_view name) {
  if (kThreadSanitizer && name.find("loop") == std::string_view::npos) return false;
  const char* only = std::getenv("WEIR_SWEEP");
  return only == nullptr || name.find(only) != std::string_view::npos;
}

template <class Arm>
void sweep_all(const char* what, Arm arm_and_run) {
  logging::set_logger(nullptr);
  std::uint64_t points = 0;
  for_each_engine([&](Engine engine) {
    for (const Named& named : scenarios()) {
      if (!wanted(named.name)) continue;
      points += fail_each(named.name, named.scenario, engine, arm_and_run);
    }
  });
  std::printf("sweep: %llu %s failed\n", static_cast<unsigned long long>(points), what);
}

}  // namespace

TEST_CASE("no allocation that fails once leads to a crash, a hang, a leak or a wrong byte") {
  sweep_all("allocations, one at a time,", [](std::uint64_t nth, const auto& body) {
    const FailingAllocations failing(nth, 1);
    body();
    return failing.failed() > 0;
  });
}

TEST_CASE("no allocation that fails with all that follow leads to a crash, a hang or a leak") {
  sweep_all("allocations, each with all that follow,", [](std::uint64_t nth, const auto& body) {
    const FailingAllocations failing(nth);
    body();
    return failing.failed() > 0;
  });
}

TEST_CASE("no descriptor that cannot be had leads to a crash, a hang, a leak or a wrong byte") {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const auto limit_to = [&](rlim_t count) {
    rlimit limit = before;
    limit.rlim_cur = count;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  };
  sweep_all("limits of descriptors", [&](std::uint64_t nth, const auto& body) {
    limit_to(count_descriptors() + nth);
    body();
    limit_to(before.rlim_cur);
    return nth < 40;  // more than any scenario takes
  });
}

TEST_CASE("no system call that fails leads to a crash, a hang, a leak or a wrong byte") {
  for (std::size_t variant = 0; variant < (kSanitized ? 1 : 4); ++variant) {
    CAPTURE(variant);
    sweep_all("system calls", [&](std::uint64_t nth, const auto& run) {
      weir::test::sweep::Failure failure{nth, variant};
      FailingMachine machine(weir::detail::process_machine(), failure);
      run(machine);
      return failure.came.load();
    });
  }
}
