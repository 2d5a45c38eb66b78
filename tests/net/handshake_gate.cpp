#include <weir/net/handshake.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../support/simulation.h"

using namespace weir;
using namespace weir::test;

namespace {

using weir::detail::HandshakeGate;

/// A step of somebody's handshake, which takes so long.
Task<> step(HandshakeGate& gate, Duration taken, std::vector<std::string>& order) {
  auto permit = co_await gate.enter();
  order.emplace_back("step");
  gate.leave(std::move(permit), EventLoop::current().machine().now() - taken);
}

/// Somebody who is served, and becomes ready between any two turns, until all steps are made.
Task<> served(std::vector<std::string>& order, std::size_t steps) {
  Event ready;
  while (static_cast<std::size_t>(std::count(order.begin(), order.end(), "step")) < steps) {
    ready.reset();
    EventLoop::current().post([&ready] { ready.set(); });
    co_await ready.wait();
    order.emplace_back("served");
  }
}

Task<> step_in_turn(HandshakeGate& gate, std::vector<std::uint64_t>& turns) {
  auto permit = co_await gate.enter();
  turns.push_back(EventLoop::current().metrics().turns);
  gate.leave(std::move(permit), EventLoop::current().machine().now());
}

}  // namespace

TEST_CASE("between two steps of handshakes that take long, whoever is ready is served") {
  on_simulation([]() -> Task<> {
    HandshakeGate gate(EventLoop::current());
    std::vector<std::string> order;
    TaskGroup group;
    for (int i = 0; i < 3; ++i) group.spawn(step(gate, 1ms, order));
    group.spawn(served(order, 3));
    co_await group.join();
    std::string last;
    for (const std::string& one : order) {
      CHECK_FALSE((one == "step" && last == "step"));
      last = one;
    }
  });
}

TEST_CASE("steps of handshakes that take no time are made in one turn, up to sixteen") {
  on_simulation([]() -> Task<> {
    HandshakeGate gate(EventLoop::current());
    std::vector<std::uint64_t> turns;
    TaskGroup group;
    for (int i = 0; i < 20; ++i) group.spawn(step_in_turn(gate, turns));
    co_await group.join();
    REQUIRE(turns.size() == 20);
    CHECK(turns[15] == turns[0]);
    CHECK(turns[16] > turns[0]);
    CHECK(turns[19] == turns[16]);
  });
}

TEST_CASE("steps of handshakes that take long are made elsewhere while somebody is served") {
  on_simulation([]() -> Task<> {
    std::uint64_t served = 0;
    HandshakeGate gate(EventLoop::current(), &served);
    const auto sends_away = [&] { return gate.sends_away(EventLoop::current().now()); };
    gate.note(1ms);
    CHECK_FALSE(sends_away());  // nobody is served
    ++served;
    CHECK(sends_away());
    gate.note(10us);  // one without a private key comes after each that needs it
    CHECK(sends_away());
    co_await sleep(2s);
    CHECK_FALSE(sends_away());
    ++served;
    CHECK(sends_away());
    for (int i = 0; i < 20; ++i) gate.note(100us);
    CHECK_FALSE(sends_away());
    gate.note_errand(1ms, 2ms);
    CHECK(sends_away());
    gate.note_errand(1ms, 9ms);  // others have the processors
    CHECK_FALSE(sends_away());
    co_await sleep(2s);
    ++served;
    CHECK(sends_away());
  });
}
