#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "../support/allocations.h"
#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr std::int64_t kConnections = 30;
constexpr std::int64_t kMessage = 600 << 10;
constexpr ConnectionOptions kOptions = {.water_marks = {.high = 64 << 10, .low = 16 << 10},
                                        .input_high = 100 << 10};
constexpr std::int64_t kReceive = 512 << 10;  // the most that comes in by one receive

Task<> send_for_ever(TcpConnection& conn) {
  co_await conn.send(std::string(kOptions.water_marks.high - 1, 'x'));  // room for one more
  for (;;) co_await conn.send(std::string(kMessage, 'x'));
}

/// The peers send until nothing goes any more.
Task<> flood(std::vector<Connected>& connections) {
  const std::string bytes(256 << 10, 'y');
  for (int quiet = 0; quiet < 20; ++quiet) {
    for (Connected& each : connections) {
      if (each.peer.send_now(bytes) > 0) quiet = 0;
    }
    co_await sleep(1ms);
  }
}

Task<> fill(int buffer_bytes) {
  EventLoop& loop = EventLoop::current();
  const auto taken_now = [&loop] {  // and in receive buffers
    return allocated_bytes() + static_cast<std::int64_t>(loop.metrics().buffers_leased) *
                                   static_cast<std::int64_t>(LoopOptions().buffer_size);
  };
  const std::int64_t before = taken_now();
  std::vector<Connected> connections;
  for (int i = 0; i < kConnections; ++i)
    connections.push_back(connect_pair(kOptions, buffer_bytes));
  TaskGroup group;
  for (Connected& each : connections) group.spawn(send_for_ever(each.connection));
  co_await flood(connections);
  const std::int64_t taken = taken_now() - before;
  std::int64_t pending = 0;
  for (Connected& each : connections) {
    pending += static_cast<std::int64_t>(each.connection.pending_bytes());
  }
  // docs/deployment.md: high mark + longest message + input_high + one receive.
  const auto high = static_cast<std::int64_t>(kOptions.water_marks.high);
  const auto input = static_cast<std::int64_t>(kOptions.input_high);
  CHECK(taken < kConnections * (high + kMessage + input + kReceive));
  CHECK(taken > pending + kConnections * input * 9 / 10);
  // The kernel has little of it where its buffers are small.
  if (buffer_bytes != 0) CHECK(pending > kConnections * (high + kMessage) * 9 / 10);
  for (Connected& each : connections) each.connection.force_close();
  group.cancel();
}

}  // namespace

TEST_CASE("peers that only send, and messages above the mark, cost what the formula says") {
  if (kSanitized) {
    MESSAGE("skipped: under sanitizers other allocations are counted");
    return;
  }
  for (const int buffer_bytes : {0, 4096}) {
    CAPTURE(buffer_bytes);
    on_each_kernel_engine("the model allocates",
                          [buffer_bytes]() -> Task<> { return fill(buffer_bytes); });
  }
}
