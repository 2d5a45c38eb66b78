// A register that three nodes keep together, and a search for a seed under which it lies.
//
// Writing asks a majority to store a number, reading asks a majority for theirs, takes the largest
// and has a majority store it before it answers (Attiya, Bar-Noy, Dolev 1995). With --bug a reader
// answers without that: two readers may then see new and old in the wrong order. Tests rarely hit
// the moment; a few hundred simulated worlds do.

#include <weir/sim.h>
#include <weir/weir.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

using namespace weir;
using namespace std::chrono_literals;

namespace {

constexpr int kNodes = 3;
constexpr int kMajority = 2;

std::uint64_t number_in(std::string_view text) {
  std::uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

// ---- a node: "?\n" asks for its number, "42\n" has it store 42 if that is larger ----------------

Task<> serve_node() {
  std::uint64_t stored = 0;
  const auto answer = [&stored](TcpConnection connection) -> Task<> {
    const auto talk = [](TcpConnection with, std::uint64_t& number) -> Task<> {
      while (Chunk line = co_await with.read_until("\n", 32)) {
        number = std::max(number, number_in(line.view()));
        co_await with.send(std::to_string(number) + "\n");
      }
    };
    return talk(std::move(connection), stored);
  };
  ServerOptions options;
  options.address = SocketAddress::parse("0.0.0.0:700");
  TcpServer server(EventLoop::current(), options);
  server.start(answer);
  co_await Event().wait();
}

// ---- a client -----------------------------------------------------------------------------------

struct Votes {
  std::vector<std::uint64_t> numbers;
  Event enough;
};

Task<> ask(std::string node, std::string question, Votes& votes) {
  for (;;) {
    try {
      TcpConnection connection = co_await timeout(1s, connect(node));
      co_await connection.send(question);
      const Chunk answer = co_await timeout(1s, connection.read_until("\n", 32));
      if (answer) {
        votes.numbers.push_back(number_in(answer.view()));
        if (votes.numbers.size() == kMajority) votes.enough.set();
        co_return;
      }
    } catch (const std::system_error&) {
    }
    co_await sleep(10ms);
  }
}

/// The largest number of a majority. Whoever has not answered by then is dropped.
Task<std::uint64_t> ask_majority(std::string question) {
  Votes votes;
  TaskGroup group;
  for (int node = 0; node < kNodes; ++node) {
    group.spawn(ask("node" + std::to_string(node) + ":700", question, votes));
  }
  co_await votes.enough.wait();
  co_return *std::max_element(votes.numbers.begin(), votes.numbers.end());
}

Task<> write_all(std::uint64_t count, std::uint64_t& newest, bool& done) {
  for (std::uint64_t number = 1; number <= count; ++number) {
    (void)co_await ask_majority(std::to_string(number) + "\n");
    newest = std::max(newest, number);
  }
  done = true;
}

/// What a read gives is at least what any read or write before it gave.
Task<> read_on(sim::World& world, std::uint64_t& newest, bool bug) {
  for (;;) {
    const std::uint64_t known = newest;
    const std::uint64_t number = co_await ask_majority("?\n");
    if (!bug) (void)co_await ask_majority(std::to_string(number) + "\n");
    world.check(number >= known, "a reader got " + std::to_string(number) + " after another had " +
                                     std::to_string(known));
    newest = std::max(newest, number);
    co_await sleep(1ms);
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool bug = false;
  sim::ExploreOptions options;
  options.name = "register";
  options.count = 1000;
  options.most_failures = 1;
  options.shrink_for = 30s;
  options.world.faults = sim::Faults::mild();
  options.world.faults.jitter = 20ms;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--bug") {
      bug = true;
    } else if (word == "--seeds" && i + 1 < argc) {
      options.count = number_in(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: sim_register [--seeds N] [--bug]\n");
      return 2;
    }
  }
  const auto scenario = [bug](sim::World& world) {
    for (int node = 0; node < kNodes; ++node) {
      world.add_host("10.0.0." + std::to_string(node + 1), "node" + std::to_string(node))
          .spawn(serve_node(), "node");
    }
    auto& newest = world.make<std::uint64_t>(0);
    auto& done = world.make<bool>(false);
    world.add_host("10.0.1.1", "writer").spawn(write_all(5, newest, done), "writer");
    world.add_host("10.0.1.2", "reader").spawn(read_on(world, newest, bug), "reader");
    world.add_host("10.0.1.3", "other").spawn(read_on(world, newest, bug), "other reader");
    world.check(world.run_until([&done] { return done; }, 10min), "the writes come to an end");
  };
  const sim::Exploration found = sim::explore(options, scenario);
  std::printf("%llu seeds, %zu failed\n%s", static_cast<unsigned long long>(found.runs),
              found.failures.size(), found.text().c_str());
  return found.failures.empty() ? 0 : 1;
}
