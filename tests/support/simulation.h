#pragma once

#include <weir/io/sim/process.h>
#include <weir/weir.h>

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "machine.h"

/// What lets a test body run on the simulated engine.
namespace weir::test {

using namespace weir::detail;  // NOLINT: what is tested

/// A simulated machine, as the plain code of a test sees it: for its life the current one of the
/// thread that made it.
///
/// A call that blocks lets the world go on until its condition holds. That may be in the middle of
/// a turn of a loop, which stands still meanwhile, as a loop does whose thread is blocked. Threads
/// are real ones, of which one at a time runs, and only while the world stands still: the same run
/// again and again.
class SimulatedMachine : public TestMachine {
 public:
  ~SimulatedMachine() override;

  [[nodiscard]] Sockets& sockets() noexcept override { return process_.sockets; }
  int connect(const SocketAddress& address, int buffer_bytes) override;
  std::int64_t send(int fd, std::string_view bytes, bool waits) override;
  std::int64_t receive(int fd, std::span<char> into, bool waits) override;
  [[nodiscard]] std::uint32_t look_at(int fd) override;
  [[nodiscard]] std::uint64_t arrived(int fd) override;
  std::unique_ptr<Running> start_thread(std::function<void()> function) override;
  void yield() override;
  [[nodiscard]] Duration turn() const noexcept override;
  [[nodiscard]] std::size_t open_descriptors() override {
    return process_.descriptors.open_count();
  }
  void deny_descriptors(bool denied) override;

 protected:
  explicit SimulatedMachine(sim::detail::Process& process);

  /// One event of the world. False if none is left.
  virtual bool step() = 0;
  [[nodiscard]] virtual TimePoint time() const = 0;

  /// One event, and whatever threads do then. False if nobody has anything left to do.
  bool advance();

 private:
  class Thread;

  /// Throws where a thread that is none of these makes a call: it would run beside the world.
  void check_thread() const;
  /// Until the condition holds; false if patience is over first.
  bool wait_until(std::function<bool()> condition);

  sim::detail::Process& process_;
  TestMachine* outer_;
  std::vector<Thread*> threads_;  // in the order in which they were started
};

/// A simulated machine without a world or a loop, for the tests of what is behind the loop's door.
class SimulatedNetwork final : public SimulatedMachine {
 public:
  SimulatedNetwork();
  ~SimulatedNetwork() override;

  /// An engine whose `wait` blocks. It must not outlive this.
  [[nodiscard]] std::unique_ptr<IoEngine> make_engine(const LoopOptions& options);

  [[nodiscard]] TimePoint now() const { return time(); }
  /// Lets time pass, and what happens in it.
  void pass(Duration time);
  using SimulatedMachine::advance;

 private:
  struct State;
  explicit SimulatedNetwork(std::unique_ptr<State> state);

  bool step() override;
  [[nodiscard]] TimePoint time() const override;

  std::unique_ptr<State> state_;
};

/// The current simulated machine; nullptr while there is none.
[[nodiscard]] TestMachine* simulated_machine() noexcept;

/// Runs the coroutine `body` on a fresh loop of a simulated host in a world without faults, in
/// virtual time. It fails if that takes longer than `kPatience`.
void on_simulation(const std::function<Task<>()>& body, LoopOptions options = {});

}  // namespace weir::test
