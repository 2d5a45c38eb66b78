#pragma once

#include <weir/coro/frame_allocator.h>
#include <weir/coro/scheduler.h>

#include <coroutine>
#include <exception>
#include <optional>
#include <stdexcept>
#include <utility>

namespace weir {

/// A coroutine that yields values and may await in between:
///
///     while (auto item = co_await generator.next()) use(*item);
///
/// Owns its frame; lives and dies on one loop. Its body runs only while somebody awaits `next`,
/// so a dropped `next` leaves it where it waits: the following `next` goes on from there, whoever
/// awaits it. Destroying it cancels it; a `next` that still waits gives `std::nullopt`.
template <class T>
class [[nodiscard("a generator does nothing until next() is awaited")]] AsyncGenerator {
 public:
  class NextAwaiter;

  class promise_type : public FrameAllocated {
   public:
    promise_type() noexcept : scope_(nullptr) {}
    promise_type(const promise_type&) = delete;
    promise_type& operator=(const promise_type&) = delete;
    ~promise_type() {
      if (awaiting_ == nullptr) return;
      awaiting_->handle_ = nullptr;
      awaiting_->waiter_.wake();
    }

    AsyncGenerator get_return_object() noexcept { return AsyncGenerator(handle()); }
    static std::suspend_always initial_suspend() noexcept { return {}; }
    auto final_suspend() noexcept { return HandOver{}; }
    template <class U>
    auto yield_value(U&& value) {
      value_.emplace(std::forward<U>(value));
      return HandOver{};
    }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { exception_ = std::current_exception(); }

   private:
    friend class AsyncGenerator;

    /// Goes back to whoever awaits `next`: at once where it has not suspended, else in the loop's
    /// turn.
    struct HandOver {
      static constexpr bool await_ready() noexcept { return false; }
      void await_suspend(std::coroutine_handle<promise_type> generator) const noexcept {
        promise_type& promise = generator.promise();
        promise.running_ = false;
        if (NextAwaiter* awaiting = std::exchange(promise.awaiting_, nullptr)) {
          awaiting->waiter_.wake();
        }
      }
      static constexpr void await_resume() noexcept {}
    };

    std::coroutine_handle<promise_type> handle() noexcept {
      return std::coroutine_handle<promise_type>::from_promise(*this);
    }

    /// Until the body yields, ends or waits for something. It has a scope of its own: what it
    /// waits for may outlive whoever awaited it first.
    void go_on() {
      scope_.attach(Scheduler::current().current_scope());
      if (running_) return;
      running_ = true;
      Scheduler::current().run_in_scope(&scope_, handle());
    }

    Scope scope_;
    NextAwaiter* awaiting_ = nullptr;
    std::optional<T> value_;
    std::exception_ptr exception_;
    bool running_ = false;  // inside its body: running, or waiting for something of its own
  };

  class [[nodiscard("co_await it")]] NextAwaiter {
   public:
    explicit NextAwaiter(std::coroutine_handle<promise_type> handle) noexcept : handle_(handle) {}
    NextAwaiter(NextAwaiter&& other) noexcept : handle_(other.handle_) {}
    ~NextAwaiter() {
      if (waits()) handle_.promise().awaiting_ = nullptr;
    }

    [[nodiscard]] bool await_ready() const noexcept {
      // A body that went on after a dropped `next` may have a value already.
      return !handle_ || handle_.done() ||
             (!handle_.promise().running_ && handle_.promise().value_.has_value());
    }
    bool await_suspend(std::coroutine_handle<> awaiting) {
      promise_type& promise = handle_.promise();
      if (promise.awaiting_ != nullptr) {
        throw std::logic_error("weir: AsyncGenerator::next: another next() is already waiting");
      }
      promise.go_on();
      if (!promise.running_) return false;
      waiter_.suspend(awaiting);
      promise.awaiting_ = this;
      return true;
    }
    std::optional<T> await_resume() {
      if (!handle_) return std::nullopt;
      promise_type& promise = handle_.promise();
      if (promise.exception_) std::rethrow_exception(std::exchange(promise.exception_, nullptr));
      return std::exchange(promise.value_, std::nullopt);
    }

   private:
    friend promise_type;

    [[nodiscard]] bool waits() const noexcept {
      return waiter_.scheduler() != nullptr && handle_ && handle_.promise().awaiting_ == this;
    }

    std::coroutine_handle<promise_type> handle_;
    Waiter waiter_;
  };

  AsyncGenerator() noexcept = default;
  AsyncGenerator(AsyncGenerator&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)) {}
  AsyncGenerator& operator=(AsyncGenerator&& other) noexcept {
    if (this != &other) {
      reset();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  ~AsyncGenerator() { reset(); }

  void reset() noexcept {
    if (auto handle = std::exchange(handle_, nullptr)) handle.destroy();
  }

  /// The next value, `std::nullopt` after the last; throws what the body threw. One at a time.
  NextAwaiter next() noexcept { return NextAwaiter(handle_); }

 private:
  explicit AsyncGenerator(std::coroutine_handle<promise_type> handle) noexcept : handle_(handle) {}

  std::coroutine_handle<promise_type> handle_;
};

}  // namespace weir
