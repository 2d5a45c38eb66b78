#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "../support/sim.h"

using namespace weir;
using namespace weir::test;

namespace {

namespace living {

std::string failure_of(const std::function<void()>& function) {
  try {
    function();
  } catch (const sim::Failure& failure) {
    return failure.what();
  }
  return {};
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

/// Asks until it is answered.
Task<> ask_on(bool& answered) {
  while (!answered) {
    const auto once = []() -> Task<bool> {
      TcpConnection connection = co_await connect("server:7");
      co_await connection.send("x");
      const Chunk back = co_await connection.read_exactly(1);
      co_return back.view() == "x";
    };
    try {
      answered = co_await timeout(1s, once());
    } catch (const std::system_error&) {
    }
    co_await sleep(100ms);
  }
}

}  // namespace living

}  // namespace

TEST_CASE("heal_and_expect ends partitions, pauses and all faults, ordered ones too") {
  sim::WorldOptions options{.seed = 1, .faults = sim::Faults::harsh()};
  options.faults.reset = 1;
  sim::World world(options);
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  server.spawn(serve_echo());
  bool answered = false;
  client.spawn(living::ask_on(answered));
  world.partition(server, client);
  server.pause();
  world.inject(sim::Fault::connection_refused, server, 1'000'000);
  world.at(10min, sim::Fault::connection_refused, server, 1'000'000);
  world.run_for(20min);
  CHECK(world.hits(sim::Fault::connection_refused) == 0);  // nothing gets through
  CHECK_FALSE(answered);
  world.heal_and_expect([&] { return answered; }, 5min);
  CHECK(answered);
  CHECK(world.hits(sim::Fault::connection_refused) == 0);
}

TEST_CASE("heal_and_expect catches a lost wake-up, and tells who waits") {
  sim::World world;
  auto& host = world.add_host("10.0.0.1", "here");
  auto& event = world.make<Event>();
  constexpr int line = __LINE__ + 1;
  const auto wait = [](Event& of) -> Task<> { co_await of.wait(); };
  host.spawn(wait(event), "forgotten waiter");
  world.run_for(1s);
  const std::string text = living::failure_of(
      [&] { world.heal_and_expect([&] { return host.unfinished() == 0; }, 1h); });
  INFO(text);
  CHECK(living::has(text, "not come true, and nothing is left to happen"));
  CHECK(living::has(text, "unfinished: forgotten waiter"));
  CHECK(living::has(text, "\n    tasks:\n      "));
  CHECK(living::has(
      text, " at " + std::string(__FILE__) + ':' + std::to_string(line) + ": Event::wait, for "));
}

TEST_CASE("heal_and_expect catches a livelock, and tells what goes round") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2", "client");
  // It refuses everybody who comes, and they come again.
  const auto refuse = []() -> Task<> {
    Acceptor acceptor(SocketAddress::parse("0.0.0.0:7"));
    for (;;) (void)co_await acceptor.accept();
  };
  server.spawn(refuse());
  bool answered = false;
  client.spawn(living::ask_on(answered), "asks on");
  const std::string text =
      living::failure_of([&] { world.heal_and_expect([&] { return answered; }, 1min); });
  INFO(text);
  CHECK(living::has(text, "not come true within 60.000 s, in which happened, most of all,"));
  CHECK(living::has(text, " x  server: accept gave"));
  CHECK(living::has(text, "unfinished: asks on"));
}

TEST_CASE("an invariant of World::always is looked at after every event") {
  sim::World world;
  auto& host = world.add_host("10.0.0.1");
  int& value = world.make<int>(0);
  const auto work = [](int& number) -> Task<> {
    for (int i = 0; i < 5; ++i) {
      co_await sleep(1s);
      number = 7;
      co_await sleep(1ms);
      number = 0;
    }
  };
  SUBCASE("and fails where it does not hold") {
    world.always([&] { return value == 0; }, "the value is 0");
    host.spawn(work(value));
    const std::string text = living::failure_of([&] { world.run_for(1min); });
    CHECK(living::has(text, "the value is 0 does not hold"));
    CHECK(living::has(text, "virtual time 1.0000"));
  }
  SUBCASE("and fails where it throws") {
    world.always([&] {
      if (value != 0) throw std::runtime_error("seven!");
    });
    host.spawn(work(value));
    CHECK(living::has(living::failure_of([&] { world.run_for(1min); }), "seven!"));
  }
  SUBCASE("and by a check of the world") {
    world.always([&] { world.check(value == 0, "it stays 0"); });
    host.spawn(work(value));
    CHECK(living::has(living::failure_of([&] { world.run_for(1min); }), "it stays 0"));
  }
  SUBCASE("and changes nothing where it holds") {
    int looks = 0;
    world.always([&] { ++looks; });
    host.spawn(work(value));
    world.run_for(1min);
    CHECK(looks > 10);
  }
}
