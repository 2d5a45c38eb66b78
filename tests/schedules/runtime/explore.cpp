#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "../schedules.h"
#include "symbols.h"
#include "threads.h"

namespace weir::schedules {
namespace {

Report* report = nullptr;

void copy(char* to, const std::string& text) noexcept {
  const std::size_t size = std::min(text.size(), Report::kMostText - 1);
  std::memcpy(to, text.data(), size);
  to[size] = '\0';
}

/// A process that shares a report with this one.
template <class Body>
int in_child(Report& shared, unsigned seconds, Body body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    ::signal(SIGALRM, SIG_DFL);
    ::signal(SIGABRT, SIG_DFL);
    ::signal(SIGSEGV, SIG_DFL);
    ::alarm(seconds);
    report = &shared;
    body();
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

class SharedReport {
 public:
  SharedReport()
      : memory_(::mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                       -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    new (memory_) Report;
  }
  SharedReport(const SharedReport&) = delete;
  SharedReport& operator=(const SharedReport&) = delete;
  ~SharedReport() { ::munmap(memory_, sizeof(Report)); }
  Report& operator*() const noexcept { return *static_cast<Report*>(memory_); }
  Report* operator->() const noexcept { return static_cast<Report*>(memory_); }

 private:
  void* memory_;
};

void run_one(const std::function<void()>& scenario) { Schedule::instance().run(scenario); }

/// False if there are more than may be.
bool explore_within(unsigned preemptions, const std::function<void()>& scenario,
                    std::uint64_t most) {
  Schedule& schedule = Schedule::instance();
  for (;;) {
    schedule.choices().begin_depth_first(preemptions);
    std::uint64_t explored = 0;
    // Where threads may be changed there may be more places than before: all over again.
    bool again = false;
    while (!again) {
      if (explored == most) return false;
      run_one(scenario);
      report->explored = ++explored;
      again = schedule.take_news();
      if (!again && !schedule.choices().next()) return true;
    }
  }
}

/// First with few preemptions, in which most faults show.
void explore_depth_first(const std::function<void()>& scenario, const Limits& limits) {
  for (unsigned preemptions = 0; preemptions <= limits.preemptions; ++preemptions) {
    report->preemptions = preemptions;
    report->exhausted = false;
    report->exhausted = explore_within(preemptions, scenario, limits.schedules);
    if (!report->exhausted) return;
  }
}

void explore_by_chance(const std::function<void()>& scenario, const Limits& limits) {
  Schedule& schedule = Schedule::instance();
  const std::uint64_t length = std::max<std::uint64_t>(schedule.choices().ordinal(), 2);
  for (std::uint64_t seed = 1; seed <= limits.random; ++seed) {
    schedule.choices().begin_random(seed);
    const std::size_t one = schedule.choices().draw(length);
    schedule.change_priorities_at({one, schedule.choices().draw(length)});
    run_one(scenario);
    report->random = seed;
  }
}

std::string account_of(const Report& of) {
  constexpr std::size_t kLast = 120;
  std::string text;
  for (std::size_t i = of.events > kLast ? of.events - kLast : 0; i < of.events; ++i) {
    const Report::Event& event = of.event[i];
    text += "  " + std::to_string(event.ordinal) + ": thread " + std::to_string(event.thread) +
            ": " + event.what + ' ' + (event.from != nullptr ? place(event.from) : "") + '\n';
  }
  return with_places_named(text);
}

std::optional<std::string_view> environment(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? std::optional<std::string_view>(value) : std::nullopt;
}

}  // namespace

void fail(const std::string& what) {
  copy(report->what, what);
  copy(report->schedule, Schedule::instance().choices_.text());
  report->state = Report::State::failed;
  ::_exit(1);
}

void require(bool holds, const char* what) {
  if (holds) return;
  if (current_thread == nullptr) std::abort();
  const Inside inside;
  fail(std::string("not so: ") + what + ' ' + place(__builtin_return_address(0)));
}

/// Of WEIR_SCHEDULE: the schedule if it is one of that scenario.
static std::optional<std::string_view> schedule_of(const std::string& name,
                                                   std::string_view given) noexcept {
  const std::size_t at = given.rfind('@');
  if (given.substr(0, at) != name) return std::nullopt;
  return at == std::string_view::npos ? std::string_view() : given.substr(at + 1);
}

static void say(const std::string& name, const Outcome& outcome, const Report& of) {
  std::printf("%s: %llu schedules with up to %u preemptions%s, %llu by chance, %llu steps%s%s\n",
              name.c_str(), static_cast<unsigned long long>(outcome.explored), of.preemptions,
              of.exhausted ? ", which are all" : "",
              static_cast<unsigned long long>(outcome.random),
              static_cast<unsigned long long>(of.longest), outcome.failure.empty() ? "" : "\n  ",
              outcome.failure.c_str());
}

Outcome explore(const std::string& name, const std::function<void()>& scenario, Limits limits) {
  const auto preemptions = environment("WEIR_SCHEDULES");
  if (preemptions) {
    limits.preemptions = static_cast<unsigned>(std::atoi(preemptions->data()));
    limits.schedules = 1'000'000;
    limits.random = 20'000;
  }
  const auto given = environment("WEIR_SCHEDULE");
  std::optional<std::string_view> only;
  if (given) {
    only = schedule_of(name, *given);
    if (!only) {
      Outcome none;
      none.left_out = true;
      return none;
    }
  }
  const SharedReport shared;
  const int status = in_child(*shared, preemptions ? 7'200 : 500, [&] {
    Schedule& schedule = Schedule::instance();
    schedule.report_to(*shared);
    schedule.choices().begin_depth_first(0);
    run_one(scenario);  // so that what is initialized once is
    if (only) {
      schedule.choices().begin_replay(*only);
      run_one(scenario);
      if (!schedule.choices().used_up())
        fail("the schedule has choices that this scenario does not come to");
    } else {
      (void)schedule.take_news();
      explore_depth_first(scenario, limits);
      explore_by_chance(scenario, limits);
    }
    shared->state = Report::State::done;
  });
  Outcome outcome;
  outcome.explored = shared->explored;
  outcome.random = shared->random;
  outcome.exhausted = shared->exhausted && shared->preemptions == limits.preemptions;
  if (shared->state != Report::State::done || only) outcome.account = account_of(*shared);
  if (shared->state != Report::State::done) {
    outcome.failure = shared->state == Report::State::failed
                          ? with_places_named(shared->what)
                          : "the process ended, with status " + std::to_string(status);
    outcome.schedule = name + '@' + shared->schedule;
  }
  say(name, outcome, *shared);
  if (only) std::printf("%s", outcome.account.c_str());
  return outcome;
}

std::uint64_t run_freely(const std::function<void()>& scenario, std::uint64_t rounds) {
  const SharedReport shared;
  (void)in_child(*shared, 60, [&] {
    for (std::uint64_t i = 0; i < rounds; ++i) {
      scenario();
      ++shared->explored;
    }
  });
  return shared->explored;
}

void Doorbell::ring() noexcept {
  if (const Inside inside; inside) {
    Schedule& schedule = Schedule::instance();
    schedule.point(inside.self(), this, inside.self().step_at("ring", __builtin_return_address(0)));
    rung_ = 1;
    schedule.wake(this);
    return;
  }
  __atomic_store_n(&rung_, 1, __ATOMIC_SEQ_CST);
  ::syscall(SYS_futex, &rung_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

bool Doorbell::wait(std::chrono::steady_clock::time_point deadline) noexcept {
  if (const Inside inside; inside) {
    Schedule& schedule = Schedule::instance();
    Thread& self = inside.self();
    const Step step = self.step_at("sleep", __builtin_return_address(0));
    const bool never = deadline == std::chrono::steady_clock::time_point::max();
    const Time until = never ? kNever : deadline.time_since_epoch().count();
    schedule.point(self, this, step);
    if (rung_ == 0 && until > schedule.now()) (void)schedule.block(self, this, step, until);
    return std::exchange(rung_, 0) != 0;
  }
  while (__atomic_exchange_n(&rung_, 0, __ATOMIC_SEQ_CST) == 0) {
    if (deadline <= std::chrono::steady_clock::now()) return false;
    ::syscall(SYS_futex, &rung_, FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0);
  }
  return true;
}

}  // namespace weir::schedules
