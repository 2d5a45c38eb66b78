#pragma once

#include <weir/core/engine.h>
#include <weir/core/options.h>
#include <weir/io/receive_pool.h>
#include <weir/io/sim/network.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

namespace weir::sim {

/// The third engine: no kernel, no clock. What a real kernel may do it does, by chance and by seed:
/// completions of different descriptors in any order, late ones after a cancel, operations with
/// many results that end early.
class SimulatedEngine final : public IoEngine {
 public:
  /// What it needs of the world that runs its loop.
  class Driver {
   public:
    /// The loop wants a turn by then, if not before.
    virtual void want_turn(SimulatedEngine& engine, TimePoint at) = 0;
    [[nodiscard]] virtual Machine& machine_of(SimulatedEngine& engine) noexcept = 0;

   protected:
    ~Driver() = default;
  };

  SimulatedEngine(Network& network, Process& process, Driver& driver, const LoopOptions& options,
                  std::uint64_t seed);
  ~SimulatedEngine() override;

  [[nodiscard]] std::string_view name() const noexcept override { return "simulation"; }
  /// Throws `std::logic_error` unless the loop may block the world: nobody runs it but the world.
  void attach() override;
  void abandon() noexcept override;
  void submit(Operation& operation) noexcept override;
  void cancel(Operation& operation) noexcept override;
  void wait(TimePoint deadline) override;
  void wake() noexcept override;
  [[nodiscard]] TimePoint now() noexcept override { return std::max(network_.now(), last_hour_); }
  [[nodiscard]] std::uint64_t random() noexcept override { return random_.next(); }
  [[nodiscard]] Sockets& sockets() noexcept override { return process_; }
  [[nodiscard]] Machine* machine() noexcept override { return &driver_.machine_of(*this); }
  [[nodiscard]] bool idle() const noexcept override { return in_flight_ == 0; }
  void add_metrics(Metrics& metrics) const noexcept override;

  // For the sockets.
  void complete(Operation& operation, Descriptor& descriptor, int result, bool more) {
    queue(operation, &descriptor, result, more, kNoBuffer);
  }
  void complete(Operation& operation, Descriptor& descriptor, int result, bool more,
                std::uint32_t buffer) {
    queue(operation, &descriptor, result, more, buffer);
  }
  [[nodiscard]] std::size_t buffer_size() const noexcept;
  [[nodiscard]] bool has_buffer() noexcept;
  [[nodiscard]] std::uint32_t take_buffer() noexcept;
  [[nodiscard]] std::byte* data_of(std::uint32_t buffer) const noexcept;
  /// The receive waits until there is a buffer again.
  void starve(Operation& operation, Descriptor& descriptor) noexcept;

  // For the world.
  /// From now on `wait` runs the world until something comes: the loop is being destroyed.
  void let_block() noexcept { may_block_ = true; }
  [[nodiscard]] std::size_t leased() const noexcept;
  [[nodiscard]] std::size_t in_flight() const noexcept { return in_flight_; }

  // The world's.
  std::uint64_t loop = 0;
  TimePoint next_turn = TimePoint::max();

 private:
  class Pool;
  struct Retire {
    void operator()(Pool* pool) const noexcept;
  };
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
  void start(Operation& operation);
  void cancel_now(Operation& operation);
  bool detach(Operation& operation) noexcept;
  void hand_over();
  std::size_t deliver();
  void feed_starved();
  void read_file(Operation& operation);

  Network& network_;
  Process& process_;
  Driver& driver_;
  std::unique_ptr<Pool, Retire> pool_;
  Random random_;
  List<Operation> waiting_;
  std::vector<Operation*> cancels_;
  std::vector<Operation*> starved_;
  std::vector<Ended> ended_;  // a heap, the next one first
  std::size_t in_flight_ = 0;
  bool abandoned_ = false;
  bool may_block_ = false;
  bool woken_ = false;
  TimePoint last_hour_{};  // of an abandoned loop: its deadlines pass at once
  std::uint64_t waits_ = 0;
  std::uint64_t submissions_ = 0;
  std::uint64_t completions_ = 0;
  std::uint64_t cancellations_ = 0;
  std::uint64_t wakes_ = 0;
  std::uint64_t starvations_ = 0;
};

}  // namespace weir::sim
