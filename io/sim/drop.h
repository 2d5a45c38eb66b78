#pragma once

#include <weir/coro/task_group.h>

#include <cstddef>
#include <string>
#include <vector>

namespace weir {
class EventLoop;
}

// Where a task is dropped, for `drop_everywhere`.
namespace weir::sim::detail {

/// A task that is to be dropped.
struct Marked {
  std::string name;
  std::size_t host = 0;
  TaskGroup* group = nullptr;                  // has it alone
  const weir::detail::Scope* scope = nullptr;  // its own; none before it begins and when it is over
  bool looked_at = false;                      // its first suspension has been counted
};

/// Two moments for each suspension of a marked task: as it suspends, and when it is about to go on.
struct DropPlan {
  std::size_t moment = 0;  // to drop at, the first being 0
  std::size_t passed = 0;
  std::size_t suspension = 0;  // the one that was met last; the first is 1
  bool was_marked = false;     // there was such a task
  bool dropped = false;
  std::string where;          // in words
  EventLoop* loop = nullptr;  // that has its turn
  std::vector<Marked*> marked;

  /// The marked task to which what runs in this scope belongs, or nullptr.
  [[nodiscard]] Marked* owner_of(const weir::detail::Scope* scope) const noexcept;
  /// The coroutines of the task, each with where it waits and for what.
  [[nodiscard]] std::string tell_place(const Marked& task) const;
  /// Another moment. Drops the task if it is the one; true then.
  bool pass(Marked& task, const char* when);
};

/// In the place of what resumes those that are ready in a turn of the loop: gives how many it has.
std::size_t resume_counting(weir::EventLoop& loop, void* drop_plan);

}  // namespace weir::sim::detail
