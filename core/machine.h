#pragma once

#include <weir/core/sockets.h>
#include <weir/coro/scheduler.h>
#include <weir/coro/task.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace weir {

class EventLoop;
struct LoopOptions;

}  // namespace weir

namespace weir::detail {

class IoEngine;
struct SocketView;
struct ThreadView;
class TurnWatch;
class Work;
class WorkQueue;

/// The signals of a process. Bit n - 1 of a set is signal n. Each gives -errno for an error.
class SignalTable {
 public:
  /// A descriptor (-1: a new one, which it gives) that is readable once one of the signals has
  /// come; from now on it holds these and no others.
  virtual int hold(int fd, std::uint64_t signals) = 0;
  virtual std::uint64_t take(int fd) = 0;  // those that came since
  virtual void let_go(int fd) noexcept = 0;
  virtual void raise(int number) noexcept = 0;  // as if it came now, if nobody holds it

 protected:
  ~SignalTable() = default;
};

/// A further loop of a machine, which runs in a thread of its own or in place of one. Its end stops
/// and destroys the loop, not from the loop itself.
class LoopRunner {
 public:
  LoopRunner() = default;
  LoopRunner(const LoopRunner&) = delete;
  LoopRunner& operator=(const LoopRunner&) = delete;
  virtual ~LoopRunner() = default;

  [[nodiscard]] virtual EventLoop& loop() noexcept = 0;
};

/// A host and a service to look up.
struct NameQuery {
  std::string name;  // as the user wrote it, for messages
  std::string host;
  std::string service;     // its number or its name
  bool is_number = false;  // the host is an address as it stands
};

/// One of those that are counted, to its end, or for ever.
class Claim {
 public:
  Claim() noexcept = default;
  explicit Claim(std::shared_ptr<std::atomic<int>> count) noexcept : count_(std::move(count)) {
    ++*count_;
  }
  Claim(Claim&&) noexcept = default;
  Claim& operator=(Claim&&) = delete;
  ~Claim() { end(); }

  void end() noexcept {
    if (const auto count = std::exchange(count_, nullptr)) --*count;
  }
  void keep() noexcept { count_ = nullptr; }

 private:
  std::shared_ptr<std::atomic<int>> count_;
};

/// A program that takes over from this one.
struct SuccessorCommand {
  std::vector<std::string> words = {};  // its path and arguments
  std::vector<int> descriptors = {};    // that it inherits: listeners
  bool with_files = false;              // of the Unix listeners among them
  Duration limit = {};                  // until when it has to serve; 0: no limit
  std::string secrets = {};             // that it is told, by `take_inherited_secrets`
  Claim claim = {};                     // on them: to its end if it never serves, else for ever
};

[[nodiscard]] constexpr std::uint32_t milliseconds_of(TimePoint time) noexcept {
  using Milliseconds = std::chrono::milliseconds;
  return static_cast<std::uint32_t>(
      std::chrono::duration_cast<Milliseconds>(time.time_since_epoch()).count());
}

/// What a loop runs on, its engine apart: time, chance, descriptors, signals, threads, names and
/// programs. Every loop has one, real or simulated, and nobody asks which. On a loop's thread, or
/// where its members say from any.
class Machine {
 public:
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  /// Monotonic; from any thread.
  [[nodiscard]] virtual TimePoint now() noexcept = 0;
  /// The same clock in milliseconds, late by some and cheap.
  [[nodiscard]] virtual std::uint32_t clock_ms() noexcept { return milliseconds_of(now()); }
  /// Even over 64 bits; from any thread.
  [[nodiscard]] virtual std::uint64_t random() noexcept = 0;
  [[nodiscard]] virtual Sockets& sockets() noexcept = 0;
  [[nodiscard]] virtual SignalTable& signals() noexcept = 0;

  /// For a loop that its maker runs. Throws `std::system_error` naming cause and cure,
  /// `std::invalid_argument` naming the option, `std::logic_error` where only the machine itself
  /// may run loops.
  virtual std::unique_ptr<IoEngine> make_engine(const LoopOptions& options) = 0;
  /// A loop that the machine runs; throws what the making of the loop threw.
  virtual std::unique_ptr<LoopRunner> start_loop(const LoopOptions& options) = 0;

  /// The addresses that a name stands for, at least one. Throws `std::system_error`
  /// (`errc::not_found`, `errc::try_again`, or of the resolver). Never blocks the loop.
  virtual Task<std::vector<RawAddress>> look_up(NameQuery query) = 0;

  /// Has the queue do the work, or does it on the machine's only thread, later.
  virtual void start_work(WorkQueue& queue, std::shared_ptr<Work> work) = 0;

  /// True once the successor serves; false, and logged, if it does not come to that. Dropped, it is
  /// ended. Throws `std::logic_error` where there are no programs.
  virtual Task<bool> start_successor(SuccessorCommand command) = 0;

  /// The calling thread runs a loop from now on: on that processor if it is not -1, with its turns
  /// looked at. Throws `std::system_error` that names the option if it may not run there.
  virtual void begin_run(TurnWatch& /*turns*/, int /*cpu*/) {}
  /// It does not any more, on the same thread.
  virtual void end_run(TurnWatch& /*turns*/) noexcept {}

  /// What that thread does, by the kernel's number of it; waits for its answer for some
  /// milliseconds. On another thread, whichever. Throws `std::bad_alloc`.
  virtual ThreadView look_at_thread(int thread);
  /// Nothing of what is no TCP connection, or not the kernel's.
  virtual std::optional<SocketView> look_at_socket(int fd) noexcept;

 protected:
  Machine() = default;
  ~Machine() = default;
};

/// The one that this process runs on. Never destroyed. Defined by the io layer.
Machine& process_machine() noexcept;

/// That of the loop that runs on this thread; without one, the process's.
Machine& current_machine() noexcept;

}  // namespace weir::detail
