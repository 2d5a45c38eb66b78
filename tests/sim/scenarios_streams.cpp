// More of what a server meets, in many worlds: bytes that are cut anywhere, half-closes through a
// relay, senders on several loops, and limits that must hold after every event.

#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../support/sim.h"

using namespace weir;
using namespace weir::test;

namespace {

namespace streams {

bool may_break(const sim::World& world) { return world.seed() >= kHarshSeeds; }

/// Runs it again until it is whole: in a world that breaks connections one may fail.
Task<> try_on(sim::World& world, std::function<Task<bool>()> make, int& done) {
  for (;;) {
    bool whole = false;
    try {
      whole = co_await make();
    } catch (const std::system_error&) {
    }
    if (whole) break;
    world.check(may_break(world), "no connection ends early");
    co_await sleep(50ms);
  }
  ++done;
}

// ---- delimiters ---------------------------------------------------------------------------------

constexpr std::array<std::string_view, 5> kDelimiters = {"\r\n", "\r\n\r\n", "aab", "abab",
                                                         "--=--"};

/// Text that always begins the delimiter anew, and never ends it.
std::string near_misses(std::string_view delimiter, Random& random) {
  std::string text;
  for (std::uint64_t i = random.below(60); i > 0; --i) {
    text += delimiter.substr(0, random.below(delimiter.size()));
    text += '.';
  }
  return text;
}

/// Sends the text in pieces that end anywhere.
Task<> send_in_pieces(TcpConnection& to, std::string text, std::uint64_t seed) {
  Random random(seed);
  for (std::size_t offset = 0; offset < text.size();) {
    const std::size_t size = 1 + random.below(12);
    const std::string piece = text.substr(offset, size);
    offset += piece.size();
    co_await to.send(std::string_view(piece));
    if (random.below(4) == 0) co_await sleep(std::chrono::microseconds(random.below(300)));
  }
}

Task<bool> read_parts(TcpConnection& from, std::string_view delimiter,
                      const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    const Chunk got = co_await from.read_until(delimiter, 1000);
    if (!got) co_return false;
    if (got.view() != part) throw std::logic_error("a part was cut elsewhere");
  }
  co_return true;
}

Task<bool> exchange_parts(std::uint64_t seed) {
  Random random(seed);
  const std::uint64_t which = random.below(kDelimiters.size());
  const std::string_view delimiter = kDelimiters[which];
  std::vector<std::string> parts;
  std::string text = std::to_string(which) + "\n";
  for (int i = 0; i < 12; ++i) {
    parts.push_back(near_misses(delimiter, random).append(delimiter));
    text += parts.back();
  }
  TcpConnection connection = co_await connect("server:7", client_options());
  const auto [sent, whole] =
      co_await when_all(send_in_pieces(connection, std::move(text), random.next()),
                        read_parts(connection, delimiter, parts));
  (void)sent;
  co_return whole;
}

/// Gives each part back, cut by the delimiter that the first line names.
Task<> serve_parts() {
  const auto give_back = [](TcpConnection connection) -> Task<> {
    const Chunk line = co_await connection.read_until("\n", 3);
    if (!line) co_return;
    const auto which = static_cast<std::size_t>(line.view().front() - '0');
    while (Chunk part = co_await connection.read_until(kDelimiters.at(which), 1000)) {
      co_await connection.send(std::move(part));
    }
  };
  TcpServer server(EventLoop::current(), options_at("0.0.0.0:7"));
  co_await start_server(server, give_back);
  co_await Event().wait();
}

void find_delimiters(sim::World& world) {
  world.add_host("10.0.0.1", "server").spawn(serve_parts(), "server");
  int& done = world.make<int>(0);
  for (int i = 0; i < 2; ++i) {
    auto& client = world.add_host("10.0.1." + std::to_string(i + 1));
    const auto exchange = [seed = world.random()] { return exchange_parts(seed); };
    client.spawn(try_on(world, exchange, done), "client");
  }
  world.check(world.run_until([&] { return done == 2; }, 2h), "the clients come to an end");
}

// ---- relays -------------------------------------------------------------------------------------

Task<> pump(TcpConnection& from, TcpConnection& to) {
  while (Chunk chunk = co_await from.read()) co_await to.send(std::move(chunk));
  co_await to.shutdown();
}

Task<> serve_relay() {
  const auto relay = [](TcpConnection client) -> Task<> {
    TcpConnection server = co_await connect("server:7", client_options());
    co_await when_all(pump(client, server), pump(server, client));
  };
  TcpServer server(EventLoop::current(), options_at("0.0.0.0:8"));
  co_await start_server(server, relay);
  co_await Event().wait();
}

/// Answers when the question is over: with the length of it and all of it.
Task<> serve_whole() {
  const auto answer = [](TcpConnection connection) -> Task<> {
    std::string all;
    while (Chunk chunk = co_await connection.read()) all += chunk.view();
    co_await connection.send(std::to_string(all.size()) + "\n");
    co_await connection.send(std::move(all));
  };
  TcpServer server(EventLoop::current(), options_at("0.0.0.0:7"));
  co_await start_server(server, answer);
  co_await Event().wait();
}

Task<bool> ask_whole(std::uint64_t stream, std::size_t size) {
  TcpConnection connection = co_await connect("relay:8", client_options());
  co_await connection.send(stream_bytes(stream, 0, size));
  co_await connection.shutdown();
  const Chunk line = co_await connection.read_until("\n", 20);
  if (!line || line.view() != std::to_string(size) + "\n") co_return false;
  CheckedStream answer(stream);
  while (Chunk chunk = co_await connection.read()) answer.take(chunk.view());
  co_return answer.offset() == size;
}

// ---- senders ------------------------------------------------------------------------------------

constexpr int kWorkers = 3;
constexpr std::uint64_t kLines = 40;

Task<> send_lines(Sender to, int worker, std::uint64_t seed) {
  Random random(seed);
  try {
    for (std::uint64_t i = 0; i < kLines; ++i) {
      std::string line = std::to_string(worker) + " " + std::to_string(i) + "\n";
      if (random.below(2) == 0) {
        co_await to.send(std::move(line));
      } else {
        while (!to.try_send(line)) co_await sleep(1ms);
      }
      if (random.below(3) == 0) co_await sleep(std::chrono::microseconds(random.below(500)));
    }
  } catch (const std::system_error&) {  // the client has gone
  }
}

using Workers = std::array<EventLoopThread, kWorkers>;

Task<> hand_out(TcpConnection to, Workers& workers, std::uint64_t seed) {
  to.set_water_marks({.high = 100, .low = 20});
  int number = 0;
  for (EventLoopThread& worker : workers) {
    const std::uint64_t own = seed + static_cast<std::uint64_t>(number);
    worker.loop().spawn(send_lines(to.sender(), number++, own));
  }
  while (Chunk chunk = co_await to.read()) continue;  // until the client has enough
}

Task<> serve_from_several_loops(std::uint64_t seed) {
  Workers workers;
  Random random(seed);
  const auto answer = [&](TcpConnection connection) {
    return hand_out(std::move(connection), workers, random.next());
  };
  TcpServer server(EventLoop::current(), options_at("0.0.0.0:7"));
  co_await start_server(server, answer);
  co_await Event().wait();
}

Task<bool> hear_all() {
  TcpConnection connection = co_await connect("server:7", client_options());
  std::array<std::uint64_t, kWorkers> next{};
  for (std::uint64_t i = 0; i < kLines * kWorkers; ++i) {
    const Chunk line = co_await connection.read_until("\n", 20);
    if (!line) co_return false;
    const std::string_view text = line.view();
    std::uint64_t number = 0;
    std::from_chars(text.data() + 2, text.data() + text.size(), number);
    std::uint64_t& expected = next.at(static_cast<std::size_t>(text[0] - '0'));
    if (number != expected) throw std::logic_error("a sender's messages are not in order");
    ++expected;
  }
  co_return true;
}

// ---- limits -------------------------------------------------------------------------------------

constexpr std::size_t kMost = 2;
constexpr std::size_t kMostOfPeer = 1;

struct Present {
  std::size_t all = 0;
  std::map<std::string, std::size_t> of_peer;
  bool calm = false;  // clients behave from now on
  std::array<bool, 3> answered{};
};

class Visit {
 public:
  Visit(Present& present, std::string peer) : present_(present), peer_(std::move(peer)) {
    ++present_.all;
    ++present_.of_peer[peer_];
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  ~Visit() {
    --present_.all;
    --present_.of_peer[peer_];
  }

 private:
  Present& present_;
  std::string peer_;
};

Task<> serve_within_limits(Present& present) {
  ServerOptions options = options_at("0.0.0.0:7");
  options.max_connections = kMost;
  options.max_connections_per_peer = kMostOfPeer;
  options.idle_timeout = 2s;
  options.write_timeout = 2s;
  options.connection.water_marks = {.high = 2000, .low = 1000};
  const auto serve = [&present](TcpConnection connection) -> Task<> {
    const auto echo = [](TcpConnection with, Present& of) -> Task<> {
      std::string peer = with.peer_address().to_string();
      peer.resize(peer.rfind(':'));
      const Visit visit(of, std::move(peer));
      while (Chunk chunk = co_await with.read()) co_await with.send(std::move(chunk));
    };
    return echo(std::move(connection), present);
  };
  TcpServer server(EventLoop::current(), options);
  co_await start_server(server, serve);
  co_await Event().wait();
}

/// Floods, falls silent, leaves in the middle; or, once all are calm, asks one thing.
Task<> visit_somehow(Present& present, std::size_t index, std::uint64_t seed) {
  Random random(seed);
  for (;;) {
    const bool calm = present.calm;
    const auto stay = [](bool is_calm, std::uint64_t way) -> Task<bool> {
      TcpConnection connection = co_await connect("server:7", client_options());
      if (is_calm || way == 0) {
        co_await connection.send("one thing");
        const Chunk answer = co_await connection.read_exactly(9);
        co_return answer.view() == "one thing";
      }
      if (way == 1) {
        const std::string flood(5000, 'x');
        for (;;) co_await connection.send(std::string_view(flood));  // and reads nothing
      }
      co_await sleep(way == 2 ? 10min : 1ms);
      co_return false;
    };
    try {
      const bool answered = co_await timeout(10s, stay(calm, random.below(4)));
      if (calm && answered) {
        present.answered.at(index) = true;
        co_return;
      }
    } catch (const std::system_error&) {
    }
    co_await sleep(std::chrono::milliseconds(random.below(300)));
  }
}

}  // namespace streams

}  // namespace

TEST_CASE("scenario: delimiters of several bytes are found wherever the bytes are cut") {
  explore_all("delimiters", streams::find_delimiters);
}

TEST_CASE("scenarios are the same runs each time, in the clear and with TLS") {
  const auto hash_of = [](const sim::Faults& faults) {
    return sim::explore({.first = kHarshSeeds, .count = 20, .world = {.faults = faults}},
                        half_with_tls(streams::find_delimiters))
        .hash;
  };
  CHECK(hash_of(sim::Faults::none()) == hash_of(sim::Faults::none()));
  CHECK(hash_of(sim::Faults::harsh()) == hash_of(sim::Faults::harsh()));
}

TEST_CASE("scenario: a relay passes on both ends of a stream, each in its time") {
  explore_all("relay", [](sim::World& world) {
    world.add_host("10.0.0.1", "server").spawn(streams::serve_whole(), "server");
    world.add_host("10.0.0.2", "relay").spawn(streams::serve_relay(), "relay");
    int& done = world.make<int>(0);
    for (std::uint64_t i = 0; i < 2; ++i) {
      auto& client = world.add_host("10.0.1." + std::to_string(i + 1));
      const std::size_t size = world.random() % 100'000;
      const auto ask = [i, size] { return streams::ask_whole(i, size); };
      client.spawn(streams::try_on(world, ask, done), "client");
    }
    world.check(world.run_until([&] { return done == 2; }, 2h), "the clients come to an end");
  });
}

TEST_CASE("scenario: messages of senders on several loops come whole and in each one's order") {
  explore_all("senders-of-loops", [](sim::World& world) {
    world.add_host("10.0.0.1", "server")
        .spawn(streams::serve_from_several_loops(world.random()), "server");
    int& done = world.make<int>(0);
    for (int i = 0; i < 2; ++i) {
      auto& client = world.add_host("10.0.1." + std::to_string(i + 1));
      client.spawn(streams::try_on(world, streams::hear_all, done), "client");
    }
    world.check(world.run_until([&] { return done == 2; }, 2h), "the clients come to an end");
  });
}

TEST_CASE("scenario: a server's limits hold after every event, and it serves again when all calm") {
  explore_all("limits", [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    server.set_descriptor_limit(20);
    auto& present = world.make<streams::Present>();
    world.always([&] { return present.all <= streams::kMost; }, "the limit of connections");
    const auto few_of_each = [&] {
      return std::all_of(present.of_peer.begin(), present.of_peer.end(),
                         [](const auto& peer) { return peer.second <= streams::kMostOfPeer; });
    };
    world.always(few_of_each, "the limit of connections of a peer");
    server.spawn(streams::serve_within_limits(present), "server");
    std::vector<sim::Host*> clients;
    for (std::size_t i = 0; i < 3; ++i) {
      clients.push_back(&world.add_host("10.0.1." + std::to_string(i + 1)));
      for (int task = 0; task < 2; ++task) {
        clients.back()->spawn(streams::visit_somehow(present, i, world.random()), "client");
      }
    }
    world.run_for(4s);
    world.partition(server, *clients.front());
    world.run_for(6s);
    present.calm = true;
    const auto all_answered = [&] {
      return std::all_of(present.answered.begin(), present.answered.end(),
                         [](bool answered) { return answered; });
    };
    world.heal_and_expect(all_answered, 30min);
  });
}
