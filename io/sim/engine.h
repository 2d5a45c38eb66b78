#pragma once

#include <weir/core/engine.h>
#include <weir/core/options.h>
#include <weir/io/engine_base.h>
#include <weir/io/random.h>
#include <weir/io/receive_pool.h>
#include <weir/io/sim/network.h>
#include <weir/io/sim/process.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

namespace weir::sim::detail {

class SimulatedEngine;

/// A buffer that comes back may be what a receive of its engine waits for.
class SimulatedPool final : public weir::detail::FreeListPool {
 public:
  SimulatedPool(SimulatedEngine& engine, std::size_t buffer_size, std::size_t most)
      : FreeListPool(buffer_size, most), engine_(&engine) {}

  void release(Buffer& buffer) noexcept override;

 private:
  ~SimulatedPool() override = default;

  SimulatedEngine* engine_;
};

/// The third engine: no kernel, no clock. What a real kernel may do it does, by chance and by seed:
/// completions of different descriptors in any order, late ones after a cancel, operations with
/// many results that end early.
class SimulatedEngine final : public weir::detail::EngineBase<SimulatedEngine, SimulatedPool> {
 public:
  /// What it needs of the world that runs its loop.
  class Driver {
   public:
    /// The loop wants a turn by then, if not before.
    virtual void want_turn(SimulatedEngine& engine, TimePoint at) = 0;

   protected:
    ~Driver() = default;
  };

  SimulatedEngine(Network& network, Process& process, Driver& driver, const LoopOptions& options);
  ~SimulatedEngine() override;

  [[nodiscard]] std::string_view name() const noexcept override { return "simulation"; }
  /// Throws `std::logic_error` unless the loop may block the world: nobody runs it but the world.
  void attach() override;
  void abandon() noexcept override;
  void wake() noexcept override;

  // For the sockets.
  void complete(Operation& operation, Descriptor& descriptor, int result, bool more) {
    queue(operation, &descriptor, result, more, kNoBuffer);
  }
  void complete(Operation& operation, Descriptor& descriptor, int result, bool more,
                std::uint32_t buffer) {
    queue(operation, &descriptor, result, more, buffer);
  }
  [[nodiscard]] SimulatedPool& pool() noexcept { return *pool_; }
  /// The receive waits until there is a buffer again.
  void starve(Operation& operation, Descriptor& descriptor) noexcept;

  // For the pool.
  void buffer_came_back() noexcept;

  // For the world.
  /// From now on `wait` runs the world until something comes: the loop is being destroyed.
  void let_block() noexcept { may_block_ = true; }
  [[nodiscard]] std::size_t leased() const noexcept { return pool_->leased(); }
  [[nodiscard]] std::size_t in_flight() const noexcept { return in_flight_; }

  // The world's.
  std::uint64_t loop = 0;
  TimePoint next_turn = TimePoint::max();

 private:
  friend EngineBase;

  static constexpr std::uint32_t kNoBuffer = 0xffffffff;

  /// A completion that is on its way.
  struct Ended {
    TimePoint due;
    std::uint64_t tie;
    Operation* operation;
    std::int32_t result;
    bool more;
    std::uint32_t buffer;
    friend bool operator<(const Ended& a, const Ended& b) noexcept {
      return a.due != b.due ? a.due > b.due : a.tie > b.tie;
    }
  };

  void queue(Operation& operation, Descriptor* descriptor, int result, bool more,
             std::uint32_t buffer);
  void start(Operation& operation) noexcept;
  void stop(Operation& operation) noexcept;
  void exchange(TimePoint deadline);
  [[nodiscard]] static int descriptor(TimePoint) noexcept { return -EOPNOTSUPP; }
  void begin(Operation& operation);
  void cancel_now(Operation& operation);
  void hand_over();
  std::size_t deliver_due();
  void feed_starved();
  void read_file(Operation& operation);

  Network& network_;
  Process& process_;
  Driver& driver_;
  List<Operation> waiting_;
  std::vector<Operation*> cancels_;
  std::vector<Operation*> starved_;
  std::vector<Ended> on_their_way_;  // a heap, the next one first
  bool given_up_ = false;
  bool may_block_ = false;
  bool woken_ = false;
};

}  // namespace weir::sim::detail
