// What came last on a loop.
#include <weir/coro/flight_recorder.h>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

using weir::detail::FlightRecorder;

namespace {

using Kind = FlightRecorder::Kind;

std::vector<FlightRecorder::Event> last(const FlightRecorder& recorder, std::size_t most) {
  std::vector<FlightRecorder::Event> events(most);
  events.resize(recorder.take_last(events));
  return events;
}

}  // namespace

TEST_CASE("a flight recorder keeps the last 4096 events, the oldest first") {
  std::atomic<std::uint32_t> clock_ms{0xffffffff};
  FlightRecorder recorder(clock_ms);
  CHECK(last(recorder, 10).empty());
  recorder.note(Kind::opened, 0xffffffffffffffff, 0x123456);
  const auto first = last(recorder, 10);
  REQUIRE(first.size() == 1);
  CHECK(first[0].kind == Kind::opened);
  CHECK(first[0].clock_ms == 0xffffffff);
  CHECK(first[0].what == 0xffffffffffffffff);
  CHECK(first[0].more == 0x123456);
  for (std::uint64_t i = 0; i < 5000; ++i) recorder.note(Kind::resumed, i);
  const auto all = last(recorder, 10'000);
  // Of the oldest a reader cannot know whether it is being overwritten.
  REQUIRE(all.size() == FlightRecorder::kEvents - 1);
  for (std::size_t i = 0; i < all.size(); ++i) CHECK(all[i].what == 5000 - all.size() + i);
  const auto few = last(recorder, 3);
  REQUIRE(few.size() == 3);
  CHECK(few[0].what == 4997);
  CHECK(few[2].what == 4999);
  CHECK(last(recorder, 0).empty());
}

TEST_CASE(
    "whoever reads a flight recorder while events come gets whole ones, none left out between") {
  std::atomic<std::uint32_t> clock_ms{0};
  FlightRecorder recorder(clock_ms);
  std::atomic<bool> ends{false};
  std::thread writes([&] {
    for (std::uint32_t i = 0; !ends; ++i) {
      clock_ms.store(i, std::memory_order_relaxed);
      recorder.note(Kind::resumed, i, i);
    }
  });
  std::vector<FlightRecorder::Event> events(FlightRecorder::kEvents);
  bool whole = true;
  for (int look = 0; look < 200; ++look) {
    const std::size_t count = recorder.take_last(events);
    for (std::size_t i = 0; i < count; ++i) {
      const auto& event = events[i];
      whole = whole && event.kind == Kind::resumed && event.clock_ms == event.what &&
              event.more == (event.what & 0xffffff) &&
              (i == 0 || event.what == events[i - 1].what + 1);
    }
  }
  ends = true;
  writes.join();
  CHECK(whole);
}
