#include <weir/core/timer_wheel.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "../support/virtual_loop.h"

using namespace weir;
using namespace weir::detail;
using namespace std::chrono_literals;

namespace {

constexpr TimePoint kStart{1h};
constexpr Duration kTick{1024};  // what deadlines are rounded up to

/// The wheel with the scheduler that arms its timers.
class Wheel final : public Scheduler {
 public:
  TimePoint now() noexcept override { return kStart; }
  TimePoint deadline_in(Duration delay) noexcept override { return after(kStart, delay); }
  void post(std::unique_ptr<Posted>) override {}
  void report_failure(std::exception_ptr, const char*) noexcept override {}

  TimerWheel timers{kStart};

 private:
  void knock() noexcept override {}
  void arm(Timer& timer) override { timers.arm(timer); }
  void disarm(Timer& timer) noexcept override { timers.disarm(timer); }
};

struct Alarm : Timer {
  explicit Alarm(std::function<void(Alarm&)> function = {})
      : Timer([](Timer& timer) noexcept {
          auto& self = static_cast<Alarm&>(timer);
          ++self.fired;
          if (self.on_fire) self.on_fire(self);
        }),
        on_fire(std::move(function)) {}
  std::function<void(Alarm&)> on_fire;
  int fired = 0;
};

}  // namespace

TEST_CASE("timers fire in the order of their deadlines, and never early") {
  Wheel wheel;
  std::vector<int> journal;
  std::vector<std::unique_ptr<Alarm>> alarms;
  const Duration delays[] = {5ms, 1h, 2ms, 0ms, 30s, 100ns, 2ms};
  for (int i = 0; i < 7; ++i) {
    alarms.push_back(std::make_unique<Alarm>([&, i](Alarm&) { journal.push_back(i); }));
    alarms.back()->arm(wheel, kStart + delays[i]);
  }
  CHECK(wheel.timers.size() == 7);
  CHECK(wheel.timers.expire(kStart) == 0);
  wheel.timers.expire(kStart + 5ms - 1ns);
  CHECK(journal == std::vector<int>{3, 5, 2, 6});
  wheel.timers.expire(kStart + 5ms + kTick);
  CHECK(journal.back() == 0);
  CHECK(wheel.timers.next() <= kStart + 30s + kTick);
  wheel.timers.expire(kStart + 2h);
  CHECK(journal == std::vector<int>{3, 5, 2, 6, 0, 4, 1});
  CHECK(wheel.timers.empty());
  CHECK(wheel.timers.next() == TimePoint::max());
}

TEST_CASE("a timer can be armed again, later and earlier, and disarmed") {
  Wheel wheel;
  Alarm alarm;
  alarm.arm(wheel, kStart + 1s);
  alarm.arm(wheel, kStart + 1h);
  CHECK(wheel.timers.size() == 1);
  wheel.timers.expire(kStart + 1min);
  CHECK(alarm.fired == 0);
  alarm.arm(wheel, kStart + 2min);
  wheel.timers.expire(kStart + 3min);
  CHECK(alarm.fired == 1);
  CHECK_FALSE(alarm.armed());
  alarm.arm(wheel, kStart + 4min);
  alarm.disarm();
  alarm.disarm();
  CHECK(wheel.timers.empty());
  wheel.timers.expire(kStart + 1h);
  CHECK(alarm.fired == 1);
  {
    Alarm gone;
    gone.arm(wheel, kStart + 2h);
  }
  CHECK(wheel.timers.empty());
}

TEST_CASE("a handler may arm its own timer, and disarm or destroy those that are due with it") {
  Wheel wheel;
  auto second = std::make_unique<Alarm>();
  auto third = std::make_unique<Alarm>();
  int rounds = 0;
  Alarm first([&](Alarm& self) {
    second->disarm();
    third.reset();
    if (++rounds < 5) self.arm(wheel, kStart + rounds * 10ms);
  });
  first.arm(wheel, kStart + 1ms);
  second->arm(wheel, kStart + 1ms);
  third->arm(wheel, kStart + 1ms);
  wheel.timers.expire(kStart + 1s);
  CHECK(rounds == 5);
  CHECK(second->fired == 0);
  CHECK(wheel.timers.empty());
}

TEST_CASE("deadlines that have passed fire with the next tick, the far future never") {
  Wheel wheel;
  Alarm past;
  Alarm before_the_clock;
  Alarm long_before;
  Alarm future;
  Alarm century;
  past.arm(wheel, kStart - 1s);
  before_the_clock.arm(wheel, TimePoint(-1s));
  long_before.arm(wheel, TimePoint::min());
  future.arm(wheel, TimePoint::max());
  century.arm(wheel, kStart + 24h * 36500);
  wheel.timers.expire(kStart + 2 * kTick);
  CHECK(past.fired == 1);
  CHECK(before_the_clock.fired == 1);
  CHECK(long_before.fired == 1);
  wheel.timers.expire(kStart + 24h * 36501);
  CHECK(century.fired == 1);
  CHECK(future.fired == 0);
  wheel.timers.expire(TimePoint::max());
  CHECK(wheel.timers.size() == 1);
  CHECK(future.armed());
}

TEST_CASE("delays saturate") {
  CHECK(after(kStart, Duration::max()) == TimePoint::max());
  CHECK(after(kStart, -1h) == kStart);
  CHECK(to_duration(std::chrono::hours::max()) == Duration::max());
  CHECK(to_duration(std::chrono::hours::min()) == Duration::min());
  CHECK(to_duration(std::chrono::duration<double, std::nano>(1.5)) == 2ns);
  CHECK(to_duration(1ms) == 1'000'000ns);
}

TEST_CASE("a wheel does what a sorted multimap does, whatever is armed, disarmed and expired") {
  for (unsigned seed = 1; seed <= 5; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    Wheel wheel;
    TimePoint now = kStart;
    constexpr std::size_t kTimers = 500;
    std::multimap<TimePoint, std::size_t> model;
    std::vector<std::multimap<TimePoint, std::size_t>::iterator> entries(kTimers, model.end());
    std::vector<std::unique_ptr<Alarm>> alarms;
    bool early = false;
    bool unknown = false;
    TimePoint expiring_at = now;
    for (std::size_t i = 0; i < kTimers; ++i) {
      alarms.push_back(std::make_unique<Alarm>([&, i](Alarm& alarm) {
        if (alarm.deadline() > expiring_at) early = true;
        if (entries[i] == model.end()) {
          unknown = true;
          return;
        }
        model.erase(entries[i]);
        entries[i] = model.end();
      }));
    }
    const auto disarm = [&](std::size_t i) {
      alarms[i]->disarm();
      if (entries[i] != model.end()) model.erase(entries[i]);
      entries[i] = model.end();
    };
    for (int step = 0; step < 20'000; ++step) {
      const auto i = static_cast<std::size_t>(random() % kTimers);
      const auto kind = random() % 10;
      if (kind < 6) {
        disarm(i);
        // From nanoseconds to hours.
        const Duration delay(static_cast<std::int64_t>(random() % (1ULL << (random() % 44))));
        alarms[i]->arm(wheel, now + delay);
        entries[i] = model.emplace(now + delay, i);
      } else if (kind < 8) {
        disarm(i);
      } else {
        const Duration step_by(static_cast<std::int64_t>(random() % (1ULL << (random() % 40))));
        now += step_by;
        expiring_at = now;
        wheel.timers.expire(now);
        // All that are due by a tick have fired.
        if (!model.empty()) CHECK(model.begin()->first > now - kTick);
      }
      if (wheel.timers.size() != model.size()) {
        FAIL("size ", wheel.timers.size(), " instead of ", model.size(), " at step ", step);
      }
      if (!model.empty()) {
        const TimePoint rounded_up = model.begin()->first + kTick;
        if (wheel.timers.next() > std::max(rounded_up, now + kTick)) {
          FAIL("next() is too late at step ", step);
        }
      } else {
        CHECK(wheel.timers.next() == TimePoint::max());
      }
    }
    CHECK_FALSE(early);
    CHECK_FALSE(unknown);
    for (std::size_t i = 0; i < kTimers; ++i) disarm(i);
  }
}

TEST_CASE("a million timers can be armed, half of them cancelled, and the rest expired") {
  Wheel wheel;
  struct Counting : Timer {
    Counting() : Timer([](Timer& timer) noexcept { ++static_cast<Counting&>(timer).fired; }) {}
    Counting(const Counting&) = delete;
    int fired = 0;
  };
  constexpr std::size_t kTimers = 1'000'000;
  const auto timers = std::make_unique<Counting[]>(kTimers);
  std::mt19937_64 random(7);
  for (std::size_t i = 0; i < kTimers; ++i) {
    timers[i].arm(wheel, kStart + Duration(static_cast<std::int64_t>(random() % 60'000'000'000)));
  }
  CHECK(wheel.timers.size() == kTimers);
  for (std::size_t i = 0; i < kTimers; i += 2) timers[i].disarm();
  CHECK(wheel.timers.size() == kTimers / 2);
  std::size_t fired = 0;
  std::size_t calls = 0;
  TimePoint now = kStart;
  while (!wheel.timers.empty()) {
    now = std::max(now + 1ms, wheel.timers.next());
    fired += wheel.timers.expire(now);
    ++calls;
  }
  CHECK(fired == kTimers / 2);
  CHECK(calls <= 60'100);
  bool right = true;
  for (std::size_t i = 0; i < kTimers; ++i) {
    right = right && timers[i].fired == static_cast<int>(i % 2);
  }
  CHECK(right);
}
