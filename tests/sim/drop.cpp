#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <cstdlib>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../support/sim.h"

using namespace weir;
using namespace weir::test;

namespace {

namespace dropping {

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

/// Sums that two accounts have; a transfer takes from one, asks a server, gives to the other.
struct Accounts {
  int left = 100;
  int right = 0;
  bool finished = false;
};

/// Takes back what was not given.
class Taken {
 public:
  explicit Taken(Accounts& accounts) : accounts_(accounts) { accounts_.left -= 10; }
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;
  ~Taken() {
    if (!given_) accounts_.left += 10;
  }
  void give() {
    given_ = true;
    accounts_.right += 10;
  }

 private:
  Accounts& accounts_;
  bool given_ = false;
};

Task<> ask() {
  TcpConnection connection = co_await connect("server:7");
  co_await connection.send("may I?");
  (void)co_await connection.read_exactly(6);
}

Task<> transfer_safely(Accounts& accounts) {
  Taken taken(accounts);
  co_await ask();
  taken.give();
  co_await sleep(1ms);
  accounts.finished = true;
}

Task<> transfer_carelessly(Accounts& accounts) {
  accounts.left -= 10;
  co_await ask();
  accounts.right += 10;
  co_await sleep(1ms);
  accounts.finished = true;
}

Task<> rest() { co_await yield(); }

template <class Transfer>
auto scenario_of(Transfer transfer) {
  return [transfer](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2", "client");
    server.spawn(serve_echo());
    auto& accounts = world.make<Accounts>();
    client.spawn_dropped(transfer(accounts), "transfer");
    client.spawn(rest(), "another");
    world.run_for(10s);
    world.check(accounts.left + accounts.right == 100, "money is neither lost nor made");
    world.check(accounts.finished || world.dropped(), "the transfer is finished");
  };
}

}  // namespace dropping

}  // namespace

TEST_CASE("drop_everywhere drops a task at each suspension, and passes one that is safe") {
  const sim::Exploration found =
      sim::drop_everywhere({.seed = 1}, dropping::scenario_of(dropping::transfer_safely));
  CHECK_MESSAGE(found.failures.empty(), found.text());
  // Resolving, connecting, reading, sleeping, each twice, and once to the end.
  CHECK(found.runs >= 7);
}

TEST_CASE("drop_everywhere says at which suspension a drop does harm, and repeats it") {
  const auto scenario = dropping::scenario_of(dropping::transfer_carelessly);
  const sim::Exploration found = sim::drop_everywhere({.seed = 1}, scenario);
  REQUIRE(found.failures.size() == 3);  // and no more after that
  const std::string& text = found.failures.back().text;
  INFO(text);
  CHECK(dropping::has(text, "money is neither lost nor made"));
  CHECK(dropping::has(text, "task \"transfer\" was dropped at its suspension "));
  const std::string at = " at " + std::string(__FILE__) + ':';
  CHECK(dropping::has(text, ", where it waited:\n    "));
  CHECK(dropping::has(text, "dropping::transfer_carelessly" + at));
  CHECK(dropping::has(text, "dropping::ask" + at));
  REQUIRE(dropping::has(text, "WEIR_SIM_DROP=2 WEIR_SIM_SEED=1 "));
  ::setenv("WEIR_SIM_DROP", "2", 1);  // NOLINT(concurrency-mt-unsafe)
  const sim::Exploration again = sim::drop_everywhere({.seed = 1}, scenario);
  ::unsetenv("WEIR_SIM_DROP");  // NOLINT(concurrency-mt-unsafe)
  CHECK(again.runs == 1);
  CHECK(again.text() == text + "\n");
}

TEST_CASE("drop_everywhere finds what a task forgets that had come when it was dropped") {
  // It takes from a channel, then looks whether it is wanted: what it has taken is lost.
  const auto scenario = [](sim::World& world) {
    auto& host = world.add_host("10.0.0.1");
    auto& handled = world.make<std::vector<int>>();
    auto& queue = world.make<std::vector<int>>(std::vector<int>{1, 2, 3});
    auto& turn = world.make<Semaphore>(1);
    const auto take = [](Semaphore& lock, std::vector<int>& from, std::vector<int>& to) -> Task<> {
      for (;;) {
        auto permit = co_await lock.acquire();
        if (from.empty()) co_return;
        const int item = from.back();
        from.pop_back();
        co_await sleep(1ms);
        to.push_back(item);
      }
    };
    host.spawn_dropped(take(turn, queue, handled));
    world.run_for(1s);
    world.check(queue.size() + handled.size() == 3, "each item is somewhere");
  };
  const sim::Exploration found = sim::drop_everywhere({}, scenario);
  CHECK(found.failures.size() == 3);
}

TEST_CASE("drop_everywhere drops what the task owns with it, and the world goes on") {
  std::set<std::size_t> sizes;
  const auto scenario = [&sizes](sim::World& world) {
    auto& host = world.add_host("10.0.0.1");
    auto& done = world.make<std::size_t>(0U);
    const auto child = [](std::size_t& count) -> Task<> {
      co_await sleep(1ms);
      ++count;
    };
    const auto parent = [child](std::size_t& count) -> Task<> {
      const auto run = [](auto make, std::size_t& of) -> Task<> {
        TaskGroup group;
        for (int i = 0; i < 3; ++i) {
          group.spawn(make(of));
          co_await sleep(10ms);
        }
        co_await group.join();
      };
      return run(child, count);
    };
    host.spawn_dropped(parent(done));
    world.run_for(1s);
    CHECK(host.unfinished() == 0);
    sizes.insert(done);
  };
  const sim::Exploration found = sim::drop_everywhere({}, scenario);
  CHECK_MESSAGE(found.failures.empty(), found.text());
  CHECK(sizes == std::set<std::size_t>{0, 1, 2, 3});
}

TEST_CASE("drop_everywhere reports a scenario that marks no task") {
  const sim::Exploration found = sim::drop_everywhere({}, [](sim::World& world) {
    world.add_host("10.0.0.1").spawn(serve_echo());
    world.run_for(1s);
  });
  REQUIRE(found.failures.size() == 1);
  CHECK(dropping::has(found.text(), "marks no task"));
}

TEST_CASE("in a world of its own a task of spawn_dropped is one like any") {
  sim::World world;
  auto& host = world.add_host("10.0.0.1");
  bool& done = world.make<bool>(false);
  const auto work = [](bool& ended) -> Task<> {
    co_await sleep(1s);
    ended = true;
  };
  host.spawn_dropped(work(done));
  world.run_for(2s);
  CHECK(done);
  CHECK_FALSE(world.dropped());
}
