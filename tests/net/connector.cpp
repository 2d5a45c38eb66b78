#include <weir/sim.h>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "../support/net_drop.h"
#include "namespace.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Quick tries: what the tests below wait for.
ConnectorOptions quick(unsigned max_attempts = 0) {
  return {.initial_delay = 1ms, .max_delay = 4ms, .max_attempts = max_attempts};
}

Task<std::error_code> error_of(Task<Socket> connect) {
  auto [error, socket] = co_await as_tuple(std::move(connect));
  co_return error;
}

}  // namespace

TEST_CASE("a connector connects, and its socket leads to the listener") {
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    const Connector connector(acceptor.address());
    CHECK(connector.address() == acceptor.address());
    auto [ours, theirs] = co_await when_all(connector.connect(), acceptor.accept());
    CHECK(ours.peer_address() == acceptor.address());
    CHECK(ours.local_address() == theirs.peer_address());
    TcpConnection a(std::move(ours));
    TcpConnection b(std::move(theirs));
    co_await a.send("through");
    CHECK((co_await b.read_exactly(7)).view() == "through");
  });
}

TEST_CASE("a connector's socket is closed on exec and does not block") {
  on_each_kernel_engine("its descriptors have no flags", []() -> Task<> {
    const Acceptor acceptor(loopback());
    const Socket socket = co_await Connector(acceptor.address()).connect();
    CHECK((::fcntl(socket.fd(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((::fcntl(socket.fd(), F_GETFL) & O_NONBLOCK) != 0);
  });
}

TEST_CASE("a try begins where and when it is awaited") {
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    const std::size_t before = count_descriptors();
    Task<Socket> one = Connector(acceptor.address()).try_once();
    CHECK(count_descriptors() == before);
    auto [ours, theirs] = co_await when_all(std::move(one), acceptor.accept());
    CHECK(ours.local_address() == theirs.peer_address());
  });
  for_each_engine([](Engine engine) {
    LoopOptions options;
    options.engine = engine;
    EventLoop loop(options);
    const EventLoop::Entered entered(loop);
    const Socket listener = listen(loop.sockets(), loopback());
    std::thread([address = listener.local_address()] {
      const Socket socket = run(Connector(address).try_once());  // made where no loop runs
      CHECK(socket.peer_address() == address);
    }).join();
  });
}

TEST_CASE("a connector may start before the server: it tries until a listener appears") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    const Connector connector(port.address(), quick());
    std::optional<Socket> connected;
    const auto connect = [&]() -> Task<> { connected = co_await connector.connect(); };
    TaskGroup group;
    group.spawn(connect());
    co_await sleep(20ms);
    CHECK_FALSE(connected);
    Acceptor acceptor(port.take_over());
    const Socket theirs = co_await acceptor.accept();
    co_await group.join();
    REQUIRE(connected);
    CHECK(connected->local_address() == theirs.peer_address());
  });
}

TEST_CASE("each try is a new socket, and max_attempts counts them") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    const std::size_t before = count_descriptors();
    const Connector connector(port.address(), quick(7));
    const std::uint64_t slept = EventLoop::current().metrics().timers_fired;
    const auto error = co_await error_of(connector.connect());
    CHECK(error == std::errc::connection_refused);
    // Six delays between seven tries.
    CHECK(EventLoop::current().metrics().timers_fired - slept == 6);
    CHECK(count_descriptors() == before);
  });
}

TEST_CASE("an error of connect names the address") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    const Connector connector(port.address(), quick(1));
    std::string text;
    try {
      const Socket socket = co_await connector.connect();
    } catch (const std::system_error& error) {
      text = error.what();
    }
    CHECK(text.find(port.address().to_string()) != std::string::npos);
    CHECK(text.find("refused") != std::string::npos);
  });
}

TEST_CASE("delays double up to max_delay") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    const Connector connector(
        port.address(), {.initial_delay = 10ms, .max_delay = 40ms, .jitter = 0, .max_attempts = 6});
    const TimePoint start = time_now();
    const auto error = co_await error_of(connector.connect());
    const auto took = time_now() - start;
    CHECK(error == std::errc::connection_refused);
    CHECK(took >= 150ms);  // 10 + 20 + 40 + 40 + 40
    // A slow machine may add to it; on the simulation only loopback does.
    if (EventLoop::current().engine_name() == "simulation") CHECK(took < 170ms);
    MESSAGE("10, 20, 40, 40, 40 ms took "
            << std::chrono::duration_cast<std::chrono::milliseconds>(took).count() << " ms");
  });
}

TEST_CASE("jitter shortens delays at random, by its part at the most") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    // 20 at once, so that what the machine adds is the same for all.
    const auto time = [&](double jitter) -> Task<std::chrono::nanoseconds> {
      const Connector connector(
          port.address(),
          {.initial_delay = 100ms, .max_delay = 100ms, .jitter = jitter, .max_attempts = 2});
      const TimePoint start = time_now();
      const auto error = co_await error_of(connector.connect());
      CHECK(error == std::errc::connection_refused);
      co_return time_now() - start;
    };
    std::vector<Task<std::chrono::nanoseconds>> tries;
    for (int i = 0; i < 20; ++i) tries.push_back(time(0.5));
    tries.push_back(time(0));
    const auto times = co_await when_all(std::move(tries));
    CHECK(times.back() >= 100ms);
    std::set<std::int64_t> different;
    std::chrono::nanoseconds least = 1h;
    for (std::size_t i = 0; i < 20; ++i) {
      CHECK(times[i] >= 50ms);
      least = std::min(least, times[i]);
      different.insert(times[i] / 5ms);
    }
    // A machine that stands still for a while makes them alike.
    if (EventLoop::current().engine_name() != "simulation") co_return;
    CHECK(least < times.back());
    CHECK(different.size() >= 4);
  });
}

TEST_CASE("a zero initial delay tries at once, and yields to others meanwhile") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    const Connector connector(port.address(), {.initial_delay = 0ms, .max_attempts = 50});
    bool others_ran = false;
    const auto other = [&]() -> Task<> {
      co_await yield();
      others_ran = true;
    };
    TaskGroup group;
    group.spawn(other());
    CHECK(co_await error_of(connector.connect()) == std::errc::connection_refused);
    CHECK(others_ran);
  });
}

TEST_CASE("tries that fail at once, without a delay between them, leave others their turn") {
  on_each_kernel_engine("no Unix sockets", []() -> Task<> {
    const auto nobody = SocketAddress::parse("unix:@weir-nobody-" + std::to_string(::getpid()));
    const Connector bounded(nobody, {.initial_delay = 0ms, .max_delay = 0ms, .total_timeout = 5ms});
    CHECK(co_await error_of(bounded.connect()) == std::errc::timed_out);
    const Connector endless(nobody, {.initial_delay = 0ms, .max_delay = 0ms});
    const auto first = co_await when_any(endless.connect(), sleep(5ms));
    CHECK(first.index() == 1);
    TcpClient client({.address = nobody, .connector = {.initial_delay = 0ms, .max_delay = 0ms}});
    const auto nothing = [](TcpConnection&) -> Task<> { co_return; };
    TaskGroup group;
    group.spawn(client.run(nothing));
    client.stop();
    co_await group.join();
  });
}

TEST_CASE("a connector to a host resolves its name anew for each try") {
  sim::World world;
  auto& database = world.add_host("10.0.0.1", "db");
  auto& user = world.add_host("10.0.0.2");
  const auto serve = []() -> Task<> {
    // Where the name does not lead to yet.
    Acceptor acceptor(SocketAddress::parse("10.0.0.9:7"));
    std::vector<Socket> accepted;
    for (;;) accepted.push_back(co_await acceptor.accept());
  };
  std::string reached;
  std::error_code unknown;
  const auto connect = [](std::string& to, std::error_code& error) -> Task<> {
    const Connector nobody("nobody:7", {.initial_delay = 1ms, .max_attempts = 3});
    error = co_await error_of(nobody.connect());
    const Connector connector("db:7", {.initial_delay = 1s, .max_delay = 1s});
    const Socket socket = co_await connector.connect();
    to = socket.peer_address().to_string();
    co_await sleep(1h);
  };
  user.spawn(connect(reached, unknown));
  world.run_for(10s);
  CHECK(unknown == errc::not_found);
  CHECK(reached.empty());
  database.add_address("10.0.0.9");
  database.spawn(serve());
  world.run_for(10s);
  CHECK(reached == "10.0.0.9:7");
}

TEST_CASE("fatal errors end the connect at the first try") {
  on_each_engine([]() -> Task<> {
    RawAddress raw;
    sockaddr family{};
    family.sa_family = AF_MAX + 1;
    std::memcpy(raw.bytes, &family, sizeof family);
    raw.size = sizeof family;
    const Connector strange{SocketAddress(raw), {.initial_delay = 30s}};
    CHECK(co_await error_of(strange.connect()) == std::errc::address_family_not_supported);
  });
  on_each_kernel_engine("no Unix sockets", []() -> Task<> {
    const Connector below_a_file(SocketAddress::parse("unix:/dev/null/x"), {.initial_delay = 30s});
    CHECK(co_await error_of(below_a_file.connect()) == std::errc::not_a_directory);
  });
}

TEST_CASE("what the routes forbid is fatal, what they do not know is tried again") {
  in_namespace([] {
    REQUIRE(std::system("ip route add prohibit 192.0.2.0/25") == 0);
    REQUIRE(std::system("ip route add unreachable 192.0.2.128/25") == 0);
    on_each_kernel_engine("no network namespaces", []() -> Task<> {
      const Connector forbidden(SocketAddress::parse("192.0.2.1:80"), {.initial_delay = 30s});
      CHECK(co_await error_of(forbidden.connect()) == std::errc::permission_denied);
      const Connector no_host(SocketAddress::parse("192.0.2.129:80"), quick(3));
      CHECK(co_await error_of(no_host.connect()) == std::errc::host_unreachable);
      const Connector no_network(SocketAddress::parse("198.51.100.1:80"), quick(3));
      CHECK(co_await error_of(no_network.connect()) == std::errc::network_unreachable);
      const Connector broadcast(SocketAddress::parse("127.255.255.255:80"), quick(3));
      CHECK(co_await error_of(broadcast.connect()) == std::errc::network_unreachable);
    });
  });
}

TEST_CASE("a Unix path without a server is tried again") {
  on_each_kernel_engine("no Unix sockets", []() -> Task<> {
    const Connector nowhere(SocketAddress::parse("unix:/nowhere/at/all"), quick(3));
    CHECK(co_await error_of(nowhere.connect()) == std::errc::no_such_file_or_directory);
  });
}

TEST_CASE("which errors of a connect are tried again") {
  for (const int error : {ECONNREFUSED, EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH, EHOSTUNREACH,
                          ETIMEDOUT, EAGAIN, ECONNRESET, EINTR, ENOENT, EMFILE, ENFILE}) {
    INFO(error);
    CHECK(is_retriable(error));
  }
  for (const int error :
       {EACCES, EPERM, EAFNOSUPPORT, EBADF, EFAULT, ENOTSOCK, EPROTOTYPE, EINVAL, ENOTDIR, 0}) {
    INFO(error);
    CHECK_FALSE(is_retriable(error));
  }
}

TEST_CASE("attempt_timeout bounds a try to a server whose backlog is full") {
  on_each_engine([]() -> Task<> {
    const BlackHole hole;
    const std::size_t before = count_descriptors();
    const Connector connector(
        hole.address(),
        {.initial_delay = 1ms, .max_delay = 1ms, .max_attempts = 3, .attempt_timeout = 20ms});
    const TimePoint start = time_now();
    CHECK(co_await error_of(connector.connect()) == std::errc::timed_out);
    CHECK(time_now() - start >= 60ms);
    co_await turn_until([&] { return count_descriptors() == before; });
  });
}

TEST_CASE("a server that takes its backlog in again is reached by a later try") {
  on_each_engine([]() -> Task<> {
    BlackHole hole;
    const Connector connector(hole.address(), {.initial_delay = 1ms,
                                               .max_delay = 1ms,
                                               .attempt_timeout = 20ms,
                                               .total_timeout = kPatience});
    std::optional<Socket> connected;
    const auto connect = [&]() -> Task<> { connected = co_await connector.connect(); };
    TaskGroup group;
    group.spawn(connect());
    co_await sleep(50ms);
    CHECK_FALSE(connected);
    hole.open_up();
    co_await group.join();
    CHECK(connected);
  });
}

TEST_CASE("total_timeout bounds a connect, in a try and in a delay") {
  on_each_engine([]() -> Task<> {
    const BlackHole hole;
    const Connector in_a_try(hole.address(), {.attempt_timeout = 0ms, .total_timeout = 20ms});
    CHECK(co_await error_of(in_a_try.connect()) == std::errc::timed_out);
    const RefusingPort port;
    const Connector in_a_delay(port.address(), {.initial_delay = 30s, .total_timeout = 20ms});
    CHECK(co_await error_of(in_a_delay.connect()) == std::errc::timed_out);
  });
}

TEST_CASE("a connector is reusable: each connect starts afresh") {
  on_each_engine([]() -> Task<> {
    RefusingPort port;
    const Connector connector(port.address(), quick(2));
    CHECK(co_await error_of(connector.connect()) == std::errc::connection_refused);
    CHECK(co_await error_of(connector.connect()) == std::errc::connection_refused);
    Acceptor acceptor(port.take_over());
    for (int i = 0; i < 3; ++i) {
      auto [ours, theirs] = co_await when_all(connector.connect(), acceptor.accept());
      CHECK(ours.local_address() == theirs.peer_address());
    }
    // Two at the same time do not meet either.
    auto [one, other] = co_await when_all(connector.connect(), connector.connect());
    CHECK(one.local_address() != other.local_address());
    auto [third, once] = co_await when_all(connector.try_once(), acceptor.accept());
    CHECK(third);
  });
}

TEST_CASE("a connect outlives its connector") {
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    std::optional<Connector> connector(std::in_place, acceptor.address());
    Task<Socket> connect = connector->connect();
    connector.reset();
    CHECK(co_await std::move(connect));
  });
}

TEST_CASE("a connect may be dropped at every moment, and leaves no descriptor") {
  struct Scenario {
    RefusingPort port;
    Connector connector{port.address(), quick()};
    std::optional<Acceptor> acceptor;
    std::size_t before = count_descriptors();
    int accepted = 0;

    Task<> serve() {
      co_await sleep(2ms);
      acceptor.emplace(port.take_over());
      for (;;) {
        const Socket socket = co_await acceptor->accept();
        ++accepted;
      }
    }
    Task<> task() {
      TaskGroup server;
      server.spawn(serve());
      Socket socket = co_await connector.connect();
      CHECK(socket);
      TcpConnection connection(std::move(socket));
      const Chunk end = co_await connection.read();
      CHECK_FALSE(end);
    }
    Task<> afterwards(bool finished) {
      if (finished) CHECK(accepted == 1);
      acceptor.reset();
      co_await turn_until([this] { return count_descriptors() <= before; });
    }
  };
  drop_everywhere([] { return std::make_unique<Scenario>(); });
}

TEST_CASE("a connect in its delay, and one in a try at a silent server, may be dropped") {
  on_each_engine([]() -> Task<> {
    const BlackHole hole;
    const RefusingPort port;
    const std::size_t before = count_descriptors();
    for (int i = 0; i < 50; ++i) {
      std::optional<TaskGroup> group(std::in_place);
      const auto connect = [](SocketAddress address, ConnectorOptions options) -> Task<> {
        const Socket socket = co_await Connector(address, options).connect();
      };
      group->spawn(connect(hole.address(), {}));
      group->spawn(connect(hole.address(), {.attempt_timeout = {}}));
      group->spawn(connect(port.address(), {}));
      group->spawn(connect(port.address(), {.total_timeout = 1h}));
      co_await turns(i % 5);
      group.reset();
    }
    co_await turn_until([&] { return count_descriptors() == before; });
  });
}

TEST_CASE("a loop may end with connects under way") {
  for_each_engine([](Engine engine) {
    const BlackHole hole;
    const RefusingPort port;
    EventLoop loop(LoopOptions{.engine = engine});
    const auto connect = [](SocketAddress address) -> Task<> {
      const Socket socket = co_await Connector(address).connect();
    };
    for (int i = 0; i < 20; ++i) {
      loop.spawn(connect(hole.address()));
      loop.spawn(connect(port.address()));
    }
    loop.run_until_complete(turns(3));
  });
}

TEST_CASE("a connect without a free descriptor is tried again, and goes through with one") {
#ifdef WEIR_SANITIZED
  // UBSan reads what an exception points to through a pipe, and takes the want of one for a fault.
  MESSAGE("skipped: the sanitizer needs a descriptor to check that the exception is one");
  return;
#endif
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    const Connector connector(acceptor.address(), quick());
    std::optional<Socket> connected;
    const auto connect = [&]() -> Task<> { connected = co_await connector.connect(); };
    TaskGroup group;
    {
      const NoDescriptorsLeft limit;
      group.spawn(connect());
      co_await sleep(10ms);
    }
    CHECK_FALSE(connected);
    co_await group.join();
    CHECK(connected);
  });
}

TEST_CASE("a connector never gives a socket that is connected to itself") {
  // A range of one port: whoever connects to that port on its own host meets itself.
  const bool done = in_namespace([] {
    set_local_ports(40000, 40000);
    const SocketAddress address = SocketAddress::parse("127.0.0.1:40000");
    {
      Peer raw = Peer::connect(address);
      CHECK(raw.local_address() == address);  // it does happen
      raw.reset();
    }
    on_each_kernel_engine("no network namespaces", [&]() -> Task<> {
      const Connector connector(address, quick(5));
      CHECK(co_await error_of(connector.connect()) == std::errc::connection_refused);
      // And the port is free for the server that was meant.
      std::optional<Acceptor> acceptor(std::in_place, address);
      set_local_ports(41000, 41100);
      auto [ours, theirs] = co_await when_all(connector.connect(), acceptor->accept());
      CHECK(ours.local_address() == theirs.peer_address());
      CHECK(ours.local_address() != address);
      set_local_ports(40000, 40000);
      acceptor.reset();
      co_await turns(3);
      const linger now{.l_onoff = 1, .l_linger = 0};
      for (const int fd : {ours.fd(), theirs.fd()}) {
        ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
      }
    });
  });
  if (done) return;
  // On the host: for about a second, and then it is as it is.
  const RefusingPort port;
  const auto end = std::chrono::steady_clock::now() + 1s;
  run([](SocketAddress address, std::chrono::steady_clock::time_point until) -> Task<> {
    const Connector connector(address);
    while (std::chrono::steady_clock::now() < until) {
      auto [error, socket] = co_await as_tuple(connector.try_once());
      CHECK(error == std::errc::connection_refused);
    }
  }(port.address(), end));
}

TEST_CASE("among a few ports a connector that meets itself goes on until the server is there") {
  const bool done = in_namespace([] {
    set_local_ports(40000, 40015);
    on_each_kernel_engine("no network namespaces", []() -> Task<> {
      const SocketAddress address = SocketAddress::parse("127.0.0.1:40004");
      const Connector connector(address, {.initial_delay = 0ms, .max_attempts = 500});
      CHECK(co_await error_of(connector.connect()) == std::errc::connection_refused);
    });
  });
  if (!done) MESSAGE("skipped: no network namespaces here");
}

TEST_CASE("a wrong option of a connector throws, and the text names it and its value") {
  const auto text = [](ConnectorOptions options) {
    return text_of<std::invalid_argument>(
        [&] { const Connector connector(loopback().with_port(1), options); });
  };
  const auto names = [](const std::string& what, const char* option, const char* value) {
    INFO(what);
    CHECK(what.find(option) != std::string::npos);
    CHECK(what.find(value) != std::string::npos);
  };
  names(text({.initial_delay = -1ms}), "initial_delay", "-1 ms");
  names(text({.initial_delay = 0ms, .max_delay = -2ms}), "max_delay", "-2 ms");
  names(text({.initial_delay = 70s}), "initial_delay", "70000 ms");
  names(text({.jitter = -0.5}), "jitter", "-0.5");
  names(text({.jitter = 1.5}), "jitter", "1.5");
  names(text({.jitter = std::numeric_limits<double>::quiet_NaN()}), "jitter", "nan");
  names(text({.attempt_timeout = -3ms}), "attempt_timeout", "-3 ms");
  names(text({.total_timeout = -4ms}), "total_timeout", "-4 ms");
  CHECK_THROWS_AS(Connector(SocketAddress{}), std::invalid_argument);
  CHECK(text({}).empty());
}

TEST_CASE("a delay may be as long as its type allows") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    const Connector connector(port.address(), {.initial_delay = std::chrono::milliseconds::max(),
                                               .max_delay = std::chrono::milliseconds::max(),
                                               .attempt_timeout = std::chrono::milliseconds::max(),
                                               .total_timeout = 20ms});
    CHECK(co_await error_of(connector.connect()) == std::errc::timed_out);
    const Connector long_total(port.address(), {.initial_delay = 0ms,
                                                .max_attempts = 2,
                                                .total_timeout = std::chrono::milliseconds::max()});
    CHECK(co_await error_of(long_total.connect()) == std::errc::connection_refused);
  });
}
