#include <weir/coro/frame_allocator.h>
#include <weir/coro/locals.h>
#include <weir/coro/probes.h>
#include <weir/coro/scheduler.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace weir::detail {

void Waiter::wake_from_anywhere() noexcept {
  Scheduler& home = *scheduler_;
  if (Scheduler::current_ == &home) {
    wake();
    return;
  }
  {
    const std::lock_guard lock(home.woken_mutex_);
    home.woken_.push_back(*this);
  }
  home.knock();
}

bool Waiter::forget_wake() noexcept {
  const std::lock_guard lock(scheduler_->woken_mutex_);
  const bool waited = linked();
  unlink();
  return waited;
}

void Scheduler::take_woken() noexcept {
  const std::lock_guard lock(woken_mutex_);
  ready_.splice_back(woken_);
}

Scheduler& Scheduler::current() {
  if (current_ == nullptr) {
    throw std::logic_error(
        "weir: no event loop runs on this thread; call this from a task, started with weir::run, "
        "EventLoop::spawn or TcpServer::run");
  }
  return *current_;
}

void Scheduler::run_in_scope(Scope* scope, std::coroutine_handle<> handle) {
  {
    const Running::Inside inside(now_running_, scope);
    if (scope != nullptr) scope->runs_at(clock_ms());
    handle.resume();
  }
  destroy_waiting();
}

void Scheduler::doom(Root& root) noexcept {
  doomed_.push_back(root);
  root.scope().set_doomed(true);
}

void Scheduler::destroy(Root& root) noexcept {
  doom(root);
  bury_doomed();
}

void Scheduler::destroy(List<Root>& roots) noexcept {
  // All are doomed before the first is destroyed: a destructor of one may end what owns them all,
  // and that has to wait for the others.
  while (Root* root = roots.front()) doom(*root);
  bury_doomed();
}

std::size_t Scheduler::run_ready(std::size_t most) {
  std::size_t count = 0;
  const std::uint32_t clock = clock_ms();
  const std::uint64_t resumed = FlightRecorder::head(FlightRecorder::Kind::resumed, clock);
  at_once_ = kMostAtOnce;
  while (count < most) {
    Waiter* waiter = ready_.pop_front();
    if (waiter == nullptr) break;
    ++count;
    now_running_.go_on_in(waiter->scope_);
    if (waiter->scope_ != nullptr) waiter->scope_->runs_at(clock);
    const std::uint32_t task = FlightRecorder::number_of(waiter->scope_);
    flight.note_head(resumed | std::uint64_t{task} << 8U, waiter->place());
    WEIR_PROBE1(resumed, task);
    std::coroutine_handle<>::from_address(waiter->frame_).resume();
    WEIR_PROBE1(suspended, task);
    if (!doomed_.empty()) {
      now_running_.go_on_in(nullptr);
      bury_doomed();
    }
  }
  now_running_.go_on_in(nullptr);
  destroy_waiting();  // of coroutines that somebody else resumed
  return count;
}

void Scheduler::bury_doomed() noexcept {
  List<Root> waiting;  // for what still runs, or is doomed, below them
  for (bool buried = true; buried; doomed_.splice_back(waiting)) {
    buried = false;
    // A destructor may doom others and come here itself.
    while (Root* root = doomed_.pop_front()) {
      Scope& scope = root->scope();
      if (scope.doomed_count_ > 1 || now_running_.is_in(scope)) {
        waiting.push_back(*root);
        continue;
      }
      scope.set_doomed(false);
      const Running::Burial destructors(now_running_, scope);
      root->destroy();
      buried = true;
    }
  }
}

}  // namespace weir::detail
