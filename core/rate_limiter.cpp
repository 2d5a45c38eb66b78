#include <weir/core/rate_limiter.h>
#include <weir/coro/owner.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace weir {
namespace {

constexpr double kNanoseconds = 1e9;
/// Longer than anything lasts, and far from the end of the clock.
constexpr double kLongest = 1e18;

Duration time_of(double tokens, double per_second) {
  return Duration(static_cast<Duration::rep>(
      std::min(std::round(tokens / per_second * kNanoseconds), kLongest)));
}

[[noreturn]] void reject(const char* what, double value, const char* why) {
  throw std::invalid_argument("weir: RateLimiter: " + std::string(what) + " is " +
                              std::to_string(value) + "; it must " + why);
}

}  // namespace

RateLimiter::RateLimiter(double per_second, double burst) : per_second_(per_second), alarm_(*this) {
  if (!(per_second > 0)) reject("the rate", per_second, "be above zero");
  if (!(burst > 0)) reject("the burst", burst, "be above zero");
  bucket_ = time_of(burst, per_second);
}

RateLimiter::~RateLimiter() {
  while (AcquireAwaiter* next = granted_.pop_front()) next->limiter_ = nullptr;
}

Duration RateLimiter::cost_of(double tokens) const {
  if (!(tokens >= 0)) reject("the number of tokens", tokens, "not be negative");
  return time_of(tokens, per_second_);
}

TimePoint RateLimiter::due(Duration cost) const noexcept {
  return full_at_ - (bucket_ - std::min(cost, bucket_));
}

bool RateLimiter::take(Duration cost, TimePoint now) noexcept {
  full_at_ = std::max(full_at_, now);
  if (due(cost) > now) return false;
  full_at_ = detail::after(full_at_, cost);
  return true;
}

void RateLimiter::give_back(Duration cost) noexcept {
  full_at_ -= cost;
  grant();
}

void RateLimiter::grant() noexcept {
  AcquireAwaiter* next = waiting_.front();
  if (next == nullptr) return alarm_.disarm();
  detail::Scheduler& scheduler = *next->waiter_.scheduler();
  for (; next != nullptr && take(next->cost_, scheduler.now()); next = waiting_.front()) {
    next->granted_ = true;
    granted_.push_back(*next);
    next->waiter_.wake();
  }
  if (next != nullptr) alarm_.arm(scheduler, due(next->cost_));
}

RateLimiter::AcquireAwaiter RateLimiter::acquire(double tokens) { return {*this, cost_of(tokens)}; }

bool RateLimiter::try_acquire(double tokens) {
  const Duration cost = cost_of(tokens);
  return waiting_.empty() && take(cost, detail::Scheduler::current().now());
}

double RateLimiter::available() const {
  const TimePoint now = detail::Scheduler::current().now();
  const Duration there = bucket_ - std::max(full_at_ - now, Duration::zero());
  return static_cast<double>(there.count()) / kNanoseconds * per_second_;
}

RateLimiter::AcquireAwaiter::~AcquireAwaiter() {
  const bool was_first = !granted_ && link.linked() && limiter_->waiting_.front() == this;
  link.unlink();
  if (granted_ && limiter_ != nullptr) {
    limiter_->give_back(cost_);  // dropped before it was resumed
  } else if (was_first) {
    limiter_->grant();  // who comes next may want less
  }
}

bool RateLimiter::AcquireAwaiter::await_ready() {
  if (!detail::Scheduler::may_go_on() || !limiter_->waiting_.empty()) return false;
  return granted_ = limiter_->take(cost_, detail::Scheduler::current().now());
}

void RateLimiter::AcquireAwaiter::await_suspend(std::coroutine_handle<> handle) {
  waiter_.suspend(handle);
  if (const AcquireAwaiter* first = limiter_->waiting_.front()) {
    detail::check_owner(*first->waiter_.scheduler(), "RateLimiter::acquire", "a LoopLocal");
  }
  limiter_->waiting_.push_back(*this);
  limiter_->grant();
}

}  // namespace weir
