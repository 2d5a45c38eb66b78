#pragma once

#include <weir/coro/awaitable.h>
#include <weir/coro/frame_allocator.h>
#include <weir/coro/place.h>
#include <weir/coro/result.h>
#include <weir/coro/scheduler.h>

#include <coroutine>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace weir::detail {

/// Where the branches of a `when_all` or `when_any` meet.
struct Junction {
  /// Counted down by each branch that finishes; the last one resumes the awaiter. `when_any`
  /// starts at one, and so does a failure: it sets the count to what ends the waiting.
  std::size_t open = 0;
  std::size_t first = kNone;         // the branch that finished first (when_any)
  std::size_t failed = kNone;        // the first branch that failed
  std::coroutine_handle<> awaiting;  // empty while the branches are being started

  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  [[nodiscard]] bool closed() const noexcept { return open == 0; }

  std::coroutine_handle<> finish(std::size_t index, bool with_failure) noexcept {
    if (first == kNone) first = index;
    if (with_failure && failed == kNone) {
      failed = index;
      open = 0;
    } else if (open > 0) {
      --open;
    }
    return open == 0 && awaiting ? awaiting : std::noop_coroutine();
  }
};

/// One operand of a `when_all` or `when_any`, as a coroutine of its own: it awaits the operand and
/// reports to the junction. Owns its frame, and with it the operand. It has a scope, and in it
/// values of each `TaskLocal`: those of the awaiter when it starts.
template <class T>
class Branch {
 public:
  struct Final {
    static constexpr bool await_ready() noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> finished) noexcept {
      auto& promise = finished.promise();
      promise.leave();
      return promise.junction->finish(promise.index, promise.result.has_exception());
    }
    static constexpr void await_resume() noexcept {}
  };

  struct PromiseBase : FrameAllocated, Placed {
    Junction* junction = nullptr;
    std::size_t index = 0;
    Scope scope{nullptr, Scope::Kind::branch};  // below the awaiter's, once it is started
    Result<T> result;

    /// Whoever goes on now is the awaiter.
    void leave() noexcept {
      if (Scheduler* scheduler = Scheduler::current_or_null()) {
        scheduler->running().go_on_in(scope.parent());
      }
    }

    static std::suspend_always initial_suspend() noexcept { return {}; }
    static Final final_suspend() noexcept { return {}; }
    [[gnu::noinline]] void unhandled_exception() noexcept {
      result.set_exception(std::current_exception());
    }
  };
  struct ValuePromise : PromiseBase {
    Branch get_return_object() noexcept { return Branch(this); }
    template <class U>
    void return_value(U&& value) {
      this->result.set_value(std::forward<U>(value));
    }
    auto handle() noexcept { return std::coroutine_handle<ValuePromise>::from_promise(*this); }
  };
  struct VoidPromise : PromiseBase {
    Branch get_return_object() noexcept { return Branch(this); }
    void return_void() noexcept { this->result.set_value(); }
    auto handle() noexcept { return std::coroutine_handle<VoidPromise>::from_promise(*this); }
  };
  using promise_type = std::conditional_t<std::is_void_v<T>, VoidPromise, ValuePromise>;

  explicit Branch(promise_type* promise) noexcept : promise_(promise) {}
  Branch(Branch&& other) noexcept : promise_(std::exchange(other.promise_, nullptr)) {}
  Branch& operator=(Branch&&) = delete;
  ~Branch() { drop(); }

  void start(Junction& junction, std::size_t index) {
    promise_->junction = &junction;
    promise_->index = index;
    Scheduler* scheduler = Scheduler::current_or_null();
    if (scheduler == nullptr) return promise_->handle().resume();
    Scope* awaiter = scheduler->running().scope();
    promise_->scope.stand_below(awaiter);
    promise_->scope.inherit_locals(awaiter);
    promise_->scope.runs_at(scheduler->clock_ms());
    scheduler->running().go_on_in(&promise_->scope);
    promise_->handle().resume();
    scheduler->running().go_on_in(awaiter);
  }

  void drop() noexcept {
    promise_type* promise = std::exchange(promise_, nullptr);
    if (promise == nullptr) return;
    Scheduler* scheduler = Scheduler::current_or_null();
    if (scheduler == nullptr || promise->scope.parent() == nullptr) {
      promise->handle().destroy();
    } else {
      const Running::Burial destructors(scheduler->running(), promise->scope);
      promise->handle().destroy();
    }
  }

  Result<T>& result() noexcept { return promise_->result; }

  /// While it is there, and neither done.
  void show(void* context, std::size_t index, Several::Visit visit) const {
    if (promise_ != nullptr && !promise_->handle().done()) {
      visit(context, index, promise_->place, promise_->scope);
    }
  }

 private:
  promise_type* promise_;
};

template <class A>
Branch<AwaitResult<A>> make_branch(A awaitable) {
  co_return co_await std::move(awaitable);
}

}  // namespace weir::detail
