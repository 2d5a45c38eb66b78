#include "threads.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "real.h"

namespace weir::schedules {
namespace {

constexpr std::size_t kStack = std::size_t{1} << 20;
/// A schedule with more steps has no end.
constexpr std::size_t kMostSteps = 50'000;
constexpr Time kStart = Time{3'600} * 1'000'000'000;

/// Each number of a thread has its own: nothing of one thread lies where another's was.
void* stack_of(std::size_t thread) {
  static void* const all = ::mmap(nullptr, kStack * kMostThreads, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  return static_cast<char*>(all) + kStack * thread;
}

void call_futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value) noexcept {
  ::syscall(SYS_futex, &word, operation | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr, 0);
}

}  // namespace

constinit thread_local Thread* current_thread = nullptr;

Step Thread::step_at(const char* what, const void* from) const noexcept {
  const void* const caller = depth > 0 ? calls[std::min(depth, kMostCalls) - 1] : nullptr;
  const auto site = reinterpret_cast<std::uint64_t>(from) * 0x9e3779b97f4a7c15 ^
                    reinterpret_cast<std::uint64_t>(caller);
  return {what, from, site};
}

Schedule& Schedule::instance() noexcept {
  static Schedule* const made = new Schedule;
  return *made;
}

void Schedule::run(const std::function<void()>& body) {
  now_ = kStart;
  steps_ = 0;
  over_ = 0;
  report_->events = 0;
  Thread& first = add(nullptr, nullptr);
  first.body = body;
  pthread_t made{};
  (void)create(first, &made, nullptr, nullptr);
  give_turn(first);
  while (over_ == 0) call_futex(over_, FUTEX_WAIT, 0);
  for (const auto& thread : threads_) real().join(thread->real, nullptr);
  if (warm_ && !blocks_.empty()) {
    fail("memory is not freed: " + std::to_string(blocks_.size()) + " blocks, one of " +
         std::to_string(blocks_.begin()->second.bytes) + " bytes " +
         place(blocks_.begin()->second.from));
  }
  warm_ = true;
  report_->longest = std::max<std::uint64_t>(report_->longest, steps_);
  clear();
}

void Schedule::clear() {
  threads_.clear();
  shadow_.forget_all();
  locations_.forget_all();
  blocks_.clear();
  for (void* block : freed_) real().free(block);
  freed_.clear();
}

Thread& Schedule::add(void* (*start)(void*), void* argument) {
  if (threads_.size() == kMostThreads) fail("a scenario has too many threads");
  Thread& thread = *threads_.emplace_back(std::make_unique<Thread>());
  thread.knows.thread = threads_.size() - 1;
  thread.knows.tick();
  thread.start = start;
  thread.argument = argument;
  if (choices_.is_random()) thread.priority = 1'000 + choices_.draw(1'000'000);
  return thread;
}

/// The first is made by none.
int Schedule::create(Thread& self, pthread_t* made, void* (*start)(void*), void* argument) {
  const bool is_first = self.real == pthread_t{} && threads_.size() == 1;
  Thread& thread = is_first ? self : add(start, argument);
  if (!is_first) {
    thread.knows.join(self.knows.before);
    self.knows.tick();
  }
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstack(&attributes, stack_of(thread.number()), kStack);
  const int error = real().create(&thread.real, &attributes, begin_thread, &thread);
  ::pthread_attr_destroy(&attributes);
  if (error != 0) fail("no thread is to be had: " + std::string(std::strerror(error)));
  *made = thread.real;
  return 0;
}

void* Schedule::begin_thread(void* argument) {
  auto& self = *static_cast<Thread*>(argument);
  // Destroyed behind the destructors of what is the thread's alone.
  static const pthread_key_t key = [] {
    pthread_key_t made{};
    ::pthread_key_create(&made, end_thread);
    return made;
  }();
  ::pthread_setspecific(key, &self);
  wait_for_turn(self);
  current_thread = &self;
  self.inside = false;
  if (self.start != nullptr) {
    self.result = self.start(self.argument);
  } else {
    try {
      self.body();
    } catch (const std::exception& exception) {
      self.inside = true;
      fail(std::string("an exception left the scenario: ") + exception.what());
    }
  }
  return self.result;
}

void Schedule::end_thread(void* argument) {
  auto& self = *static_cast<Thread*>(argument);
  Schedule& all = instance();
  self.inside = true;
  self.state = Thread::State::ended;
  all.note(self, {"ends", nullptr, 0});
  all.wake(&self);
  Thread* const next = all.who_is_next();
  current_thread = nullptr;
  if (next != nullptr) {
    give_turn(*next);
  } else {
    all.over_ = 1;
    call_futex(all.over_, FUTEX_WAKE, 1);
  }
}

void Schedule::wait_for_turn(Thread& self) noexcept {
  while (self.turn.load() == 0) call_futex(self.turn, FUTEX_WAIT, 0);
  self.turn = 0;
}

void Schedule::give_turn(Thread& thread) noexcept {
  thread.turn = 1;
  call_futex(thread.turn, FUTEX_WAKE, 1);
}

void Schedule::hand_over(Thread& self, Thread& next, bool waits) {
  if (&next == &self) return;
  give_turn(next);
  if (waits) wait_for_turn(self);
}

std::vector<Thread*> Schedule::ready(Thread* first) {
  std::vector<Thread*> found;
  if (first != nullptr) found.push_back(first);
  for (const auto& thread : threads_) {
    if (thread.get() != first && thread->state == Thread::State::ready) {
      found.push_back(thread.get());
    }
  }
  return found;
}

std::size_t Schedule::choose_of(std::size_t options, std::uint32_t costs,
                                std::optional<std::size_t> wanted) {
  if (options == 1) {
    choices_.pass();
    return 0;
  }
  const auto chosen = choices_.choose(options, costs, wanted);
  if (!chosen) fail("a schedule did not fit: the scenario is not deterministic");
  return *chosen;
}

Thread& Schedule::choose(const std::vector<Thread*>& options, bool costs) {
  std::optional<std::size_t> wanted;
  if (choices_.is_random()) {
    const auto change = std::find(changes_.begin(), changes_.end(), choices_.ordinal());
    if (change != changes_.end()) {
      options.front()->priority = static_cast<std::uint64_t>(change - changes_.begin());
    }
    const auto highest = std::max_element(
        options.begin(), options.end(),
        [](const Thread* one, const Thread* other) { return one->priority < other->priority; });
    wanted = static_cast<std::size_t>(highest - options.begin());
  }
  return *options[choose_of(options.size(), costs ? ~std::uint32_t{1} : 0, wanted)];
}

/// Where the clock stands until no thread can run.
Thread* Schedule::who_is_next() {
  if (++steps_ > kMostSteps) fail("a schedule has no end" + who_waits());
  std::vector<Thread*> options = ready(nullptr);
  if (options.empty()) {
    Thread* soonest = nullptr;
    bool any = false;
    for (const auto& thread : threads_) {
      if (thread->state != Thread::State::blocked) continue;
      any = true;
      if (thread->deadline == kNever) continue;
      if (soonest == nullptr || thread->deadline < soonest->deadline) soonest = thread.get();
    }
    if (soonest == nullptr) {
      if (any) fail("all threads wait for ever" + who_waits());
      return nullptr;
    }
    now_ = std::max(now_, soonest->deadline);
    soonest->timed_out = true;
    soonest->state = Thread::State::ready;
    options.push_back(soonest);
  }
  return &choose(options, false);
}

void Schedule::point(Thread& self, const void* address, Step step) {
  self.step = step;
  if (!locations_.is_point(locations_.at(address), self.number(), step.site)) {
    choices_.pass();
    return;
  }
  note(self, step);
  if (++steps_ > kMostSteps) fail("a schedule has no end" + who_waits());
  hand_over(self, choose(ready(&self), true), true);
}

/// To whoever else can run, for free: who gives way has nothing to do.
void Schedule::give_way(Thread& self) {
  if (++steps_ > kMostSteps) fail("a schedule has no end" + who_waits());
  const std::vector<Thread*> all = ready(&self);
  const std::vector<Thread*> others(all.begin() + 1, all.end());
  if (!others.empty()) hand_over(self, choose(others, false), true);
}

bool Schedule::block(Thread& self, const void* on, Step step, Time deadline) {
  self.step = step;
  self.waits_for = on;
  self.deadline = deadline;
  self.timed_out = false;
  self.state = Thread::State::blocked;
  note(self, step);
  hand_over(self, *who_is_next(), true);
  self.waits_for = nullptr;
  return !self.timed_out;
}

void Schedule::wake(const void* who_wait_for) noexcept {
  for (const auto& thread : threads_) {
    if (thread->state == Thread::State::blocked && thread->waits_for == who_wait_for) {
      thread->state = Thread::State::ready;
    }
  }
}

void Schedule::wake_one(const void* who_wait_for) {
  std::vector<Thread*> waiting;
  for (const auto& thread : threads_) {
    if (thread->state == Thread::State::blocked && thread->waits_for == who_wait_for) {
      waiting.push_back(thread.get());
    }
  }
  if (waiting.empty()) return;
  waiting[choose_of(waiting.size(), 0)]->state = Thread::State::ready;
}

void Schedule::note(const Thread& self, const Step& step) noexcept {
  if (report_->events == Report::kMostEvents) return;
  report_->event[report_->events++] = {static_cast<std::uint8_t>(self.number()), step.what,
                                       step.from, choices_.ordinal()};
}

std::string Schedule::who_waits() const {
  std::string text;
  for (const auto& thread : threads_) {
    if (thread->state == Thread::State::ended) continue;
    text += "\n  thread " + std::to_string(thread->number()) +
            (thread->state == Thread::State::ready ? " is before " : " is in ") +
            thread->step.what + ' ' + place(thread->step.from);
  }
  return text;
}

void Schedule::allocated(const void* block, std::size_t bytes, const void* from) {
  blocks_[block] = {bytes, from};
}

void Schedule::freed(Thread& self, void* block, const void* from) {
  if (const auto found = blocks_.find(block); found != blocks_.end()) {
    shadow_.free(self.knows, block, found->second.bytes, from);
    blocks_.erase(found);
  }
  freed_.push_back(block);
}

}  // namespace weir::schedules
