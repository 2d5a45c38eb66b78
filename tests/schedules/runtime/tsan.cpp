// What code that is compiled with -fsanitize=thread calls (GCC and Clang), in the place of the
// sanitizer's own runtime.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "threads.h"

// NOLINTBEGIN: the names are theirs

using weir::schedules::current_thread;
using weir::schedules::Inside;
using weir::schedules::Schedule;
using weir::schedules::Step;
using weir::schedules::Thread;

namespace {

Schedule& schedule() noexcept { return Schedule::instance(); }

void touch(const void* address, std::size_t bytes, bool write, const void* from) {
  if (current_thread == nullptr) return;
  if (const Inside inside; inside) {
    schedule().touch(inside.self(), address, bytes, {write, false}, from);
  }
}

/// Memory orders come with hints in higher bits.
constexpr int kOrder = 7;

template <class T>
T load(const volatile T* address, int order, const void* from) {
  if (const Inside inside; inside) {
    const Step step = inside.self().step_at("an atomic load", from);
    return static_cast<T>(schedule().load(inside.self(), const_cast<const T*>(address), sizeof(T),
                                          order & kOrder, step));
  }
  return __atomic_load_n(address, __ATOMIC_SEQ_CST);
}

template <class T>
void store(volatile T* address, T value, int order, const void* from) {
  if (const Inside inside; inside) {
    const Step step = inside.self().step_at("an atomic store", from);
    schedule().store(inside.self(), const_cast<T*>(address), sizeof(T), value, order & kOrder,
                     step);
  } else {
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);
  }
}

/// `operation` gives the new value for the old one.
template <class T, class Operation>
T change(volatile T* address, int order, const char* what, const void* from, Operation operation) {
  if (const Inside inside; inside) {
    const Step step = inside.self().step_at(what, from);
    return static_cast<T>(schedule().change(inside.self(), const_cast<T*>(address), sizeof(T),
                                            order & kOrder, order & kOrder, step,
                                            [&](std::uint64_t& value) {
                                              value = operation(static_cast<T>(value));
                                              return true;
                                            }));
  }
  T old = __atomic_load_n(address, __ATOMIC_SEQ_CST);
  while (!__atomic_compare_exchange_n(address, &old, operation(old), false, __ATOMIC_SEQ_CST,
                                      __ATOMIC_SEQ_CST)) {
  }
  return old;
}

template <class T>
bool compare_exchange(volatile T* address, T* expected, T desired, int order, int failing,
                      const void* from) {
  if (const Inside inside; inside) {
    const Step step = inside.self().step_at("an atomic compare_exchange", from);
    const T wanted = *expected;
    const auto old = static_cast<T>(schedule().change(inside.self(), const_cast<T*>(address),
                                                      sizeof(T), order & kOrder, failing & kOrder,
                                                      step, [&](std::uint64_t& value) {
                                                        if (static_cast<T>(value) != wanted)
                                                          return false;
                                                        value = desired;
                                                        return true;
                                                      }));
    *expected = old;
    return old == wanted;
  }
  return __atomic_compare_exchange_n(address, expected, desired, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST);
}

}  // namespace

#define WEIR_FROM __builtin_return_address(0)

#define WEIR_TOUCH(bytes)                                                             \
  void __tsan_read##bytes(void* at) { touch(at, bytes, false, WEIR_FROM); }           \
  void __tsan_write##bytes(void* at) { touch(at, bytes, true, WEIR_FROM); }           \
  void __tsan_unaligned_read##bytes(void* at) { touch(at, bytes, false, WEIR_FROM); } \
  void __tsan_unaligned_write##bytes(void* at) { touch(at, bytes, true, WEIR_FROM); } \
  void __tsan_volatile_read##bytes(void* at) { touch(at, bytes, false, WEIR_FROM); }  \
  void __tsan_volatile_write##bytes(void* at) { touch(at, bytes, true, WEIR_FROM); }

#define WEIR_CHANGE(bits, name, what, expression)                                            \
  std::uint##bits##_t __tsan_atomic##bits##_##name(volatile std::uint##bits##_t* at,         \
                                                   std::uint##bits##_t operand, int order) { \
    using T = std::uint##bits##_t;                                                           \
    return change(at, order, what, WEIR_FROM,                                                \
                  [&]([[maybe_unused]] T old) { return static_cast<T>(expression); });       \
  }

#define WEIR_ATOMIC(bits)                                                                          \
  std::uint##bits##_t __tsan_atomic##bits##_load(const volatile std::uint##bits##_t* at,           \
                                                 int order) {                                      \
    return load(at, order, WEIR_FROM);                                                             \
  }                                                                                                \
  void __tsan_atomic##bits##_store(volatile std::uint##bits##_t* at, std::uint##bits##_t value,    \
                                   int order) {                                                    \
    store(at, value, order, WEIR_FROM);                                                            \
  }                                                                                                \
  WEIR_CHANGE(bits, exchange, "an atomic exchange", operand)                                       \
  WEIR_CHANGE(bits, fetch_add, "an atomic fetch_add", old + operand)                               \
  WEIR_CHANGE(bits, fetch_sub, "an atomic fetch_sub", old - operand)                               \
  WEIR_CHANGE(bits, fetch_and, "an atomic fetch_and", old& operand)                                \
  WEIR_CHANGE(bits, fetch_or, "an atomic fetch_or", old | operand)                                 \
  WEIR_CHANGE(bits, fetch_xor, "an atomic fetch_xor", old ^ operand)                               \
  int __tsan_atomic##bits##_compare_exchange_strong(                                               \
      volatile std::uint##bits##_t* at, std::uint##bits##_t* expected,                             \
      std::uint##bits##_t desired, int order, int failing) {                                       \
    return compare_exchange(at, expected, desired, order, failing, WEIR_FROM) ? 1 : 0;             \
  }                                                                                                \
  int __tsan_atomic##bits##_compare_exchange_weak(                                                 \
      volatile std::uint##bits##_t* at, std::uint##bits##_t* expected,                             \
      std::uint##bits##_t desired, int order, int failing) {                                       \
    return compare_exchange(at, expected, desired, order, failing, WEIR_FROM) ? 1 : 0;             \
  }                                                                                                \
  std::uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(                                  \
      volatile std::uint##bits##_t* at, std::uint##bits##_t expected, std::uint##bits##_t desired, \
      int order, int failing) {                                                                    \
    (void)compare_exchange(at, &expected, desired, order, failing, WEIR_FROM);                     \
    return expected;                                                                               \
  }

extern "C" {

void __tsan_init() {}

void __tsan_func_entry(void* from) {
  if (Thread* self = current_thread; self != nullptr && !self->inside) {
    if (self->depth < Thread::kMostCalls) self->calls[self->depth] = from;
    ++self->depth;
  }
}
void __tsan_func_exit() {
  if (Thread* self = current_thread; self != nullptr && !self->inside && self->depth > 0) {
    --self->depth;
  }
}

WEIR_TOUCH(1)
WEIR_TOUCH(2)
WEIR_TOUCH(4)
WEIR_TOUCH(8)
WEIR_TOUCH(16)

void __tsan_read_range(void* at, std::size_t bytes) { touch(at, bytes, false, WEIR_FROM); }
void __tsan_write_range(void* at, std::size_t bytes) { touch(at, bytes, true, WEIR_FROM); }
void __tsan_vptr_read(void** at) { touch(at, sizeof *at, false, WEIR_FROM); }
void __tsan_vptr_update(void** at, void* value) {
  if (*at != value) touch(at, sizeof *at, true, WEIR_FROM);
}

// Clang's.
void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
  touch(from, bytes, false, WEIR_FROM);
  touch(to, bytes, true, WEIR_FROM);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
  touch(from, bytes, false, WEIR_FROM);
  touch(to, bytes, true, WEIR_FROM);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, std::size_t bytes) {
  touch(to, bytes, true, WEIR_FROM);
  return std::memset(to, value, bytes);
}

WEIR_ATOMIC(8)
WEIR_ATOMIC(16)
WEIR_ATOMIC(32)
WEIR_ATOMIC(64)

void __tsan_atomic_thread_fence(int order) {
  if (const Inside inside; inside) {
    schedule().fence(inside.self(), order & kOrder, inside.self().step_at("a fence", WEIR_FROM));
  } else {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
  }
}
void __tsan_atomic_signal_fence(int) {}

}  // extern "C"

// NOLINTEND
