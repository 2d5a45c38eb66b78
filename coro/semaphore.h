#pragma once

#include <weir/coro/owner.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace weir {

/// A number of permits, handed out in the order in which they were asked for: a large request at
/// the head of the queue is not overtaken by small ones. Belongs to one loop; not thread-safe.
class Semaphore {
 public:
  /// Permits held; given back by the destructor. The semaphore must outlive it.
  class [[nodiscard("the permit is given back at once")]] Permit {
   public:
    Permit() noexcept = default;
    Permit(Semaphore& semaphore, std::size_t count) noexcept
        : semaphore_(&semaphore), count_(count) {}
    Permit(Permit&& other) noexcept
        : semaphore_(std::exchange(other.semaphore_, nullptr)), count_(other.count_) {}
    Permit& operator=(Permit&& other) noexcept {
      if (this != &other) {
        release();
        semaphore_ = std::exchange(other.semaphore_, nullptr);
        count_ = other.count_;
      }
      return *this;
    }
    ~Permit() { release(); }

    void release() noexcept {
      if (Semaphore* semaphore = std::exchange(semaphore_, nullptr)) semaphore->release(count_);
    }
    explicit operator bool() const noexcept { return semaphore_ != nullptr; }

   private:
    Semaphore* semaphore_ = nullptr;
    std::size_t count_ = 0;
  };

  class AcquireAwaiter {
   public:
    static constexpr char kWaitsFor[] = "Semaphore::acquire";

    AcquireAwaiter(Semaphore& semaphore, std::size_t count) noexcept
        : semaphore_(&semaphore), count_(count) {}
    AcquireAwaiter(AcquireAwaiter&& other) noexcept
        : semaphore_(other.semaphore_), count_(other.count_) {}
    ~AcquireAwaiter() {
      const bool waited = link.linked();
      link.unlink();
      if (granted_ && semaphore_ != nullptr) {
        semaphore_->release(count_);  // granted, but dropped before it was resumed
      } else if (!granted_ && waited) {
        semaphore_->grant();  // those behind a large request may fit
      }
    }

    bool await_ready() noexcept { return detail::Scheduler::may_go_on() && take(); }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
      semaphore_->check_owner("Semaphore::acquire or Mutex::lock");
      waiter_.suspend(handle);
      if (take()) {
        semaphore_->granted_.push_back(*this);
        waiter_.wake();
      } else {
        semaphore_->waiting_.push_back(*this);
      }
    }
    Permit await_resume() noexcept {
      granted_ = false;
      link.unlink();
      return semaphore_ != nullptr ? Permit(*semaphore_, count_) : Permit();
    }

   private:
    friend class Semaphore;
    friend struct detail::Hook;

    detail::Link link;

    bool take() noexcept {
      if (!semaphore_->waiting_.empty() || semaphore_->available_ < count_) return false;
      semaphore_->available_ -= count_;
      return granted_ = true;
    }

    Semaphore* semaphore_;  // nullptr once it was destroyed
    std::size_t count_;
    detail::Waiter waiter_;
    bool granted_ = false;
  };

  explicit Semaphore(std::size_t permits) noexcept : available_(permits), permits_(permits) {}
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;
  /// Whoever has been granted permits and has not resumed yet gets an empty `Permit`.
  ~Semaphore() {
    while (AcquireAwaiter* next = granted_.pop_front()) next->semaphore_ = nullptr;
  }

  /// `co_await acquire(n)` gives a `Permit` for n, waiting until they are free. Dropping it gives
  /// back what it was granted. Throws `std::invalid_argument` for more than the semaphore has:
  /// nobody could grant it.
  [[nodiscard("co_await it")]] AcquireAwaiter acquire(std::size_t count = 1) {
    if (count > permits_) {
      throw std::invalid_argument("weir: Semaphore::acquire: count " + std::to_string(count) +
                                  " is above the semaphore's " + std::to_string(permits_));
    }
    return AcquireAwaiter(*this, count);
  }

  [[nodiscard]] std::size_t available() const noexcept { return available_; }

 private:
  void release(std::size_t count) noexcept {
    check_owner("a permit of a Semaphore or lock of a Mutex");
    available_ += count;
    grant();
  }

  /// The loop is that of those who wait; without them there is none.
  void check_owner(const char* what) const noexcept {
    const AcquireAwaiter* next = waiting_.front();
    if (next != nullptr) detail::check_owner(*next->waiter_.scheduler(), what, "a Channel or on()");
  }

  void grant() noexcept {
    while (AcquireAwaiter* next = waiting_.front()) {
      if (next->count_ > available_) return;
      available_ -= next->count_;
      next->granted_ = true;
      granted_.push_back(*next);
      next->waiter_.wake();
    }
  }

  detail::List<AcquireAwaiter> waiting_;
  detail::List<AcquireAwaiter> granted_;  // about to be resumed
  std::size_t available_;
  std::size_t permits_;
};

}  // namespace weir
