#include <weir/core/event_loop.h>
#include <weir/core/retry.h>
#include <weir/coro/error.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <string>

namespace weir {
namespace {

[[noreturn]] void reject(const char* what, const std::string& value, const char* why) {
  throw std::invalid_argument("weir: " + std::string(what) + " is " + value + "; it must " + why);
}

}  // namespace

RetryBudget::RetryBudget(double ratio, double most) : ratio_(ratio), most_(most), left_(most) {
  if (!(ratio >= 0)) reject("RetryBudget's ratio", std::to_string(ratio), "not be negative");
  if (!(most >= 0)) reject("RetryBudget's most", std::to_string(most), "not be negative");
}

void RetryBudget::put_in() noexcept { left_ = std::min(left_ + ratio_, most_); }

bool RetryBudget::take() noexcept {
  // A tenth ten times is a little less than one.
  constexpr double kNearlyOne = 1 - 1e-9;
  if (left_ < kNearlyOne) return false;
  left_ = std::max(left_ - 1, 0.0);
  return true;
}

bool is_transient(const std::error_code& error) noexcept {
  if (error == errc::try_again) return true;
  for (const int one : {ECONNREFUSED, ECONNRESET, ECONNABORTED, ETIMEDOUT, EPIPE, EADDRINUSE,
                        EADDRNOTAVAIL, ENETUNREACH, EHOSTUNREACH, ENETDOWN, ENETRESET, EAGAIN,
                        EINTR, ENOTCONN, EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
    if (error == std::error_condition(one, std::generic_category())) return true;
  }
  return error == std::error_condition(EHOSTDOWN, std::generic_category());
}

detail::Retries::Retries(const RetryPolicy& policy)
    : policy_(policy), delay_(to_duration(policy.initial_delay)) {
  const auto check = [](const char* option, std::chrono::milliseconds value) {
    if (value.count() < 0) {
      reject(option, std::to_string(value.count()) + " ms", "not be negative");
    }
  };
  check("RetryPolicy::initial_delay", policy.initial_delay);
  check("RetryPolicy::max_delay", policy.max_delay);
  if (policy.initial_delay > policy.max_delay) {
    reject("RetryPolicy::initial_delay", std::to_string(policy.initial_delay.count()) + " ms",
           "not be above max_delay");
  }
  if (!(policy.jitter >= 0 && policy.jitter <= 1)) {
    reject("RetryPolicy::jitter", std::to_string(policy.jitter), "be 0 to 1");
  }
  if (policy.budget != nullptr) policy.budget->put_in();
}

bool detail::Retries::may_follow(const std::error_code& error) noexcept {
  if (policy_.max_attempts != 0 && tries_ >= policy_.max_attempts) return false;
  if (policy_.may_pass != nullptr && !policy_.may_pass(error)) return false;
  if (policy_.budget != nullptr && !policy_.budget->take()) return false;
  ++tries_;
  return true;
}

Duration detail::Retries::next_delay() {
  constexpr double kRange = 1ULL << 53;
  const double random = static_cast<double>(EventLoop::current().machine().random() >> 11) / kRange;
  const auto shortened = std::chrono::duration<double, std::nano>(
      static_cast<double>(delay_.count()) * (1 - policy_.jitter * random));
  const Duration longest = to_duration(policy_.max_delay);
  delay_ = delay_ > longest / 2 ? longest : delay_ * 2;
  return to_duration(shortened);
}

}  // namespace weir
