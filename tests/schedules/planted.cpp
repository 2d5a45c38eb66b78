#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "check.h"

// What the explorer must find: the faults that it is for, each in a few lines, and the same without
// the fault.

using namespace weir::schedules;

namespace {

/// Each says that it comes, then looks whether the other does: at the most one goes in.
void enter_one_of_two(std::memory_order store, std::memory_order load) {
  std::atomic<bool> one{false};
  std::atomic<bool> other{false};
  int inside = 0;
  std::thread thread([&] {
    one.store(true, store);
    if (!other.load(load)) ++inside;
  });
  other.store(true, store);
  if (!one.load(load)) ++inside;
  thread.join();
  require(inside <= 1, "only one has gone in");
}

void hand_over_by_flag(std::memory_order store, std::memory_order load) {
  int value = 0;
  std::atomic<bool> there{false};
  std::thread thread([&] {
    value = 7;
    there.store(true, store);
  });
  if (there.load(load)) require(value == 7, "what was written before the flag is read");
  thread.join();
}

void fences_between(std::memory_order fence) {
  std::atomic<int> one{0};
  std::atomic<int> other{0};
  int first = 0;
  std::thread thread([&] {
    one.store(1, std::memory_order_relaxed);
    std::atomic_thread_fence(fence);
    first = other.load(std::memory_order_relaxed);
  });
  other.store(1, std::memory_order_relaxed);
  std::atomic_thread_fence(fence);
  const int second = one.load(std::memory_order_relaxed);
  thread.join();
  require(first + second > 0, "one of the two sees the other");
}

enum class Looks : std::uint8_t { once, until_it_is_there };

void wait_for_news(bool notifies_with_lock, Looks looks) {
  std::mutex mutex;
  std::condition_variable news;
  std::atomic<bool> there{false};
  std::thread thread([&] {
    std::unique_lock lock(mutex);
    if (looks == Looks::once) {
      if (!there.load()) news.wait(lock);
    } else {
      news.wait(lock, [&] { return there.load(); });
    }
    require(there.load(), "it is there");
  });
  if (notifies_with_lock) {
    const std::lock_guard lock(mutex);
    there.store(true);
  } else {
    there.store(true);
  }
  news.notify_one();
  thread.join();
}

/// Of a sleeper and who wakes it, as a loop's mailbox has them.
void wake_sleeper(std::memory_order order, bool looks_again) {
  struct Shared {
    std::atomic<int> posted{0};
    std::atomic<bool> asleep{false};
    Doorbell bell;
  } shared;
  std::thread poster([&] {
    shared.posted.fetch_add(1, order);
    if (shared.asleep.exchange(false, order)) shared.bell.ring();
  });
  while (shared.posted.load(std::memory_order_relaxed) == 0) {
    shared.asleep.store(true, order);
    if (looks_again && shared.posted.load(order) != 0) break;
    (void)shared.bell.wait(std::chrono::steady_clock::time_point::max());
    shared.asleep.store(false, std::memory_order_relaxed);
  }
  poster.join();
}

struct Counted {
  std::atomic<int> count{2};
  int value = 0;
};

void let_go(Counted* counted, std::memory_order order) {
  require(counted->value == 0, "it is as it was");
  if (counted->count.fetch_sub(1, order) == 1) delete counted;
}

void drop_last_of_two(std::memory_order order) {
  auto* counted = new Counted;
  std::thread thread([=] { let_go(counted, order); });
  let_go(counted, order);
  thread.join();
}

void look_before_dropping() {
  auto* counted = new Counted;
  const auto drop = [=] {
    if (counted->count.load() == 1) {
      delete counted;
    } else {
      counted->count.fetch_sub(1);
    }
  };
  std::thread thread(drop);
  drop();
  thread.join();
}

void lock_both(bool in_one_order) {
  std::mutex one;
  std::mutex other;
  std::thread thread([&] {
    const std::lock_guard first(in_one_order ? one : other);
    const std::lock_guard second(in_one_order ? other : one);
  });
  {
    const std::lock_guard first(one);
    const std::lock_guard second(other);
  }
  thread.join();
}

/// How often threads as they come meet it: by WEIR_SCHEDULES_FREELY, for that many rounds.
void run_freely(const std::string& name, const std::function<void()>& scenario) {
  const char* const rounds = std::getenv("WEIR_SCHEDULES_FREELY");
  if (rounds == nullptr) return;
  const std::uint64_t wanted = std::strtoull(rounds, nullptr, 10);
  const std::uint64_t ended = weir::schedules::run_freely(scenario, wanted);
  std::printf("%s: of %s rounds freely %llu before the first that failed\n", name.c_str(), rounds,
              static_cast<unsigned long long>(ended));
}

void check_planted(const std::string& name, const std::function<void()>& scenario,
                   const std::string& what) {
  run_freely(name, scenario);
  check_found(name, scenario, what);
}

void check_right(const std::string& name, const std::function<void()>& scenario) {
  const Outcome outcome = explore(name, scenario);
  if (outcome.left_out) return;
  INFO("WEIR_SCHEDULE='", outcome.schedule, "'\n", outcome.account);
  CHECK(outcome.failure == "");
  CHECK(outcome.exhausted);
}

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kBoth = std::memory_order_acq_rel;
constexpr auto kConsistent = std::memory_order_seq_cst;

}  // namespace

TEST_CASE("stores that are not sequentially consistent let both in (planted)") {
  check_planted("dekker, release", [] { enter_one_of_two(kRelease, kAcquire); }, "a data race");
  check_right("dekker", [] { enter_one_of_two(kConsistent, kConsistent); });
}

TEST_CASE("fences that are not sequentially consistent let neither see the other (planted)") {
  check_planted("fences, acq_rel", [] { fences_between(kBoth); }, "one of the two");
  check_right("fences", [] { fences_between(kConsistent); });
}

TEST_CASE("a missing release or acquire is a data race (planted)") {
  check_planted("flag, no release", [] { hand_over_by_flag(kRelaxed, kAcquire); }, "a data race");
  check_planted("flag, no acquire", [] { hand_over_by_flag(kRelease, kRelaxed); }, "a data race");
  check_right("flag", [] { hand_over_by_flag(kRelease, kAcquire); });
}

TEST_CASE("a notification between the look and the wait is lost (planted)") {
  check_planted(
      "condition, no lock", [] { wait_for_news(false, Looks::until_it_is_there); },
      "all threads wait");
  check_right("condition", [] { wait_for_news(true, Looks::until_it_is_there); });
}

TEST_CASE("a wait that ends for no reason is found where nobody looks again (planted)") {
  check_planted("condition, one look", [] { wait_for_news(true, Looks::once); }, "it is there");
}

TEST_CASE("a sleeper without a second look, or without order, is not woken (planted)") {
  check_planted("sleeper, one look", [] { wake_sleeper(kConsistent, false); }, "all threads wait");
  check_planted("sleeper, acq_rel", [] { wake_sleeper(kRelaxed, true); }, "all threads wait");
  check_right("sleeper", [] { wake_sleeper(kConsistent, true); });
}

TEST_CASE("a count that is dropped without order frees what is still read (planted)") {
  check_planted("count, relaxed", [] { drop_last_of_two(kRelaxed); }, "a data race");
  check_planted("count, looked at", [] { look_before_dropping(); }, "not freed");
  check_right("count", [] { drop_last_of_two(kBoth); });
}

TEST_CASE("two mutexes that are taken in two orders stop both (planted)") {
  check_planted("two orders", [] { lock_both(false); }, "all threads wait");
  check_right("one order", [] { lock_both(true); });
}
