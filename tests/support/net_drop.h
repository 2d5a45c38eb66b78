#pragma once

#include "drop_at.h"
#include "net.h"
#include "process.h"
#include "simulation.h"

namespace weir::test {

/// Drops at every moment, on every engine and on the simulation. There must be `least` moments.
template <class Make>
void drop_everywhere(Make make, std::size_t least = 1) {
  for_each_engine([&](Engine engine) {
    const Environment variable("WEIR_ENGINE", engine == Engine::uring ? "uring" : "epoll");
    CHECK(drop_at_every_moment(make, kMostMoments, [](const auto& scene) {
            const LookupsEnd lookups_end;  // before the frames are counted
            on_fresh_loop(scene);
          }) >= least);
  });
  CHECK(drop_at_every_moment(make, kMostMoments, [](const auto& scene) { on_simulation(scene); }) >=
        least);
}

}  // namespace weir::test
