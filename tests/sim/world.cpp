#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../support/sim.h"

using namespace weir;
using namespace weir::test;

namespace {

/// The text of the failure that the function ends with; empty if there is none.
std::string failure_of(const std::function<void()>& function) {
  try {
    function();
  } catch (const sim::Failure& failure) {
    return failure.what();
  }
  return {};
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

Task<> exchange(std::string name, int count, int& done) {
  TcpConnection connection = co_await connect(std::move(name));
  for (int i = 0; i < count; ++i) {
    const std::string message = "message " + std::to_string(i);
    co_await connection.send(message);
    const Chunk back = co_await connection.read_exactly(message.size());
    if (back.view() != message) throw std::logic_error("another answer");
  }
  ++done;
}

/// The error that a connect ends with.
Task<> try_connect(SocketAddress address, ConnectorOptions options, std::error_code& error) {
  const Connector connector(address, options);
  auto [failed, socket] = co_await as_tuple(connector.connect());
  error = failed;
}

ConnectorOptions once() {
  ConnectorOptions options;
  options.max_attempts = 1;
  options.attempt_timeout = 0ms;
  return options;
}

Task<> accept_and_hold(std::vector<TcpConnection>& held) {
  Acceptor acceptor(SocketAddress::parse("0.0.0.0:7"));
  for (;;) held.emplace_back(co_await acceptor.accept());
}

Task<> read_to_end(TcpConnection& connection, std::string& got, std::error_code& error) {
  try {
    while (Chunk chunk = co_await connection.read()) got += chunk.view();
  } catch (const std::system_error& failure) {
    error = failure.code();
  }
}

}  // namespace

TEST_CASE("a simulated client reaches a simulated server by its name and by its address") {
  sim::World world({.seed = 1});
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  server.spawn(serve_echo());
  int done = 0;
  client.spawn(exchange("server:7", 10, done));
  client.spawn(exchange("10.0.0.1:7", 10, done));
  CHECK(world.run_until([&] { return done == 2; }));
}

TEST_CASE("simulated sockets share a port as those of Linux do, and listen again") {
  sim::World world({.seed = 1});
  Sockets& sockets = world.add_host("10.0.0.1").loop().sockets();
  const SocketAddress address = SocketAddress::parse("10.0.0.1:7");
  const auto bound = [&](Sockets::Option reuse) {
    const int fd = sockets.open(address.family());
    CHECK(sockets.set(fd, reuse, 1) == 0);
    return std::pair(fd, sockets.bind(fd, address.raw()));
  };
  const auto [first, free] = bound(Sockets::Option::reuse_address);
  const auto [second, shared] = bound(Sockets::Option::reuse_address);
  const auto [third, taken] = bound(Sockets::Option::reuse_port);
  CHECK(free == 0);
  CHECK(shared == 0);  // nobody listens
  CHECK(taken == -EADDRINUSE);
  CHECK(sockets.listen(first, 0) == 0);
  CHECK(sockets.listen(second, 0) == -EADDRINUSE);
  CHECK(sockets.listen(first, 10) == 0);  // with another backlog
  const auto [fourth, late] = bound(Sockets::Option::reuse_address);
  CHECK(late == -EADDRINUSE);
  for (const int fd : {first, second, third, fourth}) sockets.close(fd);
}

TEST_CASE("a simulated host may have addresses of both families, and loopback") {
  sim::World world({.seed = 1});
  auto& server = world.add_host("fd00::1", "server");
  server.add_address("10.0.0.1");
  auto& client = world.add_host("10.0.0.2");
  client.add_address("fd00::2");
  const auto serve = []() -> Task<> {
    TcpServer both(EventLoop::current(), options_at("[::]:7"));
    both.start(echo_all);
    co_await Event().wait();
  };
  server.spawn(serve());
  int done = 0;
  for (const char* name : {"server:7", "10.0.0.1:7", "[fd00::1]:7"}) {
    client.spawn(exchange(name, 2, done));
  }
  server.spawn(exchange("localhost:7", 2, done));
  server.spawn(exchange("127.0.0.1:7", 2, done));
  CHECK(world.run_until([&] { return done == 5; }));
}

TEST_CASE("an hour's sleep in the simulation takes no time") {
  sim::World world;
  auto& host = world.add_host("10.0.0.1");
  std::chrono::nanoseconds woken{};
  const auto sleeper = [](sim::World& of, std::chrono::nanoseconds& at) -> Task<> {
    co_await sleep(1h);
    at = of.now();
  };
  host.spawn(sleeper(world, woken));
  world.run_for(30min);
  CHECK(woken == 0ns);
  CHECK(world.now() == 30min);
  world.run_for(31min);
  CHECK(woken >= 1h);
  CHECK(woken < 1h + 1ms);
}

TEST_CASE("equal seeds give equal runs, event for event, other seeds others") {
  const auto hash_of = [](std::uint64_t seed) {
    sim::World world({.seed = seed, .faults = sim::Faults::mild()});
    auto& server = world.add_host("10.0.0.1", "server");
    server.spawn(serve_echo());
    int done = 0;
    for (int i = 2; i < 6; ++i) {
      world.add_host("10.0.0." + std::to_string(i)).spawn(exchange("server:7", 10, done));
    }
    CHECK(world.run_until([&] { return done == 4; }));
    world.finish();
    return world.trace_hash();
  };
  const std::uint64_t first = hash_of(7);
  CHECK(hash_of(7) == first);
  CHECK(hash_of(8) != first);
  // The same on every machine, with every compiler and in every build type.
  CHECK(first == 730502864590084736ULL);
}

TEST_CASE("a simulated connect is refused where nobody listens") {
  sim::World world;
  world.add_host("10.0.0.1");
  auto& client = world.add_host("10.0.0.2");
  std::error_code error;
  client.spawn(try_connect(SocketAddress::parse("10.0.0.1:7"), once(), error));
  world.run_for(1s);
  CHECK(error == std::errc::connection_refused);
}

TEST_CASE("a simulated connect to an address without a host fails after a while") {
  sim::World world;
  auto& client = world.add_host("10.0.0.2");
  std::error_code error;
  client.spawn(try_connect(SocketAddress::parse("10.0.0.9:7"), once(), error));
  world.run_for(2s);
  CHECK(!error);
  world.run_for(2s);
  CHECK(error == std::errc::host_unreachable);
  client.spawn(try_connect(SocketAddress::parse("[fd00::9]:7"), once(), error));
  world.run_for(1s);
  CHECK(error == std::errc::network_unreachable);
}

TEST_CASE("a simulated connect across a partition is tried until it times out") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  server.spawn(serve_echo());
  world.partition(server, client);
  std::error_code error;
  client.spawn(try_connect(SocketAddress::parse("10.0.0.1:7"), once(), error));
  world.run_for(126s);
  CHECK(!error);
  world.run_for(4s);
  CHECK(error == std::errc::timed_out);
  int done = 0;
  client.spawn(exchange("server:7", 1, done));
  world.run_for(1s);
  CHECK(done == 0);
  world.heal(server, client);
  CHECK(world.run_until([&] { return done == 1; }, 10s));
}

TEST_CASE("a simulated partition holds bytes back and loses none") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  server.spawn(serve_echo());
  bool done = false;
  const auto talk = [](bool& finished) -> Task<> {
    TcpConnection connection = co_await connect("server:7");
    CheckedStream answers(1);
    for (std::uint64_t i = 0; i < 100; ++i) {
      co_await connection.send(stream_bytes(1, i * 100, 100));
      const Chunk chunk = co_await connection.read_exactly(100);
      answers.take(chunk.view());
      co_await sleep(100ms);
    }
    finished = true;
  };
  client.spawn(talk(done));
  for (int i = 1; i < 5; ++i) {
    world.at(std::chrono::seconds(i), [&] { world.partition_one_way(server, client); });
    world.at(std::chrono::milliseconds(i * 1000 + 700), [&] { world.heal(); });
  }
  CHECK(world.run_until([&] { return done; }, 1min));
}

TEST_CASE("a connection across a partition that lasts ends at both sides") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  std::vector<TcpConnection> held;
  std::string got;
  std::error_code of_reader;
  server.spawn(accept_and_hold(held));
  std::vector<TcpConnection> ours;
  const auto open = [](std::vector<TcpConnection>& to) -> Task<> {
    to.push_back(co_await connect("server:7"));
  };
  client.spawn(open(ours));
  CHECK(world.run_until([&] { return (ours.size() == 1) && held.size() == 1; }));
  client.spawn(read_to_end(ours.front(), got, of_reader));
  world.partition(server, client);
  world.run_for(3min);
  CHECK(of_reader == std::errc::timed_out);
  held.clear();
  ours.clear();
}

TEST_CASE("a simulated sender is held back by a reader that does not read") {
  sim::World world({.send_buffer = 10'000, .receive_buffer = 20'000});
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  std::vector<TcpConnection> held;
  std::size_t sent = 0;
  std::size_t most_pending = 0;
  std::string got;
  std::error_code error;
  server.spawn(accept_and_hold(held));
  const auto flood = [](std::size_t& count, std::size_t& most) -> Task<> {
    TcpConnection connection = co_await connect("server:7");
    connection.set_water_marks({.high = 50'000, .low = 10'000});
    for (int i = 0; i < 2000; ++i) {
      co_await connection.send(stream_bytes(1, count, 1000));
      count += 1000;
      most = std::max(most, connection.pending_bytes());
    }
    co_await connection.shutdown();
  };
  client.spawn(flood(sent, most_pending));
  world.run_for(1h);
  CHECK(held.size() == 1);
  // Input mark, both kernels' buffers, and the mark of the output, with a message.
  CHECK(sent < 700'000);
  CHECK(most_pending <= 51'000);
  server.spawn(read_to_end(held.front(), got, error));
  world.run_for(1min);
  CHECK(sent == 2'000'000);
  CHECK(!error);
  CHECK(got == stream_bytes(1, 0, 2'000'000));
  held.clear();
}

TEST_CASE("a simulated connection can be half closed") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  const auto answer_at_the_end = []() -> Task<> {
    Acceptor acceptor(SocketAddress::parse("0.0.0.0:7"));
    TcpConnection connection(co_await acceptor.accept());
    std::string got;
    while (Chunk chunk = co_await connection.read()) got += chunk.view();
    co_await connection.send("you said: " + got);
  };
  server.spawn(answer_at_the_end());
  std::string answer;
  const auto ask = [](std::string& to) -> Task<> {
    TcpConnection connection = co_await connect("server:7");
    co_await connection.send("hello");
    co_await connection.shutdown();
    while (Chunk chunk = co_await connection.read()) to += chunk.view();
  };
  client.spawn(ask(answer));
  world.run_for(10s);
  CHECK(answer == "you said: hello");
  CHECK(server.unfinished() == 0);
  CHECK(client.unfinished() == 0);
}

TEST_CASE("bytes that arrived before a simulated reset are read before the error") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  const auto send_and_reset = []() -> Task<> {
    Acceptor acceptor(SocketAddress::parse("0.0.0.0:7"));
    TcpConnection connection(co_await acceptor.accept());
    co_await connection.send("last words");
    co_await connection.flush();
    co_await sleep(1s);
    connection.force_close();
  };
  server.spawn(send_and_reset());
  std::string got;
  std::error_code error;
  const auto listen_late = [](std::string& to, std::error_code& failed) -> Task<> {
    const Connector connector("server:7");
    Socket socket = co_await connector.connect();
    co_await sleep(10s);  // meanwhile it is the kernel that has them
    TcpConnection connection(std::move(socket));
    co_await read_to_end(connection, to, failed);
  };
  client.spawn(listen_late(got, error));
  world.run_for(1min);
  CHECK(got == "last words");
  CHECK(error == std::errc::connection_reset);
}

TEST_CASE("a simulated socket that is closed over unread bytes resets its connection") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  const auto close_unread = []() -> Task<> {
    Acceptor acceptor(SocketAddress::parse("0.0.0.0:7"));
    Socket socket = co_await acceptor.accept();
    co_await sleep(1s);
    socket.close();
  };
  server.spawn(close_unread());
  std::string got;
  std::error_code error;
  const auto talk = [](std::string& to, std::error_code& failed) -> Task<> {
    TcpConnection connection = co_await connect("server:7");
    co_await connection.send("unread");
    co_await read_to_end(connection, to, failed);
  };
  client.spawn(talk(got, error));
  world.run_for(1min);
  CHECK(got.empty());
  CHECK(error == std::errc::connection_reset);
}

TEST_CASE("a full simulated backlog lets clients wait") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  const auto serve_late = []() -> Task<> {
    AcceptorOptions options;
    options.backlog = 1;
    Socket listener =
        listen(EventLoop::current().sockets(), SocketAddress::parse("0.0.0.0:7"), options);
    co_await sleep(10s);
    Acceptor acceptor(EventLoop::current(), std::move(listener), options);
    std::vector<Socket> accepted;
    for (;;) accepted.push_back(co_await acceptor.accept());
  };
  server.spawn(serve_late());
  int connected = 0;
  const auto join = [](int& count) -> Task<> {
    const TcpConnection connection = co_await connect("10.0.0.1:7");
    ++count;
    co_await Event().wait();
  };
  for (int i = 0; i < 5; ++i) client.spawn(join(connected));
  world.run_for(5s);
  CHECK(connected == 2);
  world.run_for(1min);
  CHECK(connected == 5);
}

TEST_CASE("a simulated process can run out of ports, and TIME_WAIT gives them back") {
  sim::World world({.first_port = 40000, .last_port = 40009});
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  server.spawn(serve_echo());
  std::vector<std::error_code> errors;
  const auto open_and_close = [](std::vector<std::error_code>& to) -> Task<> {
    const Connector connector(SocketAddress::parse("10.0.0.1:7"), once());
    for (int i = 0; i < 11; ++i) {
      auto [error, socket] = co_await as_tuple(connector.connect());
      to.push_back(error);
      socket.close();
      co_await sleep(10ms);
    }
  };
  client.spawn(open_and_close(errors));
  world.run_for(30s);
  REQUIRE(errors.size() == 11);
  CHECK(std::count(errors.begin(), errors.end(), std::error_code()) == 10);
  CHECK(errors.back() == std::errc::address_not_available);
  int done = 0;
  world.run_for(40s);
  client.spawn(exchange("server:7", 1, done));
  CHECK(world.run_until([&] { return done == 1; }, 5s));
}

TEST_CASE("a simulated connect among few ports may meet itself, and the connector notices") {
  sim::World world({.seed = 3, .first_port = 40000, .last_port = 40003});
  auto& host = world.add_host("10.0.0.1");
  std::error_code error;
  ConnectorOptions options;
  options.initial_delay = 1ms;
  options.max_delay = 1ms;
  options.max_attempts = 200;
  host.spawn(try_connect(SocketAddress::parse("127.0.0.1:40002"), options, error));
  world.run_for(1min);
  CHECK_MESSAGE(error == std::errc::connection_refused, world.report());
  CHECK(host.open_descriptors() == 0);
}

TEST_CASE("a killed process takes its connections along, and can be started again") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  server.run(serve_echo);
  std::vector<TcpConnection> ours;
  std::string got;
  std::error_code error;
  const auto open = [](std::vector<TcpConnection>& to) -> Task<> {
    to.push_back(co_await connect("server:7"));
  };
  client.spawn(open(ours));
  world.run_for(1s);
  REQUIRE((ours.size() == 1));
  client.spawn(read_to_end(ours.front(), got, error));
  server.kill();
  CHECK(!server.running());
  world.run_for(1s);
  CHECK(client.unfinished() == 0);
  std::error_code refused;
  client.spawn(try_connect(SocketAddress::parse("10.0.0.1:7"), once(), refused));
  world.run_for(1s);
  CHECK(refused == std::errc::connection_refused);
  server.restart();
  int done = 0;
  client.spawn(exchange("server:7", 3, done));
  CHECK(world.run_until([&] { return done == 1; }, 5s));
  ours.clear();
}

TEST_CASE("a crashed machine is silent, and answers with a reset when it is back") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  server.run(serve_echo);
  int done = 0;
  std::error_code error;
  const auto talk = [](std::error_code& failed) -> Task<> {
    TcpConnection connection = co_await connect("server:7");
    try {
      for (;;) {
        co_await connection.send("ping");
        (void)co_await connection.read_exactly(4);
        co_await sleep(1s);
      }
    } catch (const std::system_error& failure) {
      failed = failure.code();
    }
  };
  client.spawn(talk(error));
  world.run_for(5s);
  server.crash();
  world.run_for(10s);
  CHECK(!error);  // nobody told it
  server.restart();
  world.run_for(1min);
  CHECK(error == std::errc::connection_reset);
  client.spawn(exchange("server:7", 3, done));
  CHECK(world.run_until([&] { return done == 1; }, 5s));
}

TEST_CASE("a paused process does nothing, while its kernel takes in what comes") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  server.spawn(serve_echo());
  world.run_for(1ms);
  server.pause();
  int done = 0;
  client.spawn(exchange("server:7", 1, done));
  world.run_for(1h);
  CHECK(done == 0);
  server.resume();
  world.run_for(1s);
  CHECK(done == 1);
}

TEST_CASE("a simulated server has loops of its own, and drains upon a signal") {
  for (const bool reuse_port : {false, true}) {
    sim::World world({.seed = 5});
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2");
    std::optional<DrainReport> report;
    const auto serve = [](bool reuse, std::optional<DrainReport>& to) -> Task<> {
      ServerOptions options = options_at("0.0.0.0:7");
      options.threads = 3;
      options.reuse_port = reuse;
      TcpServer tcp(EventLoop::current(), options);
      tcp.start(echo_all);
      (void)co_await signal(SIGTERM);
      to = co_await tcp.drain(5s);
    };
    server.spawn(serve(reuse_port, report));
    int done = 0;
    const auto stay = []() -> Task<> {
      TcpConnection connection = co_await connect("server:7");
      (void)co_await as_tuple(connection.read());
    };
    client.spawn(stay());
    for (int i = 0; i < 12; ++i) client.spawn(exchange("server:7", 5, done));
    CHECK(world.run_until([&] { return done == 12; }));
    world.run_for(1s);
    server.raise(SIGTERM);
    world.run_for(20s);
    REQUIRE(report.has_value());
    CHECK(report->forced == 1);
    CHECK(server.unfinished() == 0);
    CHECK(client.unfinished() == 0);
  }
}

TEST_CASE("a simulated drain reaches the loops that idle") {
  for (const bool reuse_port : {false, true}) {
    sim::World world({.seed = 9});
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2");
    bool drained = false;
    const auto serve = [](bool reuse, bool& done) -> Task<> {
      ServerOptions options = options_at("0.0.0.0:7");
      options.threads = 3;
      options.reuse_port = reuse;
      TcpServer tcp(EventLoop::current(), options);
      tcp.start(echo_all);
      co_await sleep(1s);
      (void)co_await tcp.drain(100ms);
      done = true;
      co_await Event().wait();
    };
    server.spawn(serve(reuse_port, drained));
    const auto hold = []() -> Task<> {
      TcpConnection connection = co_await connect("server:7");
      (void)co_await as_tuple(connection.read());
    };
    for (int i = 0; i < 4; ++i) client.spawn(hold());
    world.run_for(10s);
    CHECK(drained);
    CHECK(client.unfinished() == 0);
  }
}

TEST_CASE("a process may be killed while one of its tasks waits for a loop to end") {
  sim::World world;
  auto& host = world.add_host("10.0.0.1", "server");
  auto& other = world.add_host("10.0.0.2");
  std::vector<TcpConnection> held;
  other.spawn(accept_and_hold(held));
  const auto stop_thread = []() -> Task<> {
    EventLoopThread thread;
    const auto open = []() -> Task<> {
      TcpConnection connection = co_await connect("10.0.0.2:7");
      co_await connection.send("unread");
      co_await sleep(1h);
    };
    thread.loop().spawn(open());
    co_await sleep(1s);
    thread.stop();  // which waits for the peer's end: seconds
  };
  host.spawn(stop_thread());
  world.at(2s, [&] { host.kill(); });
  world.run_for(1min);
  CHECK(!host.running());
  held.clear();
}

TEST_CASE("stop does not keep a simulated loop awake") {
  sim::World world;
  auto& host = world.add_host("10.0.0.1");
  host.spawn(serve_echo());
  world.run_for(1s);
  host.loop().stop();
  world.run_until_idle();
  CHECK(world.now() < 2s);
}

TEST_CASE("channels and on() cross the loops of a simulated host") {
  sim::World world;
  auto& host = world.add_host("10.0.0.1");
  int sum = 0;
  const auto crossing = [](int& total) -> Task<> {
    EventLoopThread other;
    Channel<int> channel(4);
    const auto produce = [](Channel<int>& to) -> Task<> {
      for (int i = 1; i <= 100; ++i) (void)co_await to.send(i);
      to.close();
    };
    other.loop().spawn(produce(channel));
    while (auto number = co_await channel.receive()) total += *number;
    const auto answer = [](EventLoop& where) -> Task<int> {
      co_await sleep(1s);
      co_return EventLoop::current_or_null() == &where ? 42 : 0;
    };
    total += co_await on(other.loop(), answer(other.loop()));
  };
  host.spawn(crossing(sum));
  world.run_for(1min);
  CHECK(sum == 5050 + 42);
}

TEST_CASE("a signal that nobody awaits ends a simulated process") {
  sim::World world;
  auto& host = world.add_host("10.0.0.1");
  host.spawn(serve_echo());
  world.run_for(1s);
  host.raise(SIGWINCH);
  CHECK(host.running());
  host.raise(SIGTERM);
  CHECK(!host.running());
}

TEST_CASE("a simulated signal between two waits is told to every holder, and kills nobody") {
  sim::World world;
  auto& host = world.add_host("10.0.0.1");
  std::vector<int> by_signals;
  std::vector<int> by_signal;
  const auto hold = [](std::vector<int>& got) -> Task<> {
    Signals signals(SIGHUP, SIGUSR1);
    for (;;) {
      got.push_back(co_await signals.next());
      co_await sleep(1s);
    }
  };
  const auto wait = [](std::vector<int>& got) -> Task<> {
    for (;;) {
      got.push_back(co_await signal(SIGHUP));
      co_await sleep(1s);
    }
  };
  host.spawn(hold(by_signals));
  host.spawn(wait(by_signal));
  world.run_for(100ms);
  host.raise(SIGHUP);
  world.run_for(100ms);
  host.raise(SIGHUP);
  host.raise(SIGUSR1);
  host.raise(SIGHUP);  // one of each number is pending
  CHECK(host.running());
  world.run_for(10s);
  CHECK(by_signals == std::vector<int>{SIGHUP, SIGHUP, SIGUSR1});
  CHECK(by_signal == std::vector<int>{SIGHUP, SIGHUP});
  host.raise(SIGTERM);
  CHECK(!host.running());
}

TEST_CASE("what the simulation does not model it refuses by name") {
  sim::World world;
  auto& host = world.add_host("10.0.0.1");
  std::vector<std::string> texts;
  const auto try_all = [](std::vector<std::string>& to) -> Task<> {
    try {
      const EventLoop own;
    } catch (const std::logic_error& error) {
      to.emplace_back(error.what());
    }
    try {
      (void)EventLoop::current().run_until_complete([]() -> Task<> { co_return; }());
    } catch (const std::logic_error& error) {
      to.emplace_back(error.what());
    }
    try {
      const Acceptor acceptor(SocketAddress::parse("unix:/nowhere/socket"));
    } catch (const std::system_error& error) {
      to.emplace_back(error.what());
    }
    try {
      (void)co_await connect("nobody:7");
    } catch (const std::system_error& error) {
      to.emplace_back(error.what());
    }
  };
  host.spawn(try_all(texts));
  world.run_for(1min);
  REQUIRE(texts.size() == 4);
  CHECK(contains(texts[0], "EventLoopThread"));
  CHECK(contains(texts[2], "unix:/nowhere/socket"));
  CHECK(contains(texts[3], "nobody"));
}

TEST_CASE("a failure tells seed, time, events and the command that repeats it") {
  const std::string text = failure_of([] {
    sim::World world({.seed = 77});
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2", "client");
    server.spawn(serve_echo(), "echo");
    const auto wrong = []() -> Task<> {
      TcpConnection connection = co_await connect("server:7");
      co_await sleep(1500ms);
      throw std::runtime_error("this is not right");
    };
    client.spawn(wrong(), "the wrong one");
    world.run_for(1min);
  });
  for (const char* part :
       {"the wrong one", "this is not right", "seed 77", "virtual time 1.50", "WEIR_SIM_SEED=77",
        "host server (10.0.0.1)", "syn ack", "unfinished: echo"}) {
    CHECK_MESSAGE(contains(text, part), part << " in: " << text);
  }
}

TEST_CASE("a world in which nothing is left to happen says who waits for what") {
  const std::string text = failure_of([] {
    sim::World world;
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2", "client");
    std::vector<TcpConnection> held;
    server.spawn(accept_and_hold(held), "holder");
    int done = 0;
    client.spawn(exchange("server:7", 1, done), "asker");
    try {
      (void)world.run_until([&] { return done == 1; });
    } catch (...) {
      held.clear();
      throw;
    }
  });
  for (const char* part : {"deadlock", "unfinished: holder", "unfinished: asker",
                           "receive at 10.0.0.2:", "accept at 0.0.0.0:7"}) {
    CHECK_MESSAGE(contains(text, part), part << " in: " << text);
  }
}

TEST_CASE("a world that never comes to an end is given up after so many steps") {
  const std::string text = failure_of([] {
    sim::World world({.history = 3, .most_steps = 1000});
    int done = 0;
    world.add_host("10.0.0.1", "server").spawn(serve_echo(), "echo");
    world.add_host("10.0.0.2", "client").spawn(exchange("server:7", 1'000'000, done), "asker");
    world.run_for(1h);
  });
  CHECK_MESSAGE(contains(text, "no end after 1001 events"), text);
  CHECK(contains(text, "unfinished: asker"));
  std::size_t events = 0;
  for (std::size_t at = 0; (at = text.find("\n    0.", at)) != std::string::npos; ++at) ++events;
  CHECK_MESSAGE(events == 3 + 3, text);
}

TEST_CASE("what is left in a channel that the scenario shares with its hosts is no leak") {
  const auto say = [](Channel<std::string>& to) -> Task<> {
    (void)to.try_send("first");
    const bool sent = co_await to.send("second");
    CHECK(sent);
  };
  sim::World world;
  auto& said = world.make<Channel<std::string>>(3);
  world.add_host("10.0.0.1").spawn(say(said));
  world.run_for(1s);
  world.finish();
  CHECK(said.size() == 2);
  CHECK(said.try_receive() == "first");
}

TEST_CASE("a world notices descriptors and leases that outlive their host") {
  std::optional<Socket> kept;
  std::string text = failure_of([&kept] {
    sim::World world;
    auto& host = world.add_host("10.0.0.1");
    const auto leak = [](std::optional<Socket>& to) -> Task<> {
      to.emplace(listen(EventLoop::current().sockets(), SocketAddress::parse("10.0.0.1:7"), {}));
      co_return;
    };
    host.spawn(leak(kept));
    world.run_for(1s);
    try {
      world.finish();
    } catch (...) {
      kept.reset();  // its world still stands
      throw;
    }
  });
  CHECK(contains(text, "left descriptors open"));
  CHECK(contains(text, "10.0.0.1:7"));

  Chunk chunk;
  text = failure_of([&chunk] {
    sim::World world;
    auto& server = world.add_host("10.0.0.1", "server");
    server.spawn(serve_echo());
    const auto keep = [](Chunk& to) -> Task<> {
      TcpConnection connection = co_await connect("server:7");
      co_await connection.send("something");
      to = co_await connection.read();
    };
    server.spawn(keep(chunk));
    world.run_for(1s);
    world.finish();
  });
  CHECK(contains(text, "leases"));
  CHECK(chunk.view() == "something");
}

TEST_CASE("each fault hits where it is ordered") {
  using sim::Fault;
  for (const Fault fault :
       {Fault::short_receive, Fault::short_send, Fault::late_completion, Fault::reset,
        Fault::connection_refused, Fault::connection_lost, Fault::connection_aborted,
        Fault::no_descriptor, Fault::system_full, Fault::no_buffers, Fault::no_memory,
        Fault::interrupted, Fault::queue_overflow}) {
    CAPTURE(name_of(fault));
    sim::World world;
    auto& server = world.add_host("10.0.0.1", "server");
    auto& client = world.add_host("10.0.0.2");
    server.spawn(serve_echo());
    world.at(1s, fault, server, 2);
    int done = 0;
    const auto persist = [](int& count) -> Task<> {
      co_await sleep(2s);
      for (int i = 0; i < 3;) {
        try {
          TcpConnection connection = co_await connect("server:7");
          co_await connection.send("ping");
          const Chunk back = co_await timeout(3s, connection.read_exactly(4));
          if (back.view() == "ping") ++i;
        } catch (const std::system_error&) {
        }
      }
      ++count;
    };
    client.spawn(persist(done));
    CHECK(world.run_until([&] { return done == 1; }, 1h));
    CHECK(world.hits(fault) == 2);
  }
}

TEST_CASE("a cancel may come too late, and nothing is lost by it") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  bool done = false;
  const auto count = []() -> Task<> {
    Acceptor acceptor(SocketAddress::parse("0.0.0.0:7"));
    TcpConnection connection(co_await acceptor.accept());
    for (std::uint64_t i = 0; i < 500; ++i) {
      co_await connection.send(stream_bytes(1, i * 10, 10));
      co_await sleep(700us);
    }
  };
  const auto take = [](bool& finished) -> Task<> {
    TcpConnection connection = co_await connect("server:7");
    CheckedStream stream(1);
    while (stream.offset() < 5000) {
      auto [error, chunk] = co_await as_tuple(timeout(500us, connection.read()));
      if (!error) stream.take(chunk.view());
    }
    finished = true;
  };
  server.spawn(count());
  client.spawn(take(done));
  world.inject(sim::Fault::lost_cancel, client, 300);
  CHECK(world.run_until([&] { return done; }, 1min));
}

TEST_CASE("what an interrupted send did not take goes with the next") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  server.spawn(serve_echo());
  bool done = false;
  client.spawn([](bool& finished) -> Task<> {
    TcpConnection connection = co_await connect("server:7");
    CheckedStream stream(1);
    co_await connection.send(stream_bytes(1, 0, 5000));
    co_await connection.flush();
    while (stream.offset() < 5000) stream.take((co_await connection.read()).view());
    finished = true;
  }(done));
  // Nothing but these two sends can wake anybody again.
  world.at(0s, sim::Fault::interrupted, client, 3);
  world.at(0s, sim::Fault::interrupted, server, 3);
  CHECK(world.run_until([&] { return done; }, 1min));
  CHECK(world.hits(sim::Fault::interrupted) == 6);
}

TEST_CASE("a link that there cannot be is refused by name") {
  sim::World world;
  auto& a = world.add_host("10.0.0.1");
  auto& b = world.add_host("10.0.0.2");
  const auto complaint = [&](const sim::Link& link) -> std::string {
    try {
      world.set_link(a, b, link);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return {};
  };
  CHECK(complaint({.latency = -1ms}).find("sim::Link::latency is -1000000 ns") !=
        std::string::npos);
  CHECK(complaint({.jitter = -1ns}).find("sim::Link::jitter") != std::string::npos);
  CHECK(complaint({.loss = 1.5}).find("sim::Link::loss is 1.5") != std::string::npos);
  CHECK(complaint({.loss = -0.5}).find("sim::Link::loss") != std::string::npos);
  CHECK(complaint({.loss = 1}).empty());
  CHECK_THROWS_AS(sim::World({.faults = {.loss = 2}}), std::invalid_argument);
  world.finish();
}

TEST_CASE("links have latency and bandwidth") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2");
  world.set_link(server, client, {.latency = 50ms, .bandwidth = 1'000'000});
  server.spawn(serve_echo());
  std::chrono::nanoseconds small{};
  std::chrono::nanoseconds large{};
  const auto measure = [](sim::World& of, std::chrono::nanoseconds& one,
                          std::chrono::nanoseconds& many) -> Task<> {
    TcpConnection connection = co_await connect("server:7");
    auto start = of.now();
    co_await connection.send("x");
    (void)co_await connection.read();
    one = of.now() - start;
    start = of.now();
    const auto send = [](TcpConnection& to) -> Task<> {
      co_await to.send(stream_bytes(1, 0, 1'000'000));
    };
    co_await when_all(send(connection), connection.read_exactly(1'000'000));
    many = of.now() - start;
  };
  client.spawn(measure(world, small, large));
  world.run_for(1min);
  CHECK(small >= 100ms);
  CHECK(small < 102ms);
  CHECK(large >= 1s);
  CHECK(large < 3s);
}

TEST_CASE("explore reports the seeds that fail, and a seed repeats its failure") {
  const auto scenario = [](sim::World& world) {
    world.check(world.random() % 10 != 0, "the tenth one");
  };
  const sim::Exploration found = sim::explore({.count = 200, .most_failures = 5}, scenario);
  REQUIRE(found.failures.size() == 5);
  CHECK(contains(found.text(), "the tenth one"));
  const std::uint64_t seed = found.failures.back().seed;
  const sim::Exploration again = sim::explore({.first = seed, .count = 1}, scenario);
  REQUIRE(again.failures.size() == 1);
  CHECK(again.failures.front().text == found.failures.back().text);
}
