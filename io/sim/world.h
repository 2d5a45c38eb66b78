#pragma once

#include <weir/core/event_loop.h>
#include <weir/io/sim/options.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

/// Deterministic simulation: unchanged server and client coroutines on simulated hosts, in virtual
/// time, on one thread, with faults by seed. See docs/simulation.md.
namespace weir::sim {

class World;

namespace detail {
class Run;
}

/// A check of the world, or of the user, did not hold. The text has the seed, the virtual time, the
/// last events of each host and the command that repeats the run.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A simulated machine with one process. Its tasks run on its main loop, `EventLoop::current()` in
/// them; `EventLoopThread` gives further ones. It belongs to its world.
class Host {
 public:
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  ~Host();

  /// Runs the task on the main loop. An exception that leaves it is a failure of the world. `name`
  /// is for reports. Throws `std::logic_error` while the process does not run.
  template <class T>
  void spawn(Task<T> task, std::string name = "task") {
    start(without_result(std::move(task)), std::move(name));
  }
  /// The same. It is the task that `drop_everywhere` drops at each of its suspensions, and all that
  /// it owns with it; elsewhere it is a task like any.
  template <class T>
  void spawn_dropped(Task<T> task, std::string name = "dropped task") {
    start(marked(without_result(std::move(task)), name), name);
  }

  /// What the process runs: now, and again after each `restart`. The process goes on when that has
  /// returned; `unfinished` tells.
  void run(std::function<Task<>()> main);

  [[nodiscard]] EventLoop& loop() const;
  [[nodiscard]] const std::string& address() const noexcept;
  [[nodiscard]] const std::string& name() const noexcept;
  /// A further address, of either family.
  void add_address(std::string_view address);

  /// A signal for the process. One that nobody holds does what it does by default: SIGTERM,
  /// SIGINT and others `kill`.
  void raise(int signal);

  /// The process ends at once, and its kernel closes what it had open: peers see an end or a reset.
  void kill();
  /// The machine goes off. Peers see nothing, until it is back and answers with a reset.
  void crash();
  /// A new process, on a machine that is on again. The one before is killed.
  void restart();
  /// The process stands still (SIGSTOP), its kernel does not.
  void pause();
  void resume();
  /// Neither killed nor crashed. A process whose tasks have all ended still runs.
  [[nodiscard]] bool running() const noexcept;

  /// Of the process, from now on.
  void set_descriptor_limit(std::size_t limit);
  [[nodiscard]] std::size_t open_descriptors() const noexcept;
  /// Tasks of `spawn` and `run` that have not ended.
  [[nodiscard]] std::size_t unfinished() const noexcept;

 private:
  friend class World;
  struct Impl;

  explicit Host(std::unique_ptr<Impl> impl);

  template <class T>
  static Task<> without_result(Task<T> task) {
    co_await std::move(task);
  }
  void start(Task<> task, std::string name);
  Task<> marked(Task<> task, const std::string& name);

  std::unique_ptr<Impl> impl_;
};

/// A network of hosts under a virtual clock. The same seed and the same code give the same run,
/// event for event, on any machine. Everything on the thread that made it, and not from inside one
/// of its tasks, but for `at`, `inject`, `partition`, `heal` and what `Host` can do, and for
/// `step`: from inside a task it is what a call that blocks is on a real machine. The loop whose
/// turn that is stands still meanwhile; all others go on.
///
/// Any of the `run_…` throws `Failure` where something did not hold.
class World {
 public:
  struct Impl;  // the library's own

  explicit World(WorldOptions options = {});
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  /// `finish`, unless that was called or an exception is on its way.
  ~World() noexcept(false);

  /// A host with an address ("10.0.0.1", "fd00::1") and a name by which others can connect to it;
  /// without one the address is its name. Throws `std::invalid_argument`.
  Host& add_host(std::string_view address, std::string_view name = {});

  /// Lets virtual time pass; it costs what happens in it.
  void run_for(std::chrono::nanoseconds time);
  /// Until the condition holds, asked after each event. False when `limit` has passed before. With
  /// nothing left to happen that throws: it tells who waits for what.
  bool run_until(const std::function<bool()>& condition,
                 std::chrono::nanoseconds limit = std::chrono::hours(24));
  /// Until nothing is left to happen: what still waits then waits for ever.
  void run_until_idle();
  /// One event. False if there is none left.
  bool step();

  /// Liveness: ends all that is wrong with the network and the hosts, then runs until the condition
  /// holds, asked after each event. No fault hits any more, by chance or by order, also after this;
  /// no segment is lost; partitions heal, paused hosts go on. A host that is down stays down.
  /// Throws `Failure` if the limit (virtual time) passes or nothing is left to happen: with what
  /// the hosts wait for, and what they did instead. What TCP sends again waits for up to two
  /// minutes after a long partition: the limit should have room for that.
  void heal_and_expect(const std::function<bool()>& condition, std::chrono::nanoseconds limit);

  /// An invariant: the function is called after every event, in no host. False, if it gives a bool,
  /// and any exception are a failure of the world. `what` is for its text.
  template <class Check>
  void always(Check check, std::string_view what = "what must always hold") {
    if constexpr (std::is_void_v<decltype(check())>) {
      keep_checking(
          [check = std::move(check)]() mutable {
            check();
            return true;
          },
          what);
    } else {
      keep_checking(std::move(check), what);
    }
  }

  /// Ends all hosts and checks that nothing is left of them: operations, descriptors, leases,
  /// frames. Throws `Failure`.
  void finish();

  /// Virtual time since the world began.
  [[nodiscard]] std::chrono::nanoseconds now() const noexcept;
  /// Calls the function then, in no host.
  void at(std::chrono::nanoseconds time, std::function<void()> function);
  /// The fault hits the host's next operations that it can hit, from then on.
  void at(std::chrono::nanoseconds time, Fault fault, Host& host, std::size_t times = 1);
  void inject(Fault fault, Host& host, std::size_t times = 1);
  /// How often a fault has hit: a run without hits has tested nothing.
  [[nodiscard]] std::uint64_t hits(Fault fault) const noexcept;

  /// In both directions.
  /// Both ways, from now on. Throws `std::invalid_argument` for a negative time, or a loss that is
  /// no probability, as worlds do whose `Faults` have one.
  void set_link(const Host& a, const Host& b, const Link& link);
  void set_one_way(const Host& from, const Host& to, const Link& link);
  /// Nothing gets through any more. Connections wait, and end with ETIMEDOUT after their time.
  void partition(const Host& a, const Host& b);
  void partition_one_way(const Host& from, const Host& to);
  void heal(const Host& a, const Host& b);
  void heal();

  /// An object that lives until all hosts have ended: for what tasks refer to in their destructors
  /// too.
  template <class T, class... Arguments>
  T& make(Arguments&&... arguments) {
    auto object = std::make_shared<T>(std::forward<Arguments>(arguments)...);
    T& made = *object;
    keep(std::move(object));
    return made;
  }

  /// A number of the test's own, from a stream of its own.
  [[nodiscard]] std::uint64_t random() noexcept;
  [[nodiscard]] std::uint64_t seed() const noexcept;
  /// Whether `drop_everywhere` has dropped the marked task: what it was to do may be undone.
  [[nodiscard]] bool dropped() const noexcept;
  /// Writes what happens as JSON that ui.perfetto.dev and chrome://tracing open: a process for each
  /// host with a track for its kernel, one for each loop and one for each connection and task;
  /// arrows for segments, marks for faults. Called before anything happens it has all of the run:
  /// the file is written now and again when the world ends. Called later it has of what was before
  /// the last `WorldOptions::history` events of each host only. It changes no hash. May be called
  /// for several files. Throws `std::system_error`, `finish` too.
  void save_trace(const std::string& path);
  /// Equal for equal runs.
  [[nodiscard]] std::uint64_t trace_hash() const noexcept;
  /// Throws `Failure` unless the condition holds, and from the `run_…` too: a task group may catch
  /// it. From anywhere.
  void check(bool condition, std::string_view what);
  /// Seed, time, and what happened last.
  [[nodiscard]] std::string report() const;

 private:
  friend class Host;
  friend class detail::Run;
  void keep(std::shared_ptr<void> object);
  void keep_checking(std::function<bool()> check, std::string_view what);

  std::unique_ptr<Impl> impl_;
};

}  // namespace weir::sim
