#pragma once

#include <weir/coro/awaitable.h>
#include <weir/coro/place.h>
#include <weir/coro/result.h>
#include <weir/coro/scheduler.h>

#include <coroutine>
#include <cstddef>
#include <exception>
#include <type_traits>
#include <utility>

namespace weir::detail {

class Junction;

/// What a branch has where a coroutine has its promise.
struct BranchPromise : Placed {
  Junction* junction = nullptr;
  std::size_t index = 0;
  Scope scope{nullptr, Scope::Kind::branch};  // below the awaiter's, once it is started
  BranchPromise* next = nullptr;              // the one that was started after it
};

/// Stands where a coroutine's frame would, so that what is awaited can resume it: first what
/// resumes it, or nullptr once it is done, then what destroys it, then the promise (the Itanium ABI
/// for coroutines, GCC's and Clang's alike; docs/compilers.md).
struct BranchFrame {
  using Function = void (*)(BranchFrame* frame);  // throws what the awaiter lets out

  explicit BranchFrame(Function resumes) noexcept : resume(resumes), destroy(resumes) {}

  [[nodiscard]] std::coroutine_handle<> handle() noexcept {
    return std::coroutine_handle<>::from_address(this);
  }

  Function resume;
  Function destroy;  // never called: the branch owns it
  BranchPromise promise;
};

static_assert(sizeof(BranchFrame) == 2 * sizeof(BranchFrame::Function) + sizeof(BranchPromise));

/// Where the branches of a `when_all` or `when_any` meet.
class Junction : public Several {
 public:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  [[nodiscard]] bool closed() const noexcept { return open_ == 0; }

  /// The awaiter that goes on now, or nobody.
  std::coroutine_handle<> finish(std::size_t index, bool with_failure) noexcept {
    if (closed()) return nullptr;  // it has gone on, or is dropped
    if (first_ == kNone) first_ = index;
    if (with_failure) {
      failed_ = index;
      open_ = 0;
    } else {
      --open_;
    }
    return closed() ? awaiting_ : nullptr;
  }

  /// A branch is dropped: nobody waits for any of them any more.
  void close() noexcept { open_ = 0; }

  void add(BranchPromise& started) noexcept {
    (last_ == nullptr ? started_ : last_->next) = &started;
    last_ = &started;
  }

  /// Those that were started and are neither done nor dropped.
  void each(void* context, Visit visit) const final;

 protected:
  Junction() noexcept = default;
  ~Junction() = default;

  /// Counted down by each branch that finishes; the last one resumes the awaiter. `when_any`
  /// starts at one, and so does a failure: it sets the count to what ends the waiting.
  std::size_t open_ = 0;
  std::size_t first_ = kNone;         // the branch that finished first (when_any)
  std::size_t failed_ = kNone;        // the first branch that failed
  std::coroutine_handle<> awaiting_;  // empty while the branches are being started

 private:
  BranchPromise* started_ = nullptr;  // the first of them
  BranchPromise* last_ = nullptr;
};

inline void Junction::each(void* context, Visit visit) const {
  for (BranchPromise* at = started_; at != nullptr; at = at->next) {
    const BranchFrame& frame = *whole_of(*at, &BranchFrame::promise);
    if (frame.resume != nullptr) visit(context, at->index, at->place, at->scope);
  }
}

/// One operand of a `when_all` or `when_any`, awaited in its own place: no coroutine is made for
/// it. It reports to the junction. Owns the operand. It has a scope, and in it values of each
/// `TaskLocal`: those of the awaiter when it starts. It moves only before that.
template <class A>
class Branch {
 public:
  using Value = AwaitResult<A>;

  explicit Branch(A&& awaitable) : held_(std::move(awaitable)) {}
  Branch(Branch&& other) noexcept : held_(std::move(other.held_)) {}
  Branch& operator=(Branch&&) = delete;
  ~Branch() { drop(); }

  void start(Junction& junction, std::size_t index) {
    BranchPromise& promise = frame_.promise;
    promise.junction = &junction;
    promise.index = index;
    Scheduler* scheduler = Scheduler::current_or_null();
    if (scheduler == nullptr) {
      junction.add(promise);
      return await();
    }
    Scope* awaiter = scheduler->running().scope();
    promise.scope.stand_below(awaiter);
    promise.scope.inherit_locals(awaiter);
    promise.scope.runs_at(scheduler->clock_ms());
    junction.add(promise);
    scheduler->running().go_on_in(&promise.scope);
    await();
    scheduler->running().go_on_in(awaiter);
  }

  void drop() noexcept {
    frame_.resume = nullptr;
    if (frame_.promise.junction != nullptr) frame_.promise.junction->close();
    if (held_.awaitable() == nullptr) return;
    Scheduler* scheduler = Scheduler::current_or_null();
    if (scheduler == nullptr || frame_.promise.scope.parent() == nullptr) {
      held_.drop();
    } else {
      const Running::Burial destructors(scheduler->running(), frame_.promise.scope);
      held_.drop();
    }
  }

  Result<Value>& result() noexcept { return result_; }

 private:
  static void resumed(BranchFrame* frame) { whole_of(*frame, &Branch::frame_)->end(); }

  void await() noexcept {  // nobody goes on yet
    if constexpr (kTracesTasks) {
      frame_.promise.place.set(__builtin_source_location());
      frame_.promise.place.set_awaited(*held_.awaitable());
    }
    try {
      auto& awaiter = held_.awaiter();
      if (!awaiter.await_ready() && suspend_on(awaiter, frame_.handle())) return;
    } catch (...) {
      fail();
      return finish();
    }
    end();
  }

  void end() {
    try {
      if constexpr (std::is_void_v<Value>) {
        held_.awaiter().await_resume();
        result_.set_value();
      } else {
        result_.set_value(held_.awaiter().await_resume());
      }
    } catch (...) {
      fail();
    }
    finish();
  }

  [[gnu::noinline]] void fail() noexcept { result_.set_exception(std::current_exception()); }

  /// The awaiter goes on, if it is to: nothing of this may be there then.
  void finish() {
    frame_.resume = nullptr;
    held_.drop_awaiter();
    if (Scheduler* scheduler = Scheduler::current_or_null()) {
      scheduler->running().go_on_in(frame_.promise.scope.parent());
    }
    const std::coroutine_handle<> next =
        frame_.promise.junction->finish(frame_.promise.index, result_.has_exception());
    if (next) next.resume();
  }

  BranchFrame frame_{&resumed};
  HeldAwaitable<A> held_;
  Result<Value> result_;
};

}  // namespace weir::detail
