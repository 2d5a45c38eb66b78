#include <weir/coro/owner.h>

#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace weir::detail {
namespace {

constinit std::mutex runs_mutex;
constinit Run* runs = nullptr;

[[noreturn]] void end_process(const char* what, const char* instead) noexcept {
  std::fprintf(stderr, "weir: %s was used from a thread that is not its loop's; use %s instead\n",
               what, instead);
  std::abort();
}

}  // namespace

void check_stranger(const Scheduler& owner, const char* what, const char* instead) noexcept {
  if (owner.runs_elsewhere()) end_process(what, instead);
}

void check_stranger(HomeTag home, const char* what, const char* instead) noexcept {
  if (home != 0 && Run::is_elsewhere(home)) end_process(what, instead);
}

/// The child of a fork has this thread alone: what others had on their stacks is not there.
void Run::know_of_forks() noexcept {
  [[maybe_unused]] static const int known =
      ::pthread_atfork([] { runs_mutex.lock(); }, [] { runs_mutex.unlock(); },
                       [] {
                         for (Run** at = &runs; *at != nullptr;) {
                           const bool here = (*at)->thread_ == std::this_thread::get_id();
                           if (here) {
                             at = &(*at)->next_;
                           } else {
                             *at = (*at)->next_;
                           }
                         }
                         runs_mutex.unlock();
                       });
}

Run::Run(const Scheduler& of) noexcept : tag_(home_tag(&of)) {
  know_of_forks();
  const std::lock_guard lock(runs_mutex);
  next_ = std::exchange(runs, this);
}

Run::~Run() {
  const std::lock_guard lock(runs_mutex);
  Run** at = &runs;
  while (*at != this) at = &(*at)->next_;
  *at = next_;
}

bool Run::is_elsewhere(HomeTag home) noexcept {
  const std::lock_guard lock(runs_mutex);
  bool elsewhere = false;
  for (const Run* run = runs; run != nullptr; run = run->next_) {
    if (run->tag_ != home) continue;
    if (run->thread_ == std::this_thread::get_id()) return false;
    elsewhere = true;  // unless another scheduler of the same tag runs here
  }
  return elsewhere;
}

}  // namespace weir::detail
