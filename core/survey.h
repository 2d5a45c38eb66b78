#pragma once

#include <weir/core/histogram.h>
#include <weir/core/metrics.h>
#include <weir/core/socket_view.h>
#include <weir/core/thread_view.h>
#include <weir/coro/flight_recorder.h>
#include <weir/coro/scheduler.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

namespace weir {

class EventLoop;

namespace detail {

class Buffer;

/// A coroutine of a loop where it waits.
struct TaskLine {
  std::size_t depth = 0;         // below what it belongs to
  std::source_location where;    // a line of 0: in none of the program's coroutines
  std::string name;              // that it gave itself
  const char* words = "";        // for what; nothing if for coroutines, which follow
  std::uint32_t waiting_ms = 0;  // since when
  bool is_root = false;          // it was spawned, or is a branch
  std::source_location spawned;  // likewise: by whom; a line of 0: by the library, or a branch
  const Scope* scope = nullptr;  // its own, if it has one: only to be compared
};

struct ConnectionLine {
  std::uint64_t id = 0;
  std::string name;
  const char* state = "";
  std::size_t unread = 0;
  std::size_t input_high = 0;
  bool paused = false;  // receives nothing until somebody reads
  std::size_t pending = 0;
  std::size_t high = 0;
  std::size_t low = 0;
  std::uint64_t sent = 0;  // bytes that have gone
  std::uint32_t age_ms = 0;
  bool is_secure = false;
  std::size_t unread_buffers = 0;   // of those that are leased
  std::size_t pending_buffers = 0;  // likewise
  std::optional<SocketView> socket;
  const Scope* reader = nullptr;   // of whoever waits in a read
  const Scope* handler = nullptr;  // of the task that a server made for it, while that lasts
};

/// What is to be looked at besides the loop itself.
struct Wanted {
  bool tasks = false;
  bool connections = false;
  bool events = false;
};

/// Receive buffers that are with none of the connections: in chunks that the program keeps.
struct KeptLine {
  static constexpr std::uint64_t kUnknown = 1;  // no place is there

  std::uint64_t read_at = 0;   // as the buffers have it; 0: it did not wait
  std::source_location where;  // of the read; a line of 0: it did not wait, or is not known
  std::size_t buffers = 0;
};

struct LoopReport {
  std::uint64_t number = 0;
  std::string name;
  std::string engine;
  enum class State : std::uint8_t { answered, stuck, stands } state = State::stands;
  int thread = 0;             // that runs it, as the kernel numbers it
  std::uint32_t turn_ms = 0;  // of one that is stuck: for how long
  ThreadView view;            // likewise: what its thread does
  Metrics metrics;
  Histogram turn_ms_taken;  // by the kernel's clock of ticks
  Histogram lag;            // how late timers fired: see `add_nanoseconds`
  std::vector<TaskLine> tasks;
  bool tasks_cut = false;  // there are more
  std::vector<ConnectionLine> connections;
  std::vector<const Buffer*> in_connections;  // while that is found out
  std::vector<KeptLine> kept;                 // with the connections
  std::vector<FlightRecorder::Event> events;  // the oldest first
  std::uint32_t clock_ms = 0;                 // when they were taken, as they have it
};

/// The coroutines of a loop, as a tree, looked at some at a time. What is there all the while is
/// shown once, what begins or ends meanwhile may be. Made, used and destroyed on the loop's thread,
/// from outside of any coroutine.
class TaskSurvey {
 public:
  explicit TaskSurvey(EventLoop& loop) noexcept;
  TaskSurvey(const TaskSurvey&) = delete;
  TaskSurvey& operator=(const TaskSurvey&) = delete;

  /// Adds some `lines` more; true once that is all. Throws `std::bad_alloc`.
  bool go_on(LoopReport& report, std::size_t lines);

 private:
  /// Whose tasks it goes through, from the loop's own down to those that it is at.
  struct Level {
    Scope* parent;
    std::size_t depth;
  };

  void begin(LoopReport& report);
  [[nodiscard]] bool still_stands() const noexcept;
  void enter(Scope& parent, std::size_t depth);

  EventLoop& loop_;
  std::vector<Level> levels_;
  Scope mark_{nullptr, Scope::Kind::group};  // below the last level, in front of who is next
  int beginnings_ = 0;
};

/// Whether the coroutine is one of the library's own helpers, which only hand on what they await.
bool only_hands_on(std::string_view file) noexcept;

/// A coroutine's name out of what the compiler says that its function is called: without result,
/// parameters and what a compiler adds.
std::string function_name(const char* signature);

}  // namespace detail
}  // namespace weir
