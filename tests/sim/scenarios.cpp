// What a server meets, in many worlds: WEIR_SIM_SEEDS says in how many, WEIR_SIM_SEED repeats one.

#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../support/sim.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Whether the network of this world may break connections.
bool is_harsh(const sim::World& world) { return world.seed() >= kHarshSeeds; }

/// Whether a broken connection is what this world does, or a bug. Rethrows a bug.
void forgive(const sim::World& world) {
  if (!is_harsh(world)) throw;
}

// ---- echo ---------------------------------------------------------------------------------------

/// Receives what it sent, whichever way it is read. True if the connection held until then.
Task<bool> check_echo(std::uint64_t stream, std::uint64_t total, Random& random) {
  ConnectOptions options = client_options();
  options.timeout = 20s;
  TcpConnection connection = co_await connect("server:7", options);
  const auto send = [](TcpConnection& to, std::uint64_t number, std::uint64_t count,
                       std::uint64_t seed) -> Task<> {
    Random sizes(seed);
    for (std::uint64_t offset = 0; offset < count;) {
      const std::uint64_t size = std::min(count - offset, 1 + sizes.below(3000));
      std::string bytes = stream_bytes(number, offset, size);
      if (size % 3 == 0) {
        co_await to.send(std::string_view(bytes));
      } else {
        co_await to.send(std::move(bytes));
      }
      offset += size;
    }
  };
  const auto receive = [](TcpConnection& from, std::uint64_t number, std::uint64_t count,
                          std::uint64_t seed) -> Task<bool> {
    CheckedStream stream_of_bytes(number);
    Random ways(seed);
    while (stream_of_bytes.offset() < count) {
      const std::uint64_t left = count - stream_of_bytes.offset();
      Chunk chunk;
      if (ways.below(2) == 0) {
        chunk = co_await from.read();
      } else {
        chunk = co_await from.read_exactly(std::min(left, 1 + ways.below(2000)));
      }
      if (!chunk) co_return false;
      stream_of_bytes.take(chunk.view());
    }
    co_return true;
  };
  const auto [nothing, whole] =
      co_await when_all(send(connection, stream, total, random.next()),
                        receive(connection, stream, total, random.next()));
  (void)nothing;
  co_return whole;
}

Task<> echo_client(sim::World& world, std::uint64_t number, int& done) {
  Random random(world.random());
  for (std::uint64_t attempt = 0;; ++attempt) {
    bool whole = false;
    try {
      whole = co_await check_echo(number * 1000 + attempt, 1 + random.below(20'000), random);
    } catch (const std::system_error&) {
      forgive(world);
    }
    if (whole) break;
    if (!is_harsh(world)) throw std::logic_error("the connection ended early");
    co_await sleep(50ms);
  }
  ++done;
}

// ---- chat ---------------------------------------------------------------------------------------

/// Gives every line to everybody; whoever does not read is dropped at the mark.
class Chat {
 public:
  static constexpr std::size_t kHigh = 4000;

  Task<> serve(TcpConnection connection) {
    connection.set_water_marks({.high = kHigh, .low = kHigh / 2});
    const std::uint64_t id = connection.id();
    members_[id] = &connection;
    struct Leave {
      Chat& chat;
      std::uint64_t id;
      ~Leave() { chat.members_.erase(id); }
    };
    const Leave leave{*this, id};
    for (;;) {
      Chunk line = co_await connection.read_until("\n", 200);
      if (!line) break;
      tell(std::string(line.view()));
    }
  }

  void tell(const std::string& line) {
    for (const auto& [id, member] : members_) {
      const std::size_t pending = member->pending_bytes();
      most_pending = std::max(most_pending, pending);
      if (pending >= kHigh) {
        member->force_close();
        ++dropped;
      } else {
        (void)member->sender().try_send(line);
      }
    }
  }

  std::size_t dropped = 0;
  std::size_t most_pending = 0;

 private:
  std::map<std::uint64_t, TcpConnection*> members_;
};

Task<> listen_to_chat(sim::World& world, std::size_t most, bool slow, std::size_t& heard) {
  for (;;) {
    try {
      TcpConnection connection = co_await connect("server:7", client_options());
      heard = 0;
      std::uint64_t last = 0;
      while (Chunk line = co_await connection.read_until("\n", 200)) {
        const std::uint64_t number = std::stoull(std::string(line.view()));
        if (last != 0 && number != last + 1) throw std::logic_error("a line is missing");
        last = number;
        if (++heard == most) co_return;
        if (slow) co_await sleep(1s);
      }
    } catch (const std::system_error&) {
      if (!slow) forgive(world);
    }
    co_await sleep(10ms);
  }
}

// ---- drops --------------------------------------------------------------------------------------

/// Reads, in every way there is, from a stream; dropped at any moment it loses nothing. `ended` is
/// set when the connection is over.
Task<> read_somehow(TcpConnection& connection, CheckedStream& stream, std::uint64_t seed,
                    bool& ended) {
  Random random(seed);
  try {
    for (;;) {
      const std::uint64_t way = random.below(4);
      const auto pause = std::chrono::microseconds(random.below(3000));
      const std::size_t size = 1 + random.below(100);
      Chunk chunk;
      if (way == 0) {
        chunk = co_await connection.read();
      } else if (way == 1) {
        chunk = co_await connection.read_exactly(size);
      } else if (way == 2) {
        auto [error, in_time] = co_await as_tuple(timeout(pause, connection.read()));
        if (error == std::errc::timed_out) continue;
        if (error) throw std::system_error(error);
        chunk = std::move(in_time);
      } else {
        auto first = co_await when_any(connection.read_exactly(size), sleep(pause));
        if (first.index() == 1) continue;
        chunk = std::move(std::get<0>(first));
      }
      if (!chunk) break;
      stream.take(chunk.view());
    }
  } catch (const std::system_error&) {
  }
  ended = true;
}

/// Line `number` of a stream of lines.
std::string line_of(std::uint64_t number) {
  std::string line = std::to_string(number) + " ";
  Random letters(number);
  line.append(1 + letters.below(300), static_cast<char>('a' + letters.below(26)));
  return line + "\n";
}

// ---- drain --------------------------------------------------------------------------------------

void drain_under_load(sim::World& world) {
  auto& server = world.add_host("10.0.0.1", "server");
  std::vector<std::chrono::nanoseconds> took;
  const bool threads = world.random() % 2 == 0;
  const auto serve = [](sim::World& of, bool more_loops,
                        std::vector<std::chrono::nanoseconds>& time) -> Task<> {
    ServerOptions options = options_at("0.0.0.0:7");
    options.threads = more_loops ? 3 : 1;
    TcpServer tcp(EventLoop::current(), options);
    const auto answer_one = [](TcpConnection connection) -> Task<> {
      const Chunk question = co_await connection.read_exactly(100);
      co_await connection.send(question.view());
    };
    co_await start_server(tcp, answer_one);
    (void)co_await signal(SIGTERM, SIGINT);
    const auto start = of.now();
    (void)co_await tcp.drain(3s);
    time.push_back(of.now() - start);
  };
  server.spawn(serve(world, threads, took), "server");
  int broken = 0;
  const auto ask = [](sim::World& of, std::uint64_t number, int& cut_off) -> Task<> {
    Random random(number);
    for (;;) {
      co_await sleep(std::chrono::microseconds(random.below(20'000)));
      auto [error, socket] =
          co_await as_tuple(Connector(SocketAddress::parse("10.0.0.1:7")).try_once());
      if (error) {
        if (error == std::errc::connection_refused && !is_harsh(of)) co_return;  // it is over
        if (of.now() > 5s) co_return;
        continue;
      }
      TcpConnection connection(std::move(socket));
      try {
        co_await secure(connection);
        co_await connection.send(stream_bytes(number, 0, 100));
        const Chunk answer = co_await timeout(10s, connection.read_exactly(100));
        if (!answer) {
          ++cut_off;
        } else if (answer.view() != stream_bytes(number, 0, 100)) {
          throw std::logic_error("another answer");
        }
      } catch (const std::system_error&) {
        ++cut_off;
      }
    }
  };
  for (int i = 0; i < 10; ++i) {
    auto& client = world.add_host("10.0.1." + std::to_string(i + 1));
    client.spawn(ask(world, world.random(), broken), "client");
  }
  const std::chrono::microseconds before_it(500'000 + 1000 * (world.random() % 500));
  // A thousand handshakes are no better than a hundred.
  world.run_for(WorldTls::current() == nullptr ? before_it : before_it / 10);
  server.raise(SIGTERM);
  world.check(world.run_until([&] { return !took.empty(); }, 1min), "the drain ends");
  world.check(took.front() <= 3s + 100ms, "the drain ends by its deadline");
  world.run_for(1min);
  if (!is_harsh(world)) world.check(broken == 0, "nobody was cut off");
}

/// Clients that ask now and then over connections that they keep.
void drain_of_kept_connections(sim::World& world) {
  auto& server = world.add_host("10.0.0.1", "server");
  auto& took = world.make<std::vector<std::chrono::nanoseconds>>();
  const bool more_loops = world.random() % 2 == 0;
  const auto serve = [](sim::World& of, bool several,
                        std::vector<std::chrono::nanoseconds>& time) -> Task<> {
    ServerOptions options = options_at("0.0.0.0:7");
    options.threads = several ? 3 : 1;
    TcpServer tcp(EventLoop::current(), options);
    const auto answer = [](TcpConnection connection) -> Task<> {
      while (!connection.is_draining()) {
        auto next = co_await when_any(connection.read_until("\n", 100), connection.draining());
        Chunk* question = std::get_if<0>(&next);
        if (question == nullptr || !*question) break;
        co_await connection.send(std::move(*question));
      }
      co_await connection.send("bye\n");
    };
    co_await start_server(tcp, answer);
    (void)co_await signal(SIGTERM, SIGINT);
    const auto start = of.now();
    (void)co_await tcp.drain(30s);
    time.push_back(of.now() - start);
  };
  server.spawn(serve(world, more_loops, took), "server");
  auto& connected = world.make<int>(0);
  auto& farewells = world.make<int>(0);
  const auto ask = [](std::uint64_t number, int& connections, int& said) -> Task<> {
    Random random(number);
    TcpConnection connection(co_await Connector(SocketAddress::parse("10.0.0.1:7")).connect());
    co_await secure(connection);
    ++connections;
    for (;;) {
      const bool asks = random.below(3) > 0;
      if (asks) co_await connection.send("question\n");
      const Chunk line = co_await timeout(asks ? 20s : 1h, connection.read_until("\n", 100));
      if (!line) throw std::system_error(std::make_error_code(std::errc::connection_aborted));
      if (line.view() == "bye\n") {
        ++said;
        co_return;
      }
      if (line.view() != "question\n") throw std::logic_error("another answer");
      co_await sleep(std::chrono::milliseconds(random.below(200)));
    }
  };
  const auto tolerate = [](sim::World& of, Task<> task) -> Task<> {
    auto [error, none] = co_await as_tuple(std::move(task));
    of.check(!error || is_harsh(of), "nobody was cut off");
  };
  for (int i = 0; i < 8; ++i) {
    auto& client = world.add_host("10.0.1." + std::to_string(i + 1));
    client.spawn(tolerate(world, ask(world.random(), connected, farewells)), "client");
  }
  world.run_for(std::chrono::milliseconds(2000 + world.random() % 500));
  server.raise(SIGTERM);
  world.check(world.run_until([&] { return !took.empty(); }, 1min), "the drain ends");
  world.check(took.front() <= (is_harsh(world) ? 30s + 100ms : 5s),
              "a drain need not wait for clients that ask nothing");
  world.run_for(2h);
  if (!is_harsh(world)) world.check(farewells == connected, "everybody heard the farewell");
}

}  // namespace

TEST_CASE("scenario: an echo server gives every byte back, once and in order") {
  explore_all("echo", [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    server.spawn(serve_echo(), "echo server");
    int done = 0;
    for (std::uint64_t i = 0; i < 4; ++i) {
      auto& client = world.add_host("10.0.1." + std::to_string(i + 1));
      client.spawn(echo_client(world, i, done), "echo client");
    }
    world.check(world.run_until([&] { return done == 4; }, 2h), "the clients come to an end");
  });
}

TEST_CASE("scenario: a chat never waits for those who do not read") {
  explore_all("chat", [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    Chat& chat = world.make<Chat>();
    const auto serve = [](Chat& of) -> Task<> {
      TcpServer tcp(EventLoop::current(), options_at("0.0.0.0:7"));
      const auto handler = [&of](TcpConnection connection) -> Task<> {
        return of.serve(std::move(connection));
      };
      co_await start_server(tcp, handler);
      for (std::uint64_t line = 1;; ++line) {
        std::string text = std::to_string(line);
        text.append(100 - text.size(), ' ');
        text += '\n';
        of.tell(text);
        co_await sleep(5ms);
      }
    };
    server.spawn(serve(chat), "chat");
    std::array<std::size_t, 6> heard{};
    std::vector<sim::Host*> quick;
    for (std::size_t i = 0; i < heard.size(); ++i) {
      auto& client = world.add_host("10.0.1." + std::to_string(i + 1));
      const bool slow = i < 2;
      client.spawn(listen_to_chat(world, 200, slow, heard[i]), slow ? "slow" : "quick");
      if (!slow) quick.push_back(&client);
    }
    const auto all_heard = [&] {
      return std::all_of(quick.begin(), quick.end(),
                         [](const sim::Host* host) { return host->unfinished() == 0; });
    };
    world.check(world.run_until(all_heard, 2h), "the quick ones hear everything");
    world.check(chat.most_pending <= Chat::kHigh + 101, "memory is bounded by the mark");
  });
}

TEST_CASE("scenario: clients come back after each crash of their server, spread out") {
  explore_all("reconnect", [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    std::vector<std::chrono::nanoseconds> arrivals;
    server.run([&]() -> Task<> {
      const auto count_and_echo = [&world, &arrivals](TcpConnection connection) -> Task<> {
        arrivals.push_back(world.now());
        return echo_all(std::move(connection));
      };
      const auto serve = [](TcpServer::Handler handler) -> Task<> {
        TcpServer tcp(EventLoop::current(), options_at("0.0.0.0:7"));
        co_await start_server(tcp, std::move(handler));
        co_await Event().wait();
      };
      return serve(count_and_echo);
    });
    constexpr std::size_t kClients = 20;
    std::array<int, kClients> answers{};
    const auto run = [](int& count) -> Task<> {
      ClientOptions options;
      options.address = SocketAddress::parse("10.0.0.1:7");
      options.connector.max_delay = 2s;
      add_tls(options);
      TcpClient client(options);
      const auto session = [&count](TcpConnection& connection) -> Task<> {
        const auto talk = [](TcpConnection& over, int& answered) -> Task<> {
          for (;;) {
            co_await over.send("ping");
            const Chunk back = co_await timeout(5s, over.read_exactly(4));
            if (back.view() != "ping") co_return;
            ++answered;
            co_await sleep(200ms);
          }
        };
        return talk(connection, count);
      };
      co_await client.run(session);
    };
    for (std::size_t i = 0; i < kClients; ++i) {
      auto& client = world.add_host("10.0.1." + std::to_string(i + 1));
      client.spawn(run(answers[i]), "client");
    }
    world.run_for(5s);
    Random random(world.random());
    for (int crash = 0; crash < 3; ++crash) {
      if (random.below(2) == 0) {
        server.crash();
      } else {
        server.kill();
      }
      world.run_for(std::chrono::milliseconds(random.below(2000)));
      server.restart();
      answers.fill(0);
      arrivals.clear();
      const auto all_back = [&] {
        return std::all_of(answers.begin(), answers.end(), [](int count) { return count > 0; });
      };
      world.check(world.run_until(all_back, 10min), "everybody is back");
      // No herd: not half of them within any 20 ms.
      std::sort(arrivals.begin(), arrivals.end());
      for (std::size_t i = 0; i + kClients / 2 < arrivals.size(); ++i) {
        world.check(arrivals[i + kClients / 2] - arrivals[i] > 20ms, "they come back spread out");
      }
    }
  });
}

TEST_CASE("scenario: a drain ends the connections that clients keep, with a farewell") {
  explore_all("drain-kept", drain_of_kept_connections);
}

TEST_CASE("scenario: a drain under load ends in time, and cuts off nobody who is quick") {
  explore_all("drain", drain_under_load);
}

TEST_CASE("scenario: an interrupted look at the backlog cuts off nobody") {
  sim::ExploreOptions options;
  options.first = kMildSeeds;
  options.count = 50;
  options.world.faults = sim::Faults::mild();
  options.world.faults.interrupted = 0.3;
  const sim::Exploration found = sim::explore(options, half_with_tls(drain_under_load));
  CHECK_MESSAGE(found.failures.empty(), found.text());
}

TEST_CASE("scenario: timeouts that race with data lose none of it") {
  explore_all("timeouts", [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2");
    const std::uint64_t seed = world.random();
    const auto send = [](std::uint64_t random_seed) -> Task<> {
      TcpServer tcp(EventLoop::current(), options_at("0.0.0.0:7"));
      const auto stream = [random_seed](TcpConnection connection) -> Task<> {
        const auto write = [](TcpConnection to, std::uint64_t number) -> Task<> {
          Random random(number);
          for (std::uint64_t offset = 0; offset < 20'000;) {
            const std::uint64_t size = std::min(20'000 - offset, 1 + random.below(200));
            co_await to.send(stream_bytes(9, offset, size));
            offset += size;
            co_await sleep(std::chrono::microseconds(random.below(2000)));
          }
        };
        return write(std::move(connection), random_seed);
      };
      co_await start_server(tcp, stream);
      co_await Event().wait();
    };
    server.spawn(send(seed), "server");
    bool done = false;
    const auto take = [](sim::World& of, std::uint64_t number, bool& finished) -> Task<> {
      Random random(number);
      while (!finished) {
        try {
          TcpConnection connection = co_await connect("server:7", client_options());
          CheckedStream stream(9);
          for (;;) {
            auto [error, chunk] = co_await as_tuple(
                timeout(std::chrono::microseconds(random.below(1500)), connection.read()));
            if (error == std::errc::timed_out) continue;
            if (error) throw std::system_error(error);
            if (!chunk) break;
            stream.take(chunk.view());
          }
          finished = stream.offset() == 20'000;
          if (!finished && !is_harsh(of)) throw std::logic_error("bytes are missing");
        } catch (const std::system_error&) {
          forgive(of);
        }
        if (!finished) co_await sleep(20ms);
      }
    };
    client.spawn(take(world, world.random(), done), "reader");
    world.check(world.run_until([&] { return done; }, 2h), "the reader has everything");
  });
}

TEST_CASE("scenario: a server out of descriptors sheds clients, and comes back by itself") {
  explore_all("descriptors", [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    std::uint64_t shed = 0;
    const auto serve = [](std::uint64_t& count) -> Task<> {
      TcpServer tcp(EventLoop::current(), options_at("0.0.0.0:7"));
      co_await start_server(tcp, echo_all);
      for (;;) {
        co_await sleep(10ms);
        count = tcp.shed();
      }
    };
    server.spawn(serve(shed), "server");
    world.run_for(1s);
    server.set_descriptor_limit(10);
    int served = 0;
    const auto hold = [](sim::World& of, int& count) -> Task<> {
      bool answered = false;
      while (!answered) {
        try {
          ConnectOptions options = client_options();
          options.timeout = 20s;
          TcpConnection connection = co_await connect("server:7", options);
          for (int i = 0; i < 20; ++i) {
            co_await connection.send("ping");
            const Chunk back = co_await timeout(20s, connection.read_exactly(4));
            if (!back) throw std::system_error(std::make_error_code(std::errc::not_connected));
            co_await sleep(20ms);
          }
          answered = true;
        } catch (const std::system_error& error) {
          // With every descriptor taken a client is closed at once, but it never hangs.
          if (error.code() == std::errc::timed_out) forgive(of);
        }
        co_await sleep(100ms);
      }
      ++count;
    };
    for (int i = 0; i < 25; ++i) {
      auto& client = world.add_host("10.0.1." + std::to_string(i + 1));
      client.spawn(hold(world, served), "client");
    }
    world.run_for(500ms);
    if (world.random() % 2 == 0) server.set_descriptor_limit(1000);
    world.check(world.run_until([&] { return served == 25; }, 1h), "everybody is served in time");
    world.run_for(1s);
    world.check(shed > 0, "some were shed");
  });
}

TEST_CASE("scenario: readers that are dropped at any moment lose nothing") {
  explore_all("dropped readers", [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2");
    server.spawn(serve_echo(), "echo server");
    bool done = false;
    const auto drop = [](sim::World& of, std::uint64_t seed, bool& finished) -> Task<> {
      constexpr std::uint64_t kTotal = 20'000;
      Random random(seed);
      while (!finished) {
        try {
          TcpConnection connection = co_await connect("server:7", client_options());
          connection.set_water_marks({.high = 2000, .low = 500});
          const auto write = [](TcpConnection& to) -> Task<> {
            for (std::uint64_t offset = 0; offset < kTotal; offset += 200) {
              co_await to.send(stream_bytes(3, offset, 200));
              co_await sleep(500us);
            }
          };
          CheckedStream stream(3, &of);
          TaskGroup writers;
          writers.spawn(write(connection));
          bool ended = false;
          while (stream.offset() < kTotal && !ended) {
            TaskGroup readers;
            readers.spawn(read_somehow(connection, stream, random.next(), ended));
            co_await sleep(std::chrono::microseconds(random.below(5000)));
            readers.cancel();
          }
          finished = stream.offset() == kTotal;
          if (!finished && !is_harsh(of)) throw std::logic_error("bytes are missing");
        } catch (const std::system_error&) {
          forgive(of);
        }
        if (!finished) co_await sleep(20ms);
      }
    };
    client.spawn(drop(world, world.random(), done), "client");
    world.check(world.run_until([&] { return done; }, 2h), "the client has everything");
  });
}

TEST_CASE("scenario: messages of senders that are dropped leave whole or not at all") {
  explore_all("dropped senders", [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2");
    server.spawn(serve_echo(), "echo server");
    bool done = false;
    const auto drop = [](sim::World& of, std::uint64_t seed, bool& finished) -> Task<> {
      constexpr std::size_t kHigh = 1000;
      constexpr std::size_t kLow = 300;
      Random random(seed);
      while (!finished) {
        try {
          TcpConnection connection = co_await connect("server:7", client_options());
          connection.set_water_marks({.high = kHigh, .low = kLow});
          std::uint64_t next = 1;
          std::uint64_t last = 0;
          bool ended = false;
          const auto write = [](sim::World& in, TcpConnection& to, std::uint64_t& number,
                                bool& over) -> Task<> {
            try {
              for (;;) {
                std::string line = line_of(number++);
                const std::size_t size = line.size();
                const std::size_t before = to.pending_bytes();
                if (number % 2 == 0) {
                  co_await to.send(std::string_view(line));
                } else {
                  co_await to.send(std::move(line));
                }
                if (before + size >= kHigh) {
                  // A message that found the queue full was let in at the low mark.
                  const std::size_t most = before >= kHigh ? kLow + size : kLow;
                  in.check(to.pending_bytes() <= most, "a send waits for the low mark");
                }
                if (number % 16 == 0) co_await to.flush();
              }
            } catch (const std::system_error&) {
            }
            over = true;
          };
          const auto check = [](sim::World& in, TcpConnection& from, std::uint64_t& before,
                                bool& over) -> Task<> {
            try {
              while (Chunk line = co_await from.read_until("\n", 500)) {
                const std::uint64_t number = std::stoull(std::string(line.view()));
                in.check(number > before && line.view() == line_of(number),
                         "messages come whole, once and in order");
                before = number;
              }
            } catch (const std::system_error&) {
            }
            over = true;
          };
          TaskGroup readers;
          readers.spawn(check(of, connection, last, ended));
          while (last < 300 && !ended) {
            TaskGroup writers;
            writers.spawn(write(of, connection, next, ended));
            co_await sleep(std::chrono::microseconds(random.below(4000)));
          }
          finished = last >= 300;
          if (!finished && !is_harsh(of)) throw std::logic_error("the connection ended early");
        } catch (const std::system_error&) {
          forgive(of);
        }
        if (!finished) co_await sleep(20ms);
      }
    };
    client.spawn(drop(world, world.random(), done), "client");
    world.check(world.run_until([&] { return done; }, 2h), "the lines arrive");
  });
}

TEST_CASE("scenario: a reader that stalls holds its sender back, whatever happens") {
  explore_all("stalls", [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2");
    constexpr std::size_t kInput = 20'000;
    constexpr std::size_t kOutput = 10'000;
    constexpr std::size_t kTotal = 1'000'000;
    struct Progress {
      std::size_t sent = 0;  // on the newest connection
      std::size_t read = 0;
      int connections = 0;
    };
    auto& progress = world.make<Progress>();
    const auto flood = [](Progress& of) -> Task<> {
      TcpServer tcp(EventLoop::current(), options_at("0.0.0.0:7"));
      const auto handler = [&of](TcpConnection connection) -> Task<> {
        const auto write = [](TcpConnection to, Progress& shared) -> Task<> {
          const int own = ++shared.connections;
          shared.sent = shared.read = 0;
          to.set_water_marks({.high = kOutput, .low = kOutput / 2});
          for (std::size_t offset = 0; offset < kTotal; offset += 1000) {
            co_await to.send(stream_bytes(5, offset, 1000));
            if (own == shared.connections) shared.sent = offset + 1000;
          }
        };
        return write(std::move(connection), of);
      };
      co_await start_server(tcp, handler);
      co_await Event().wait();
    };
    server.spawn(flood(progress), "server");
    auto& done = world.make<bool>(false);
    const auto take = [](sim::World& of, std::uint64_t seed, std::size_t& count,
                         bool& finished) -> Task<> {
      Random random(seed);
      while (!finished) {
        try {
          const Connector connector(SocketAddress::parse("10.0.0.1:7"));
          ConnectionOptions options;
          options.input_high = kInput;
          TcpConnection connection(co_await connector.try_once(), options);
          co_await secure(connection);
          CheckedStream stream(5);
          for (;;) {
            if (random.below(20) == 0) co_await sleep(std::chrono::milliseconds(random.below(200)));
            const Chunk chunk = co_await connection.read();
            if (!chunk) break;
            stream.take(chunk.view());
            count = stream.offset();
          }
          finished = stream.offset() == kTotal;
          if (!finished && !is_harsh(of)) throw std::logic_error("bytes are missing");
        } catch (const std::system_error&) {
          forgive(of);
        }
        if (!finished) co_await sleep(20ms);
      }
    };
    client.spawn(take(world, world.random(), progress.read, done), "reader");
    // What may be between the two: both marks, a message, both kernels' buffers, and what a receive
    // with many results gives until its cancel has come through.
    // Cancels that come too late make that more than one window.
    const std::size_t most = 2 * kInput + kOutput + 1000 + 10 * (std::size_t{64} << 10);
    while (!done) {
      world.check(world.now() < 2h, "the reader has everything");
      const auto [sent, read, ignored] = progress;
      (void)ignored;
      world.check(sent <= read + most,
                  "what is on its way is bounded: " + std::to_string(sent - read));
      world.run_for(10ms);
    }
  });
}

TEST_CASE("scenario: connects that are dropped at any moment leave nothing behind") {
  explore_all("dropped connects", [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2");
    server.spawn(serve_echo(), "echo server");
    const auto drop = [](std::uint64_t seed) -> Task<> {
      Random random(seed);
      for (int i = 0; i < 40; ++i) {
        const auto limit = std::chrono::microseconds(random.below(3000));
        const bool by_name = random.below(2) == 0;
        if (by_name) {
          (void)co_await as_tuple(timeout(limit, connect("server:7", client_options())));
        } else {
          const Connector connector(SocketAddress::parse("10.0.0.1:7"));
          (void)co_await as_tuple(timeout(limit, connector.connect()));
        }
      }
    };
    if (world.random() % 2 == 0) {
      world.at(20ms, [&world, &server, &client] { world.partition(server, client); });
    }
    client.spawn(drop(world.random()), "client");
    world.check(world.run_until([&] { return client.unfinished() == 0; }, 1h), "the drops end");
    world.run_for(10s);  // a close may linger for five
    world.check(client.open_descriptors() == 0, "no descriptor is left");
  });
}

// Below TLS: nobody says anything.
TEST_CASE("scenario: acceptors that end at any moment keep no descriptor") {
  explore_all("acceptors", [](sim::World& world) {
    auto& server = world.add_host("10.0.0.1", "server");
    const auto accept_some = [](std::uint64_t seed) -> Task<> {
      Random random(seed);
      for (int i = 0; i < 20; ++i) {
        try {
          Acceptor acceptor(SocketAddress::parse("0.0.0.0:7"));
          std::vector<Socket> accepted;
          for (std::uint64_t count = random.below(5); count > 0; --count) {
            co_await sleep(std::chrono::microseconds(random.below(3000)));
            const auto limit = std::chrono::microseconds(random.below(2000));
            auto [error, socket] = co_await as_tuple(timeout(limit, acceptor.accept()));
            if (!error) accepted.push_back(std::move(socket));
          }
        } catch (const std::system_error&) {  // no descriptor for a listener
        }
        co_await sleep(std::chrono::microseconds(random.below(3000)));
      }
    };
    server.spawn(accept_some(world.random()), "server");
    const auto come_and_go = [](std::uint64_t seed) -> Task<> {
      Random random(seed);
      for (;;) {
        const Connector connector(SocketAddress::parse("10.0.0.1:7"));
        (void)co_await as_tuple(connector.try_once());
        co_await sleep(std::chrono::microseconds(random.below(1000)));
      }
    };
    for (int i = 0; i < 3; ++i) {
      auto& client = world.add_host("10.0.1." + std::to_string(i + 1));
      client.spawn(come_and_go(world.random()), "client");
    }
    world.check(world.run_until([&] { return server.unfinished() == 0; }, 1h), "the server ends");
    world.run_for(1s);
    world.check(server.open_descriptors() == 0, "no descriptor is left");
  });
}
