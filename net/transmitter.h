#pragma once

#include <weir/core/engine.h>
#include <weir/net/stream/segment_queue.h>

#include <cstdint>

namespace weir::detail {

class Connection;

/// A connection's one operation that sends what is queued by then, or reads a file for that. Loop's
/// thread.
class Transmitter {
 public:
  Transmitter(const Slice& first, int fd) noexcept;

  /// Starts the send of one message that came alone. What is queued in the same turn of the loop
  /// still goes with it: the engine looks at it when it waits.
  void start_alone(IoEngine& engine) noexcept { engine.submit(operation_); }
  /// Starts what there is to do, at the end of the turn.
  void start() noexcept;
  [[nodiscard]] bool in_flight() const noexcept { return operation_.in_flight(); }
  /// Whether a `start` can change anything now.
  [[nodiscard]] bool may_start() const noexcept { return operation_.may_change(); }
  void stop() noexcept;
  /// What is on its way does not stand for anything of the outbox any more.
  void forget_plain() noexcept;
  /// All bytes for the wire have gone.
  [[nodiscard]] bool idle() const noexcept;

 private:
  friend class Connection;
  struct Work;  // for what is not one message in memory; goes when all has gone

  static void on_complete(Operation& operation, Completion completion) noexcept;
  [[gnu::noinline]] void completed(Completion completion) noexcept;
  [[nodiscard]] bool prepare();
  [[nodiscard]] bool prepare_wire();
  void prepare_file();
  void read_block();
  void advance_block(std::size_t used) noexcept;
  void file_was_read(int result) noexcept;
  void file_was_sent(std::size_t count) noexcept;
  void sent(std::size_t count) noexcept;
  void be_plain() noexcept;
  Work& work();
  [[nodiscard]] Work* work_or_null() const noexcept;
  void drop_work() noexcept;
  [[nodiscard]] Connection& connection() const noexcept;

  [[no_unique_address]] Operation operation_;
};

}  // namespace weir::detail
