#include <weir/io/engines.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../support/net.h"
#include "door.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Calls the body with a door for each way of setting up a ring: the newest kernel's without the
/// array of indices first, which libraries choose by themselves where they may.
void on_each_ring(const std::function<void(const Behind&)>& body) {
  if (const EngineOrReason made = make_uring_engine({}); made.engine == nullptr) {
    MESSAGE("skipped: " << made.reason);
    return;
  }
  for (std::size_t setup = 0; setup < kUringSetups; ++setup) {
    INFO("setup: " << setup);
    body(Behind([setup](const LoopOptions& options) {
      return std::move(make_uring_engine(options, setup).engine);
    }));
  }
}

}  // namespace

TEST_CASE("a ring does its work however it was set up") {
  on_each_ring([](const Behind& behind) {
    Door door(behind, {.ring_entries = 8, .buffer_size = 64, .buffer_count = 16});
    Ends pair = ends();
    const std::string message = pattern(20'000);
    const auto receive = Request::receive(pair.ours.get());
    door.submit(*receive);
    pair.peer.send(message);
    const auto whole = Request::send(pair.ours.get(), {message});
    door.submit(*whole);
    door.until_done(*whole);
    const auto pieces = Request::send(pair.ours.get(), {"in ", "pieces"});
    door.submit(*pieces);
    door.until([&] { return pieces->done() && receive->bytes.size() == message.size(); });
    CHECK(receive->bytes == message);
    CHECK(pair.peer.receive_exactly(message.size() + 9) == message + "in pieces");
    // Round the queues several times, and with cancels among them.
    std::vector<std::unique_ptr<Request>> polls;
    for (int i = 0; i < 500; ++i) {
      polls.push_back(Request::poll(pair.ours.get(), POLLPRI));
      door.submit(*polls.back());
      if (i % 10 == 0) door.look();
      if (i % 3 == 0) door.cancel(*polls.back());
    }
    for (const auto& poll : polls) door.cancel(*poll);
    door.end(*receive);
    door.until([&] { return door->idle(); });
    CHECK(std::all_of(polls.begin(), polls.end(),
                      [](const auto& poll) { return poll->results == std::vector{-ECANCELED}; }));
  });
}

TEST_CASE("an engine that another thread abandons lets go of its sockets while its own lives on") {
  on_each_ring([](const Behind& behind) {
    Ends pair = ends();
    const auto receive = Request::receive(pair.ours.get());
    std::unique_ptr<Door> door;
    std::atomic<bool> started{false};
    std::atomic<bool> over{false};
    std::thread own([&] {
      door = std::make_unique<Door>(behind);
      door->submit(*receive);
      door->look();
      (*door)->detach();
      started = true;
      started.notify_one();
      over.wait(false);
    });
    started.wait(false);
    (*door)->abandon();
    (*door)->wait(TimePoint::min());
    CHECK(receive->results == std::vector{-ECANCELED});
    pair.ours.close();
    CHECK(pair.peer.wait_for_end() == 0);
    door.reset();
    over = true;
    over.notify_one();
    own.join();
  });
}
