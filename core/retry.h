#pragma once

#include <weir/core/sleep.h>
#include <weir/coro/task.h>

#include <chrono>
#include <system_error>
#include <type_traits>
#include <utility>

namespace weir {

/// How much of what is done may be done again, for all that share it: when a server is in trouble
/// its clients do not add to it. Each first try puts `ratio` of a retry in, up to `most`; each
/// retry takes one out. Belongs to one loop; not thread-safe.
class RetryBudget {
 public:
  /// It begins with `most`. Throws `std::invalid_argument` for a negative number.
  explicit RetryBudget(double ratio = 0.1, double most = 10);

  void put_in() noexcept;
  /// False if there is no whole one left.
  [[nodiscard]] bool take() noexcept;
  [[nodiscard]] double left() const noexcept { return left_; }

 private:
  double ratio_;
  double most_;
  double left_;
};

/// True for errors that may be gone the next time: refused, reset, timed out (`errc::deadline` and
/// the others too), unreachable, out of descriptors, a name server that did not answer.
[[nodiscard]] bool is_transient(const std::error_code& error) noexcept;

struct RetryPolicy {
  /// Tries in all; 0: no limit.
  unsigned max_attempts = 3;

  /// Before the second try; doubled before each further one, up to `max_delay`.
  std::chrono::milliseconds initial_delay = std::chrono::milliseconds(100);
  std::chrono::milliseconds max_delay = std::chrono::seconds(10);

  /// The part of each delay that is random, 0 to 1: clients that failed together do not come back
  /// together.
  double jitter = 1;

  /// Shared by what is retried together; nullptr: as often as the rest allows. It has to live as
  /// long as the retry.
  RetryBudget* budget = nullptr;

  /// Of which errors another try is made.
  bool (*may_pass)(const std::error_code&) noexcept = &is_transient;
};

namespace detail {

/// How far one retry has come.
class Retries {
 public:
  /// Throws `std::invalid_argument` that names the option.
  explicit Retries(const RetryPolicy& policy);
  /// Whether another try is to follow one that failed so.
  [[nodiscard]] bool may_follow(const std::error_code& error) noexcept;
  [[nodiscard]] Duration next_delay();

 private:
  RetryPolicy policy_;
  unsigned tries_ = 1;
  Duration delay_;
};

}  // namespace detail

/// `co_await retry(policy, function)` calls the function, awaits the task that it returns, and does
/// so again, after a delay, while that throws a `std::system_error` that may pass. Gives the first
/// result; throws the last error, and what else the task throws at once. The function is kept until
/// then. Only what may be done twice should be retried. Dropping it drops the try that is under
/// way. Throws `std::invalid_argument` for a bad option.
///
///     const auto fetch = [&]() -> Task<Page> { … };  // named (docs/compilers.md)
///     Page page = co_await retry({.max_attempts = 5}, fetch);
template <detail::TaskFunction Function>
std::invoke_result_t<Function&> retry(RetryPolicy policy, Function function) {
  detail::Retries retries(policy);
  for (;;) {
    Duration delay{};
    try {
      auto task = function();
      co_return co_await std::move(task);
    } catch (const std::system_error& error) {
      if (!retries.may_follow(error.code())) throw;
      delay = retries.next_delay();
    }
    co_await yield();  // a try may fail without having waited for anything
    co_await sleep(delay);
  }
}

}  // namespace weir
