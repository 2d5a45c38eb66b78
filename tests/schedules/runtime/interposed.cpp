// What threads of a schedule call of the C library's and of the C++ runtime's; who is none of a
// schedule gets what stands behind it. Memory goes through here as well, to be kept until the end
// of the schedule: no address comes twice.

#include <dlfcn.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "real.h"
#include "threads.h"

// NOLINTBEGIN: the names are theirs

namespace weir::schedules {

extern "C" {
void* __real_malloc(std::size_t bytes);
void* __real_calloc(std::size_t count, std::size_t bytes);
void __real_free(void* block);
}

namespace {

template <class Function>
void look_up(Function*& function, const char* name) noexcept {
  function = reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
  if (function == nullptr) std::abort();
}

Real look_up_all() noexcept {
  Real all{};
  look_up(all.create, "pthread_create");
  look_up(all.join, "pthread_join");
  look_up(all.detach, "pthread_detach");
  look_up(all.lock, "pthread_mutex_lock");
  look_up(all.try_lock, "pthread_mutex_trylock");
  look_up(all.unlock, "pthread_mutex_unlock");
  look_up(all.wait, "pthread_cond_wait");
  look_up(all.timed_wait, "pthread_cond_timedwait");
  look_up(all.clock_wait, "pthread_cond_clockwait");
  look_up(all.notify_one, "pthread_cond_signal");
  look_up(all.notify_all, "pthread_cond_broadcast");
  look_up(all.begin_once, "__cxa_guard_acquire");
  look_up(all.end_once, "__cxa_guard_release");
  look_up(all.abort_once, "__cxa_guard_abort");
  look_up(all.syscall, "syscall");
  all.free = __real_free;
  return all;
}

alignas(Real) char memory_of_real[sizeof(Real)];
std::atomic<const Real*> all_of_real{nullptr};

Schedule& schedule() noexcept { return Schedule::instance(); }

void* allocate(std::size_t bytes, std::size_t alignment, const void* from) noexcept {
  void* const block =
      alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__
          ? __real_malloc(bytes)
          : std::aligned_alloc(alignment, (bytes + alignment - 1) & ~(alignment - 1));
  if (const Inside inside; inside && block != nullptr) schedule().allocated(block, bytes, from);
  return block;
}

void give_back(void* block, const void* from) noexcept {
  if (block == nullptr) return;
  if (const Inside inside; inside) {
    schedule().freed(inside.self(), block, from);
  } else {
    __real_free(block);
  }
}

void* allocate_or_throw(std::size_t bytes, std::size_t alignment, const void* from) {
  void* const block = allocate(bytes == 0 ? 1 : bytes, alignment, from);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

Time nanoseconds(const timespec& time) noexcept {
  return Time{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

/// Not a local static: the guard of one is looked up here.
const Real& real() noexcept {
  const Real* found = all_of_real.load(std::memory_order_acquire);
  if (found == nullptr) {
    found = new (memory_of_real) Real(look_up_all());
    all_of_real.store(found, std::memory_order_release);
  }
  return *found;
}

}  // namespace weir::schedules

using weir::schedules::Inside;
using weir::schedules::nanoseconds;
using weir::schedules::real;
using weir::schedules::schedule;

#define WEIR_FROM __builtin_return_address(0)

extern "C" {

int pthread_create(pthread_t* made, const pthread_attr_t* attributes, void* (*start)(void*),
                   void* argument) noexcept {
  if (const Inside inside; inside) {
    return schedule().create(inside.self(), made, start, argument);
  }
  return real().create(made, attributes, start, argument);
}

int pthread_join(pthread_t thread, void** result) {
  if (const Inside inside; inside) {
    schedule().join(inside.self(), thread, result, inside.self().step_at("join", WEIR_FROM));
    return 0;
  }
  return real().join(thread, result);
}

int pthread_detach(pthread_t thread) noexcept {
  if (const Inside inside; inside) return 0;  // the end of the schedule joins it
  return real().detach(thread);
}

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  if (const Inside inside; inside) {
    schedule().lock(inside.self(), mutex, inside.self().step_at("lock", WEIR_FROM));
    return 0;
  }
  return real().lock(mutex);
}

int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept {
  if (const Inside inside; inside) {
    const auto step = inside.self().step_at("try_lock", WEIR_FROM);
    return schedule().try_lock(inside.self(), mutex, step) ? 0 : EBUSY;
  }
  return real().try_lock(mutex);
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept {
  if (const Inside inside; inside) {
    schedule().unlock(inside.self(), mutex, WEIR_FROM);
    return 0;
  }
  return real().unlock(mutex);
}

int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  if (const Inside inside; inside) {
    (void)schedule().wait(inside.self(), condition, mutex, inside.self().step_at("wait", WEIR_FROM),
                          weir::schedules::kNever);
    return 0;
  }
  return real().wait(condition, mutex);
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const timespec* deadline) {
  if (const Inside inside; inside) {
    const auto step = inside.self().step_at("wait_until", WEIR_FROM);
    return schedule().wait(inside.self(), condition, mutex, step, nanoseconds(*deadline))
               ? 0
               : ETIMEDOUT;
  }
  return real().timed_wait(condition, mutex, deadline);
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* deadline) {
  if (const Inside inside; inside) {
    const auto step = inside.self().step_at("wait_until", WEIR_FROM);
    return schedule().wait(inside.self(), condition, mutex, step, nanoseconds(*deadline))
               ? 0
               : ETIMEDOUT;
  }
  return real().clock_wait(condition, mutex, clock, deadline);
}

int pthread_cond_signal(pthread_cond_t* condition) noexcept {
  if (const Inside inside; inside) {
    schedule().notify(inside.self(), condition, inside.self().step_at("notify_one", WEIR_FROM),
                      false);
    return 0;
  }
  return real().notify_one(condition);
}

int pthread_cond_broadcast(pthread_cond_t* condition) noexcept {
  if (const Inside inside; inside) {
    schedule().notify(inside.self(), condition, inside.self().step_at("notify_all", WEIR_FROM),
                      true);
    return 0;
  }
  return real().notify_all(condition);
}

int sched_yield() noexcept {
  if (const Inside inside; inside) {
    schedule().give_way(inside.self());
    return 0;
  }
  return static_cast<int>(::syscall(SYS_sched_yield));
}

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  if (const Inside inside; inside) {
    const weir::schedules::Time now = schedule().now();
    *time = {now / 1'000'000'000, now % 1'000'000'000};
    return 0;
  }
  return static_cast<int>(::syscall(SYS_clock_gettime, clock, time));
}

int __cxa_guard_acquire(void* guard) noexcept {
  if (const Inside inside; inside) {
    const auto step = inside.self().step_at("a local static", WEIR_FROM);
    return schedule().begin_once(inside.self(), guard, step) ? 1 : 0;
  }
  return real().begin_once(guard);
}

void __cxa_guard_release(void* guard) noexcept {
  if (const Inside inside; inside) {
    const auto step = inside.self().step_at("a local static", WEIR_FROM);
    schedule().end_once(inside.self(), guard, true, step);
  } else {
    real().end_once(guard);
  }
}

void __cxa_guard_abort(void* guard) noexcept {
  if (const Inside inside; inside) {
    const auto step = inside.self().step_at("a local static", WEIR_FROM);
    schedule().end_once(inside.self(), guard, false, step);
  } else {
    real().abort_once(guard);
  }
}

void* __wrap_malloc(std::size_t bytes) { return weir::schedules::allocate(bytes, 1, WEIR_FROM); }

void* __wrap_calloc(std::size_t count, std::size_t bytes) {
  void* const block = weir::schedules::__real_calloc(count, bytes);
  if (const Inside inside; inside && block != nullptr) {
    schedule().allocated(block, count * bytes, WEIR_FROM);
  }
  return block;
}

void __wrap_free(void* block) { weir::schedules::give_back(block, WEIR_FROM); }

/// Of those that the standard library makes: std::atomic's waits.
long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  long arguments[6];
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  const auto [one, two, three, four, five, six] = arguments;
  if (number == SYS_futex) {
    if (const Inside inside; inside) {
      const auto* const word = reinterpret_cast<const std::uint32_t*>(one);
      const auto step = inside.self().step_at("a futex", WEIR_FROM);
      return schedule().futex(inside.self(), word, (two & FUTEX_CMD_MASK) == FUTEX_WAIT,
                              static_cast<std::uint32_t>(three), step);
    }
  }
  return real().syscall(number, one, two, three, four, five, six);
}

}  // extern "C"

void* operator new(std::size_t bytes) {
  return weir::schedules::allocate_or_throw(bytes, 1, WEIR_FROM);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return weir::schedules::allocate_or_throw(bytes, static_cast<std::size_t>(alignment), WEIR_FROM);
}
void operator delete(void* block) noexcept { weir::schedules::give_back(block, WEIR_FROM); }
void operator delete(void* block, std::size_t) noexcept {
  weir::schedules::give_back(block, WEIR_FROM);
}
void operator delete(void* block, std::align_val_t) noexcept {
  weir::schedules::give_back(block, WEIR_FROM);
}
void operator delete(void* block, std::size_t, std::align_val_t) noexcept {
  weir::schedules::give_back(block, WEIR_FROM);
}

// NOLINTEND
