#pragma once

#include <weir/coro/scheduler.h>

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

  class AcquireAwaiter : private Link {
   public:
    AcquireAwaiter(Semaphore& semaphore, std::size_t count) noexcept
        : semaphore_(semaphore), count_(count) {}
    AcquireAwaiter(AcquireAwaiter&& other) noexcept
        : semaphore_(other.semaphore_), count_(other.count_) {}
    ~AcquireAwaiter() {
      if (granted_) {
        semaphore_.release(count_);  // granted, but dropped before it was resumed
      } else if (linked()) {
        unlink();
        semaphore_.grant();  // those behind a large request may fit
      }
    }

    bool await_ready() noexcept {
      if (!semaphore_.waiting_.empty() || semaphore_.available_ < count_) return false;
      semaphore_.available_ -= count_;
      granted_ = true;
      return true;
    }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
      waiter_.suspend(handle);
      semaphore_.waiting_.push_back(*this);
    }
    Permit await_resume() noexcept {
      granted_ = false;
      return Permit(semaphore_, count_);
    }

   private:
    friend class Semaphore;
    friend class List<AcquireAwaiter>;

    Semaphore& semaphore_;
    std::size_t count_;
    Waiter waiter_;
    bool granted_ = false;
  };

  explicit Semaphore(std::size_t permits) noexcept : available_(permits), permits_(permits) {}
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;

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
    available_ += count;
    grant();
  }

  void grant() noexcept {
    while (AcquireAwaiter* next = waiting_.front()) {
      if (next->count_ > available_) return;
      next->unlink();
      available_ -= next->count_;
      next->granted_ = true;
      next->waiter_.wake();
    }
  }

  List<AcquireAwaiter> waiting_;
  std::size_t available_;
  std::size_t permits_;
};

}  // namespace weir
