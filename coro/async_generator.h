#pragma once

#include <weir/coro/frame_allocator.h>
#include <weir/coro/place.h>
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
/// awaits it. Destroying it cancels it, its own body may do that too; a `next` that still waits
/// gives `std::nullopt`.
template <class T>
class [[nodiscard("a generator does nothing until next() is awaited")]] AsyncGenerator {
 public:
  class NextAwaiter;

  class promise_type final : public detail::FrameAllocated, public detail::Placed {
   public:
    promise_type() noexcept = default;
    promise_type(const promise_type&) = delete;
    promise_type& operator=(const promise_type&) = delete;
    ~promise_type() = default;

    AsyncGenerator get_return_object() noexcept { return AsyncGenerator(handle()); }
    static std::suspend_always initial_suspend() noexcept { return {}; }
    auto final_suspend() noexcept { return HandOver{}; }
    template <class U>
    auto yield_value(U&& value) {
      value_.emplace(std::forward<U>(value));
      return HandOver{};
    }
    void return_void() noexcept {}
    [[gnu::noinline]] void unhandled_exception() noexcept { exception_ = std::current_exception(); }

   private:
    friend class AsyncGenerator;

    /// A member, so that the promise begins with its place as all do.
    struct Body final : detail::Root {
      Body() noexcept : detail::Root(nullptr, detail::Scope::Kind::generator) {}
      [[nodiscard]] const detail::Place* place() const noexcept override {
        const promise_type& of = promise();
        return of.running_ ? &of.Placed::place
                           : nullptr;  // else it has yielded, and waits for nobody
      }
      void finished() noexcept override {}
      void destroy() noexcept override { promise().handle().destroy(); }
      [[nodiscard]] promise_type& promise() const noexcept {
        return *detail::whole_of(const_cast<Body&>(*this), &promise_type::body_);
      }
    };

    /// Goes back to whoever awaits `next`: at once where it has not suspended, else in the loop's
    /// turn.
    struct HandOver {
      static constexpr bool await_ready() noexcept { return false; }
      void await_suspend(std::coroutine_handle<promise_type> generator) const noexcept {
        promise_type& promise = generator.promise();
        promise.running_ = false;
        if (promise.awaiting_ != nullptr) promise.awaiting_->wake();
      }
      static constexpr void await_resume() noexcept {}
    };

    std::coroutine_handle<promise_type> handle() noexcept {
      return std::coroutine_handle<promise_type>::from_promise(*this);
    }

    /// Until the body yields, ends or waits for something. It has a scope of its own: what it
    /// waits for may outlive whoever awaited it first. Called by what runs inside of it already (a
    /// destructor of a task that its body owns may start whoever awaits it), the body must not end
    /// below that, and has its turn when that is over.
    void go_on(detail::Scheduler& scheduler) {
      detail::Scope& scope = body_.scope();
      const bool inside = scheduler.running().is_in(scope);
      if (!inside) scope.attach(scheduler.running().scope());
      if (std::exchange(running_, true)) return;
      if (inside) {
        const detail::Running::Inside own(scheduler.running(), &scope);
        turn_.suspend(handle());
        turn_.wake();
      } else {
        scheduler.run_in_scope(&scope, handle());
      }
    }

    /// Its owner lets go of it: while something of its body runs, it ends when that suspends.
    void drop() noexcept {
      if (NextAwaiter* awaiting = std::exchange(awaiting_, nullptr)) {
        awaiting->promise_ = awaiting->registered_ = nullptr;
        awaiting->wake();
      }
      if (detail::Scheduler* scheduler = detail::Scheduler::current_or_null()) {
        scheduler->destroy(body_);
      } else {
        handle().destroy();
      }
    }

    Body body_;
    NextAwaiter* awaiting_ = nullptr;  // until it is resumed or dropped
    detail::Waiter turn_;              // of the body, where it has to wait for one
    std::optional<T> value_;
    std::exception_ptr exception_;
    bool running_ = false;  // inside its body: running, or waiting for something of its own
  };

  class [[nodiscard("co_await it")]] NextAwaiter {
   public:
    static constexpr char kWaitsFor[] = "AsyncGenerator::next";

    explicit NextAwaiter(promise_type* promise) noexcept : promise_(promise) {}
    NextAwaiter(NextAwaiter&& other) noexcept : promise_(other.promise_) {}
    ~NextAwaiter() { leave(); }

    [[nodiscard]] bool await_ready() const noexcept {
      // A body that went on after a dropped `next` may have a value already.
      return promise_ == nullptr ||
             (promise_->awaiting_ == nullptr &&
              (promise_->handle().done() || (!promise_->running_ && promise_->value_.has_value())));
    }
    bool await_suspend(std::coroutine_handle<> awaiting) {
      if (promise_->awaiting_ != nullptr) {
        throw std::logic_error("weir: AsyncGenerator::next: another next() is already waiting");
      }
      detail::Scheduler& scheduler = detail::Scheduler::current();
      registered_ = promise_;
      promise_->awaiting_ = this;
      promise_->go_on(scheduler);
      if (promise_ == nullptr) return false;
      if (!promise_->running_ && detail::Scheduler::may_go_on()) return false;
      waiter_.suspend(awaiting);
      if (!promise_->running_) waiter_.wake();
      return true;
    }
    std::optional<T> await_resume() {
      leave();
      if (promise_ == nullptr) return std::nullopt;
      if (promise_->exception_) {
        std::rethrow_exception(std::exchange(promise_->exception_, nullptr));
      }
      return std::exchange(promise_->value_, std::nullopt);
    }

   private:
    friend promise_type;

    void leave() noexcept {
      if (registered_ != nullptr) std::exchange(registered_, nullptr)->awaiting_ = nullptr;
    }
    void wake() noexcept {
      if (waiter_.scheduler() != nullptr && !waiter_.linked()) waiter_.wake();
    }

    promise_type* promise_;               // nullptr: none, or destroyed meanwhile
    promise_type* registered_ = nullptr;  // that this is the `awaiting_` of
    detail::Waiter waiter_;
  };

  AsyncGenerator() noexcept = default;
  AsyncGenerator(AsyncGenerator&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)) {}
  AsyncGenerator& operator=(AsyncGenerator&& other) noexcept {
    AsyncGenerator taken(std::move(other));
    std::swap(handle_, taken.handle_);  // what is dropped may own this
    return *this;
  }
  ~AsyncGenerator() { reset(); }

  void reset() noexcept {
    if (auto handle = std::exchange(handle_, nullptr)) handle.promise().drop();
  }

  /// The next value, `std::nullopt` after the last; throws what the body threw. One at a time.
  NextAwaiter next() noexcept { return NextAwaiter(handle_ ? &handle_.promise() : nullptr); }

 private:
  explicit AsyncGenerator(std::coroutine_handle<promise_type> handle) noexcept : handle_(handle) {}

  std::coroutine_handle<promise_type> handle_;
};

}  // namespace weir
