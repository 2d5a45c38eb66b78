#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "choices.h"
#include "clock.h"
#include "memory.h"
#include "report.h"

namespace weir::schedules {

/// In nanoseconds of a clock that stands while a thread can run.
using Time = std::int64_t;
constexpr Time kNever = std::numeric_limits<Time>::max();

/// One of a schedule.
struct Thread {
  enum class State : std::uint8_t { ready, blocked, ended };

  Knowledge knows;
  State state = State::ready;
  const void* waits_for = nullptr;
  Time deadline = kNever;
  bool timed_out = false;
  bool inside = true;  // of the runtime: what it does is its own
  std::uint64_t priority = 0;
  Step step{"its start", nullptr, 0};  // the next, or the one in which it is blocked

  static constexpr std::size_t kMostCalls = 1024;
  std::size_t depth = 0;
  const void* calls[kMostCalls] = {};

  std::atomic<std::uint32_t> turn{0};
  void* (*start)(void*) = nullptr;
  void* argument = nullptr;
  void* result = nullptr;
  pthread_t real{};
  std::function<void()> body;  // of the first

  [[nodiscard]] std::size_t number() const noexcept { return knows.thread; }
  /// Where the program calls the runtime from `from`.
  [[nodiscard]] Step step_at(const char* what, const void* from) const noexcept;
};

/// That of the calling thread, nullptr outside of schedules.
extern constinit thread_local Thread* current_thread;

/// While a thread of a schedule is in the runtime; false if it was before, or is none of a
/// schedule.
class Inside {
 public:
  Inside() noexcept : self_(current_thread) {
    if (self_ != nullptr && self_->inside) self_ = nullptr;
    if (self_ != nullptr) self_->inside = true;
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  ~Inside() {
    if (self_ != nullptr) self_->inside = false;
  }
  explicit operator bool() const noexcept { return self_ != nullptr; }
  [[nodiscard]] Thread& self() const noexcept { return *self_; }

 private:
  Thread* self_;
};

/// The threads of one schedule, of which one runs at a time.
class Schedule {
 public:
  static Schedule& instance() noexcept;

  void report_to(Report& report) noexcept { report_ = &report; }
  /// Runs the body to the end of all its threads. By a thread of none.
  void run(const std::function<void()>& body);
  Choices& choices() noexcept { return choices_; }
  /// Of a schedule by chance: where priorities change.
  void change_priorities_at(std::vector<std::size_t> ordinals) { changes_ = std::move(ordinals); }
  [[nodiscard]] bool take_news() noexcept { return locations_.take_news(); }

  // By the thread that runs.
  void touch(Thread& self, const void* address, std::size_t bytes, Shadow::Kind kind,
             const void* from);
  void point(Thread& self, const void* address, Step step);
  void give_way(Thread& self);
  /// False if the time is over.
  bool block(Thread& self, const void* on, Step step, Time deadline = kNever);
  void wake(const void* who_wait_for) noexcept;
  /// One of them, whichever.
  void wake_one(const void* who_wait_for);
  [[nodiscard]] Time now() const noexcept { return now_; }

  std::uint64_t load(Thread& self, const void* address, std::size_t bytes, int order, Step step);
  void store(Thread& self, void* address, std::size_t bytes, std::uint64_t value, int order,
             Step step);
  /// `change` gives whether there is a new value, and puts it in the place of the old one. Gives
  /// the old one.
  template <class Change>
  std::uint64_t change(Thread& self, void* address, std::size_t bytes, int order, int failing,
                       Step step, Change change);
  void fence(Thread& self, int order, Step step);

  void lock(Thread& self, void* mutex, Step step);
  bool try_lock(Thread& self, void* mutex, Step step);
  void unlock(Thread& self, void* mutex, const void* from);
  bool wait(Thread& self, void* condition, void* mutex, Step step, Time deadline);
  void notify(Thread& self, void* condition, Step step, bool all);
  int create(Thread& self, pthread_t* made, void* (*start)(void*), void* argument);
  void join(Thread& self, pthread_t thread, void** result, Step step);
  /// As futex(2) without a timeout: waits while the word has that value, or wakes all.
  long futex(Thread& self, const std::uint32_t* word, bool waits, std::uint32_t value, Step step);
  bool begin_once(Thread& self, void* guard, Step step);
  void end_once(Thread& self, void* guard, bool done, Step step);

  void allocated(const void* block, std::size_t bytes, const void* from);
  /// It is freed when the schedule is over.
  void freed(Thread& self, void* block, const void* from);

 private:
  friend void fail(const std::string& what);

  Thread& add(void* (*start)(void*), void* argument);
  static void* begin_thread(void* thread);
  static void end_thread(void* thread);
  [[nodiscard]] std::vector<Thread*> ready(Thread* first);
  Thread& choose(const std::vector<Thread*>& options, bool costs);
  std::size_t choose_of(std::size_t options, std::uint32_t costs,
                        std::optional<std::size_t> wanted = {});
  Thread* who_is_next();
  void hand_over(Thread& self, Thread& next, bool waits);
  static void wait_for_turn(Thread& self) noexcept;
  static void give_turn(Thread& thread) noexcept;
  void note(const Thread& self, const Step& step) noexcept;
  [[nodiscard]] std::string who_waits() const;
  void put(void* address, std::size_t bytes, std::uint64_t value) noexcept;
  void clear();

  Report* report_ = nullptr;
  Choices choices_;
  std::vector<std::size_t> changes_;
  Shadow shadow_;
  Locations locations_;
  std::vector<std::unique_ptr<Thread>> threads_;
  struct Block {
    std::size_t bytes;
    const void* from;
  };
  std::unordered_map<const void*, Block> blocks_;
  std::vector<void*> freed_;
  bool warm_ = false;  // what is initialized once is
  Time now_ = 0;
  std::size_t steps_ = 0;
  std::atomic<std::uint32_t> over_{0};
};

template <class Change>
std::uint64_t Schedule::change(Thread& self, void* address, std::size_t bytes, int order,
                               int failing, Step step, Change change) {
  point(self, address, step);
  Location& location = locations_.at(address);
  (void)locations_.visible(location, self.knows, address, bytes, order);
  std::uint64_t value = location.stores.back().value;
  const std::uint64_t before = value;
  const bool stores = change(value);
  touch(self, address, bytes, {stores, true}, step.from);
  (void)locations_.load(location, self.knows, stores ? order : failing, 0);
  if (stores) {
    put(address, bytes, value);
    locations_.store(location, self.knows, value, order, true);
  }
  return before;
}

}  // namespace weir::schedules
