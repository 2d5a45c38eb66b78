// The load client's ring, and a turn of it.
#pragma once

#include "../common/ring.h"
#include "run.h"

namespace load_client {

class Session : public Run {
 public:
  explicit Session(const Options& options);

  // Runs a mode to its end. A Load has start(), complete(const io_uring_cqe&), end_turn() and
  // finished(); it calls begin() when its connections stand.
  template <typename Load>
  void run(Load& load) {
    arm_tick();
    load.start();
    while (!load.finished()) {
      ring_.submit_and_wait();
      begin_turn();
      ring_.for_each_completion([&](const io_uring_cqe& completion) {
        if (completion.user_data == kTick) {
          arm_tick();
          look();
        } else {
          load.complete(completion);
        }
      });
      load.end_turn();
      buffers_.publish();
    }
    finish();
  }

  bench::Ring& ring() { return ring_; }
  bench::BufferRing& buffers() { return buffers_; }

  // Modes tell their operations apart by user_data below this.
  static constexpr std::uint64_t kTick = ~std::uint64_t{0};

 private:
  void arm_tick();

  bench::BufferRing buffers_;
  bench::Ring ring_;
};

}  // namespace load_client
