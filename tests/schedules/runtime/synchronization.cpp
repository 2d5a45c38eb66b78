#include <cstring>

#include "threads.h"

namespace weir::schedules {
namespace {

constexpr Shadow::Kind kSynchronizes{true, true};

}  // namespace

void Schedule::touch(Thread& self, const void* address, std::size_t bytes, Shadow::Kind kind,
                     const void* from) {
  if (shadow_.touch(self.knows, address, bytes, kind, from)) locations_.forget(address, bytes);
}

void Schedule::put(void* address, std::size_t bytes, std::uint64_t value) noexcept {
  std::memcpy(address, &value, bytes);
}

std::uint64_t Schedule::load(Thread& self, const void* address, std::size_t bytes, int order,
                             Step step) {
  point(self, address, step);
  touch(self, address, bytes, {false, true}, step.from);
  Location& location = locations_.at(address);
  const std::size_t visible = locations_.visible(location, self.knows, address, bytes, order);
  const std::size_t age = choose_of(visible, ~std::uint32_t{1});
  if (age > 0) note(self, {"it gives an old value", step.from, 0});
  return locations_.load(location, self.knows, order, age);
}

void Schedule::store(Thread& self, void* address, std::size_t bytes, std::uint64_t value, int order,
                     Step step) {
  point(self, address, step);
  touch(self, address, bytes, kSynchronizes, step.from);
  Location& location = locations_.at(address);
  (void)locations_.visible(location, self.knows, address, bytes, order);
  put(address, bytes, value);
  locations_.store(location, self.knows, value, order, false);
}

void Schedule::fence(Thread& self, int order, Step step) {
  point(self, this, step);
  locations_.fence(self.knows, order);
}

void Schedule::lock(Thread& self, void* mutex, Step step) {
  point(self, mutex, step);
  touch(self, mutex, 1, kSynchronizes, step.from);
  while (locations_.at(mutex).owner != kMostThreads) (void)block(self, mutex, step);
  Location& location = locations_.at(mutex);
  location.owner = self.number();
  self.knows.join(location.clock);
}

bool Schedule::try_lock(Thread& self, void* mutex, Step step) {
  point(self, mutex, step);
  touch(self, mutex, 1, kSynchronizes, step.from);
  Location& location = locations_.at(mutex);
  if (location.owner != kMostThreads) return false;
  location.owner = self.number();
  self.knows.join(location.clock);
  return true;
}

void Schedule::unlock(Thread& self, void* mutex, const void* from) {
  touch(self, mutex, 1, kSynchronizes, from);
  Location& location = locations_.at(mutex);
  if (location.owner != self.number()) fail("a mutex is unlocked by another thread " + place(from));
  location.owner = kMostThreads;
  location.clock = self.knows.before;
  self.knows.tick();
  wake(mutex);
}

bool Schedule::wait(Thread& self, void* condition, void* mutex, Step step, Time deadline) {
  point(self, condition, step);
  touch(self, condition, 1, kSynchronizes, step.from);
  unlock(self, mutex, step.from);
  bool in_time = true;
  if (choose_of(2, ~std::uint32_t{1}) == 0) {
    in_time = block(self, condition, step, deadline);
  } else {
    note(self, {"the wait ends for no reason", step.from, 0});
    point(self, condition, step);
  }
  while (locations_.at(mutex).owner != kMostThreads) (void)block(self, mutex, step);
  Location& location = locations_.at(mutex);
  location.owner = self.number();
  self.knows.join(location.clock);
  return in_time;
}

void Schedule::notify(Thread& self, void* condition, Step step, bool all) {
  point(self, condition, step);
  touch(self, condition, 1, kSynchronizes, step.from);
  if (all) {
    wake(condition);
  } else {
    wake_one(condition);
  }
}

void Schedule::join(Thread& self, pthread_t thread, void** result, Step step) {
  for (const auto& other : threads_) {
    if (!pthread_equal(other->real, thread)) continue;
    while (other->state != Thread::State::ended) (void)block(self, other.get(), step);
    self.knows.join(other->knows.before);
    if (result != nullptr) *result = other->result;
    return;
  }
  fail("a thread is joined that is none of the schedule");
}

long Schedule::futex(Thread& self, const std::uint32_t* word, bool waits, std::uint32_t value,
                     Step step) {
  point(self, word, step);
  if (!waits) {
    wake(word);
  } else if (*word == value) {
    (void)block(self, word, step);
  }
  return 0;
}

/// What is initialized once, by whoever comes first (the Itanium ABI's guards of local statics).
bool Schedule::begin_once(Thread& self, void* guard, Step step) {
  while (locations_.at(guard).owner != kMostThreads) (void)block(self, guard, step);
  if (*static_cast<const char*>(guard) != 0) {
    (void)load(self, guard, 1, __ATOMIC_ACQUIRE, step);
    return false;
  }
  locations_.at(guard).owner = self.number();
  return true;
}

void Schedule::end_once(Thread& self, void* guard, bool done, Step step) {
  if (done) store(self, guard, 1, 1, __ATOMIC_RELEASE, step);
  locations_.at(guard).owner = kMostThreads;
  wake(guard);
}

}  // namespace weir::schedules
