#pragma once

#include <weir/core/event_loop.h>
#include <weir/core/log_line.h>
#include <weir/core/logging.h>
#include <weir/io/sim/drop.h>
#include <weir/io/sim/engine.h>
#include <weir/io/sim/network.h>
#include <weir/io/sim/process.h>
#include <weir/io/sim/tape.h>
#include <weir/io/sim/world.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// What is behind `World` and `Host`.
namespace weir::sim {
namespace detail {

/// The number in an environment variable, if it is set. Throws `std::invalid_argument`.
std::optional<std::uint64_t> number_from(const char* variable);

/// What WEIR_SIM_TAPE names, if it is set. Throws what `TapeText::read` does.
std::optional<TapeText> tape_of_environment();

/// What the exception says of itself.
std::string describe(const std::exception_ptr& failure);

/// A task of `Host::spawn` or `run`.
struct RunningTask {
  std::string name;
  TimePoint since{};
};

/// One that has ended.
struct EndedTask {
  std::size_t host;
  RunningTask task;
  TimePoint at;
};

/// How far a run may go.
struct Bounds {
  std::uint64_t most_steps = std::numeric_limits<std::uint64_t>::max();
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

/// A run has come to its bounds.
struct GivenUp {};

/// A loop of a host, with the engine that it runs on.
struct SimulatedLoop {
  SimulatedLoop(weir::detail::Machine& machine, std::unique_ptr<SimulatedEngine> with,
                const LoopOptions& options)
      : engine(with.get()), loop(options, machine, std::move(with)) {}

  SimulatedEngine* engine;  // the loop's
  EventLoop loop;
  bool busy = false;    // in a turn, or being destroyed
  bool missed = false;  // a turn was due meanwhile
};

}  // namespace detail

using namespace detail;  // this header is none of the user's

struct Host::Impl final : weir::detail::Machine {
  Impl(World::Impl& of, std::size_t at, std::string where, std::string what);

  [[nodiscard]] TimePoint now() noexcept override { return process->now(); }
  [[nodiscard]] std::uint64_t random() noexcept override;
  [[nodiscard]] Sockets& sockets() noexcept override { return process->sockets; }
  [[nodiscard]] weir::detail::SignalTable& signals() noexcept override { return process->signals; }
  std::unique_ptr<IoEngine> make_engine(const LoopOptions& options) override;
  std::unique_ptr<weir::detail::LoopRunner> start_loop(const LoopOptions& options) override;
  Task<std::vector<RawAddress>> look_up(weir::detail::NameQuery query) override;
  void start_work(weir::detail::WorkQueue& queue,
                  std::shared_ptr<weir::detail::Work> work) override;
  Task<bool> start_successor(weir::detail::SuccessorCommand command) override;

  SimulatedLoop& add_loop(const LoopOptions& options);
  void boot();
  void end_process(bool with_machine);
  void end_task(std::uint64_t number) noexcept;
  void end_loop(EventLoop& loop) noexcept;
  void destroy(std::unique_ptr<SimulatedLoop> own) noexcept;
  [[nodiscard]] std::vector<RawAddress> addresses_of(std::string_view host) const;
  static Task<> watch(Impl& host, std::uint64_t number, Task<> task);
  static Task<> run_marked(Impl& host, std::string name, Task<> task);
  [[nodiscard]] bool in_use() const noexcept {
    return std::any_of(loops.begin(), loops.end(), [](const auto& loop) { return loop->busy; });
  }

  World::Impl& world;
  std::size_t index;
  std::string address;
  std::string name;
  Random dice;
  std::unique_ptr<Process> process;
  std::vector<std::unique_ptr<SimulatedLoop>> loops;  // the main one first
  std::function<Task<>()> main;
  std::map<std::uint64_t, RunningTask> tasks;  // that have not ended
  std::uint64_t next_task = 0;
  std::optional<std::size_t> descriptor_limit;
  bool running = false;
  bool paused = false;
};

struct World::Impl final : SimulatedEngine::Driver, weir::detail::LogTap {
  /// The world that runs on this thread.
  static inline constinit thread_local Impl* current = nullptr;

  /// While it lives the world is the current one, and the messages of the library go into the
  /// history of the host that runs.
  struct Tapped {
    explicit Tapped(Impl& world) noexcept
        : before(weir::detail::set_log_tap(&world)), outer(std::exchange(current, &world)) {}
    Tapped(const Tapped&) = delete;
    Tapped& operator=(const Tapped&) = delete;
    ~Tapped() {
      weir::detail::set_log_tap(before);
      current = outer;
    }
    weir::detail::LogTap* before;
    Impl* outer;
  };

  /// Of `World::always`.
  struct Invariant {
    std::string what;
    std::function<bool()> holds;
  };

  explicit Impl(const WorldOptions& options)
      : network(options), users(network.chance.seed_of(7)), frames(live_frames()) {}

  void want_turn(SimulatedEngine& engine, TimePoint at) override {
    if (at >= engine.next_turn) return;
    at = std::max(at, network.now());
    engine.next_turn = at;
    network.schedule(at, [this, id = engine.loop, at] { turn(id, at); });
  }
  void take(logging::Level level, std::string_view message) noexcept override;

  void turn(std::uint64_t id, TimePoint at);

  /// One event; throws what has failed meanwhile.
  bool step();
  void check_invariants();
  void throw_failed();

  void fail(const std::string& what) {
    if (failure) return;
    cause = what;
    failure = report(what);
  }
  [[noreturn]] void give_up(const std::string& what) {
    cause = what;
    throw Failure(report(what));
  }

  /// Now, or, if the host's own code asks for it, when its turn is over.
  void end_process(Host::Impl& host, bool with_machine);

  [[nodiscard]] std::string report(const std::string& what) const;
  [[nodiscard]] static std::string tell_tasks(const Host::Impl& host);
  /// What is left of a shrunk run, in words.
  [[nodiscard]] std::string tell_choices() const;
  [[nodiscard]] std::string tell(const Choice& choice) const;
  [[nodiscard]] static std::string tell(const Record& record);
  void write_trace(const std::string& path);
  [[nodiscard]] TimePoint start() const noexcept { return TimePoint(std::chrono::hours(1)); }

  Network network;
  Random users;
  std::int64_t frames;
  std::vector<std::unique_ptr<Host>> hosts;
  std::vector<std::unique_ptr<Process>> dead;  // what they had open may still refer to them
  struct Owned {
    Host::Impl* host;
    SimulatedLoop* loop;
  };
  std::map<std::uint64_t, Owned> loops;  // those that are being destroyed as well
  std::uint64_t next_loop = 1;
  Host::Impl* active = nullptr;
  std::optional<std::string> failure;
  std::string cause;  // of the failure, in words
  std::vector<Invariant> invariants;
  std::vector<EndedTask> ended_tasks;    // for a trace
  std::vector<std::string> trace_paths;  // where that goes at the end
  DropPlan* drop = nullptr;
  std::unique_ptr<Tape> tape;  // of the environment
  Bounds bounds;
  std::uint64_t steps = 0;
  bool finished = false;
  std::vector<std::shared_ptr<void>> kept;  // may refer to all of the above
};

inline Host::Impl::Impl(World::Impl& of, std::size_t at, std::string where, std::string what)
    : world(of),
      index(at),
      address(std::move(where)),
      name(std::move(what)),
      dice(of.network.chance.seed_of(1000 + at)) {}

inline std::uint64_t Host::Impl::random() noexcept {
  const std::uint64_t drawn = dice.next();
  return world.network.chance.choose(ChoiceKind::dice, index, 0, drawn, 0);
}

}  // namespace weir::sim
