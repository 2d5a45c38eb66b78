#include <weir/core/processor.h>

#include <pthread.h>
#include <sched.h>

#include <string>
#include <system_error>

namespace weir::detail {
namespace {

/// Where the thread may run.
struct Binding {
  cpu_set_t before;
  cpu_set_t now;
  bool is_bound;  // and what was before is known
};
thread_local constinit Binding here{};

int may_run_on(const cpu_set_t& processors) noexcept {
  return ::pthread_setaffinity_np(::pthread_self(), sizeof processors, &processors);
}

}  // namespace

void bind_thread(int cpu) {
  cpu_set_t before;
  const bool known = ::pthread_getaffinity_np(::pthread_self(), sizeof before, &before) == 0;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<std::size_t>(cpu), &one);
  if (const int error = may_run_on(one); error != 0) {
    throw std::system_error(error, std::generic_category(),
                            "weir: LoopOptions::cpu is " + std::to_string(cpu) +
                                "; this thread may not run on that processor");
  }
  here.now = one;
  if (here.is_bound || !known) return;
  here.before = before;
  here.is_bound = true;
}

void unbind_thread() noexcept {
  if (!here.is_bound) return;
  (void)may_run_on(here.before);
  here.is_bound = false;
}

Unbound::Unbound() noexcept {
  if (here.is_bound) (void)may_run_on(here.before);
}

Unbound::~Unbound() {
  if (here.is_bound) (void)may_run_on(here.now);
}

}  // namespace weir::detail
