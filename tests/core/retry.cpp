#include <weir/core/retry.h>
#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

using namespace weir;
using namespace std::chrono_literals;

namespace {

[[noreturn]] void fail(std::errc error) { throw std::system_error(std::make_error_code(error)); }

Task<> run_body(const std::function<Task<>()>& body, bool& done) {
  co_await body();
  done = true;
}

/// In virtual time; what it throws is the case's.
void in_world(const std::function<Task<>()>& body, std::uint64_t seed = 1) {
  sim::World world({.seed = seed});
  bool done = false;
  world.add_host("10.0.0.1").spawn(run_body(body, done));
  world.run_for(24h);
  CHECK(done);
}

/// When each try was made, since the first.
std::vector<Duration> tries_of(RetryPolicy policy, std::uint64_t seed) {
  std::vector<Duration> times;
  const auto body = [&]() -> Task<> {
    const TimePoint begun = EventLoop::current().machine().now();
    const auto one = [&]() -> Task<> {
      times.push_back(EventLoop::current().machine().now() - begun);
      fail(std::errc::connection_refused);
      co_return;
    };
    auto [error, none] = co_await as_tuple(retry(policy, one));
    CHECK(error == std::errc::connection_refused);
  };
  in_world(body, seed);
  return times;
}

}  // namespace

TEST_CASE("a retry gives the first result, and throws the last error") {
  const auto body = []() -> Task<> {
    int tries = 0;
    const auto third = [&]() -> Task<std::string> {
      if (++tries < 3) fail(std::errc::connection_reset);
      co_return "the " + std::to_string(tries);
    };
    const std::string got = co_await retry({}, third);
    CHECK(got == "the 3");
    tries = 0;
    auto [error, text] = co_await as_tuple(retry({.max_attempts = 2}, third));
    CHECK(error == std::errc::connection_reset);
    CHECK(tries == 2);
  };
  in_world(body);
}

TEST_CASE("a retry does not do again what would fail again") {
  const auto body = []() -> Task<> {
    int tries = 0;
    const auto denied = [&]() -> Task<> {
      ++tries;
      fail(std::errc::permission_denied);
      co_return;
    };
    auto [error, none] = co_await as_tuple(retry({}, denied));
    CHECK(error == std::errc::permission_denied);
    CHECK(tries == 1);
    const auto wrong = [&]() -> Task<> {
      ++tries;
      throw std::logic_error("a bug");
      co_return;
    };
    std::string text;
    try {
      co_await retry({}, wrong);
    } catch (const std::logic_error& bug) {
      text = bug.what();
    }
    CHECK(text == "a bug");
    CHECK(tries == 2);
    RetryPolicy policy;
    policy.may_pass = [](const std::error_code& what) noexcept {
      return what == std::errc::permission_denied;
    };
    (void)co_await as_tuple(retry(policy, denied));
    CHECK(tries == 5);
  };
  in_world(body);
}

TEST_CASE("the delays of a retry double up to the longest, and are random in part") {
  const std::vector<Duration> plain =
      tries_of({.max_attempts = 6, .initial_delay = 1s, .max_delay = 5s, .jitter = 0}, 1);
  REQUIRE(plain.size() == 6);
  const std::vector<Duration> wanted = {0s, 1s, 3s, 7s, 12s, 17s};
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(plain[i] >= wanted[i]);
    CHECK(plain[i] < wanted[i] + 100ms);
  }
  const RetryPolicy half{.max_attempts = 6, .initial_delay = 1s, .max_delay = 5s, .jitter = 0.5};
  const std::vector<Duration> random = tries_of(half, 1);
  for (std::size_t i = 1; i < 6; ++i) {
    CHECK(random[i] >= wanted[i] / 2);
    CHECK(random[i] < wanted[i]);
  }
  CHECK(tries_of(half, 1) == random);
  CHECK(tries_of(half, 2) != random);
}

TEST_CASE("a budget bounds what is done again by what is done") {
  const auto body = []() -> Task<> {
    RetryBudget budget(0.1, 3);
    int tries = 0;
    const auto down = [&]() -> Task<> {
      ++tries;
      fail(std::errc::timed_out);
      co_return;
    };
    const RetryPolicy policy{.max_attempts = 10, .initial_delay = 1ms, .budget = &budget};
    for (int i = 0; i < 101; ++i) (void)co_await as_tuple(retry(policy, down));
    CHECK(tries == 101 + 3 + 10);
    CHECK(budget.left() < 1);
  };
  in_world(body);
}

TEST_CASE("a retry that is dropped drops the try, or its delay") {
  const auto body = []() -> Task<> {
    int begun = 0;
    int alive = 0;
    const auto slow = [&]() -> Task<> {
      struct Here {
        int& count;
        explicit Here(int& of) : count(of) { ++count; }
        ~Here() { --count; }
      } const here(alive);
      if (++begun == 2) fail(std::errc::connection_refused);
      co_await sleep(1h);
    };
    auto [error, none] = co_await as_tuple(timeout(10s, retry({}, slow)));
    CHECK(error == errc::deadline);
    CHECK(begun == 1);
    CHECK(alive == 0);
    const RetryPolicy patient{.initial_delay = 1min, .max_delay = 1min, .jitter = 0};
    auto [second, nothing] = co_await as_tuple(timeout(10s, retry(patient, slow)));
    CHECK(second == errc::deadline);
    CHECK(begun == 2);
    co_await sleep(10min);
    CHECK(begun == 2);
  };
  in_world(body);
}

TEST_CASE("errors that may pass are told from those that will not") {
  for (const std::errc error :
       {std::errc::connection_refused, std::errc::connection_reset, std::errc::timed_out,
        std::errc::broken_pipe, std::errc::host_unreachable, std::errc::too_many_files_open}) {
    CHECK(is_transient(std::make_error_code(error)));
  }
  CHECK(is_transient(errc::deadline));
  CHECK(is_transient(errc::try_again));
  for (const std::errc error : {std::errc::permission_denied, std::errc::operation_canceled,
                                std::errc::protocol_error, std::errc::invalid_argument}) {
    CHECK_FALSE(is_transient(std::make_error_code(error)));
  }
  CHECK_FALSE(is_transient(errc::closed_here));
  CHECK_FALSE(is_transient(errc::not_found));
}

TEST_CASE("a wrong policy of a retry throws, and the text names the option") {
  const auto body = []() -> Task<> {
    const auto never = []() -> Task<> { co_return; };
    const std::vector<std::pair<RetryPolicy, std::string>> wrong = {
        {{.initial_delay = -1ms}, "initial_delay"},
        {{.max_delay = -1ms}, "max_delay"},
        {{.initial_delay = 2s, .max_delay = 1s}, "initial_delay"},
        {{.jitter = 1.5}, "jitter"}};
    for (const auto& [policy, option] : wrong) {
      std::string text;
      try {
        co_await retry(policy, never);
      } catch (const std::invalid_argument& error) {
        text = error.what();
      }
      CHECK(text.find(option) != std::string::npos);
    }
  };
  in_world(body);
  CHECK_THROWS_AS(RetryBudget(-1), std::invalid_argument);
  CHECK_THROWS_AS(RetryBudget(1, -1), std::invalid_argument);
}

TEST_CASE("the longest delays that a policy may have are no error") {
  const auto longest = std::chrono::milliseconds::max();
  RetryPolicy policy;
  policy.max_attempts = 2;
  policy.max_delay = longest;
  policy.jitter = 0;
  const auto times = tries_of(policy, 1);
  REQUIRE(times.size() == 2);
  CHECK(times.at(1) / 1ms == 100);
  policy.initial_delay = longest;
  bool over = false;
  sim::World world({.seed = 1});
  const auto forever = [&over, policy]() -> Task<> {
    const auto one = []() -> Task<> {
      fail(std::errc::connection_refused);
      co_return;
    };
    co_await retry(policy, one);
    over = true;
  };
  world.add_host("10.0.0.1").run(forever);
  world.run_for(24h);
  CHECK_FALSE(over);
}
