#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../support/net_drop.h"
#include "namespace.h"

using namespace weir;
using namespace weir::test;

namespace {

bool holds(const std::vector<SocketAddress>& addresses, const SocketAddress& wanted) {
  return std::find(addresses.begin(), addresses.end(), wanted) != addresses.end();
}

Task<std::string> text_of_failure(std::string name) {
  try {
    const auto addresses = co_await resolve(std::move(name));
  } catch (const std::exception& error) {
    co_return error.what();
  }
  co_return "";
}

/// A connect to the name arrives at the acceptor.
Task<> check_connect(Acceptor& acceptor, std::string name) {
  auto [connection, socket] = co_await when_all(connect(name), acceptor.accept());
  TcpConnection other(std::move(socket));
  co_await connection.send("hello");
  CHECK((co_await other.read_exactly(5)).view() == "hello");
  connection.force_close();
}

std::string host_and_port(const SocketAddress& address) {
  return "localhost:" + std::to_string(address.port());
}

bool has_ipv6_loopback() {
  Sockets& sockets = TestMachine::current().sockets();
  const int fd = sockets.open(AF_INET6);
  if (fd < 0) return false;
  const Peer socket(fd);
  return sockets.bind(fd, SocketAddress::parse("[::1]:0").raw()) == 0;
}

}  // namespace

TEST_CASE("localhost is resolved as the hosts file has it, without a thread left behind") {
  on_each_engine([]() -> Task<> {
    const auto addresses = co_await resolve("localhost:7000");
    REQUIRE_FALSE(addresses.empty());
    for (const auto& address : addresses) CHECK(address.port() == 7000);
    CHECK((holds(addresses, SocketAddress::parse("127.0.0.1:7000")) ||
           holds(addresses, SocketAddress::parse("[::1]:7000"))));
  });
}

TEST_CASE("addresses need no look-up, and no thread") {
  on_each_engine([]() -> Task<> {
    const std::size_t before = count_threads();
    for (const char* text : {"127.0.0.1:80", "[::1]:443", "[2001:db8::1]:65535", "0.0.0.0:0"}) {
      INFO(text);
      Task<std::vector<SocketAddress>> task = resolve(text);
      const auto addresses = co_await std::move(task);
      CHECK(count_threads() <= before);
      REQUIRE(addresses.size() == 1);
      CHECK(addresses[0] == SocketAddress::parse(text));
    }
    const auto path = co_await resolve("unix:/run/some.socket");
    REQUIRE(path.size() == 1);
    CHECK(path[0] == SocketAddress::parse("unix:/run/some.socket"));
  });
}

TEST_CASE("an IPv6 address needs no IPv6 network to be understood") {
  in_namespace([] {
    on_each_kernel_engine("no network namespaces", []() -> Task<> {
      const auto addresses = co_await resolve("[2001:db8::1]:80");
      CHECK(holds(addresses, SocketAddress::parse("[2001:db8::1]:80")));
      const auto name = co_await resolve("[::1]:http");
      CHECK(holds(name, SocketAddress::parse("[::1]:80")));
    });
  });
}

TEST_CASE("a port may be the name of a service") {
  on_each_kernel_engine("no names of services", []() -> Task<> {
    const auto addresses = co_await resolve("127.0.0.1:http");
    CHECK(holds(addresses, SocketAddress::parse("127.0.0.1:80")));
    const std::string text = co_await text_of_failure("127.0.0.1:nosuchservice");
    CHECK(text.find("127.0.0.1:nosuchservice") != std::string::npos);
  });
}

TEST_CASE("an unknown host is an error that names it") {
  on_each_engine([]() -> Task<> {
    // RFC 6761: a name that does not exist, whether there is a name server or not.
    std::error_code error;
    std::string text;
    try {
      const auto addresses = co_await timeout(kPatience, resolve("no-such-host.invalid:80"));
    } catch (const std::system_error& failure) {
      error = failure.code();
      text = failure.what();
    }
    CHECK(error);
    CHECK(text.find("no-such-host.invalid") != std::string::npos);
  });
}

TEST_CASE("a name that cannot be looked up for want of descriptors is not said to be unknown") {
  on_each_kernel_engine("its names need no descriptor", []() -> Task<> {
    std::error_code error;
    {
      const NoDescriptorsLeft exhausted;
      auto [failure, addresses] = co_await as_tuple(resolve("localhost:7000"));
      error = failure;
    }
    CHECK(error == std::errc::too_many_files_open);
    const auto addresses = co_await resolve("localhost:7000");
    CHECK_FALSE(addresses.empty());
  });
}

TEST_CASE("a text that is no host and port is an invalid argument that shows it") {
  on_each_engine([]() -> Task<> {
    using namespace std::string_literals;
    for (const std::string& text : {""s,
                                    "localhost"s,
                                    ":80"s,
                                    "localhost:"s,
                                    "::1:80"s,
                                    "1:2:3"s,
                                    "[::1]"s,
                                    "[]:80"s,
                                    "localhost:99999"s,
                                    "localhost:65536"s,
                                    "localhost:-1"s,
                                    "localhost:+80"s,
                                    "localhost: 80"s,
                                    "localhost:80 "s,
                                    "localhost:4294967376"s,
                                    "127.0.0.1:70000"s,
                                    "local\0host:80"s,
                                    "localhost:8\0000"s,
                                    "unix:"s,
                                    "unix:"s + std::string(200, 'x')}) {
      INFO(text);
      CHECK_THROWS_AS((void)co_await resolve(text), std::invalid_argument);
      CHECK_THROWS_AS((void)co_await connect(text), std::invalid_argument);
    }
    CHECK((co_await text_of_failure("localhost:99999")).find("99999") != std::string::npos);
    CHECK((co_await text_of_failure("[::1]")).find("the port is missing") != std::string::npos);
  });
}

TEST_CASE("more look-ups than threads at once all get their answer") {
  on_each_engine([]() -> Task<> {
    std::vector<Task<std::vector<SocketAddress>>> tasks;
    for (int i = 0; i < 300; ++i) tasks.push_back(resolve("localhost:" + std::to_string(i + 1)));
    const auto all = co_await when_all(std::move(tasks));
    for (std::size_t i = 0; i < all.size(); ++i) {
      REQUIRE_FALSE(all[i].empty());
      CHECK(all[i][0].port() == i + 1);
    }
  });
}

TEST_CASE("connect goes to a name and an address") {
  on_each_engine([]() -> Task<> {
    Acceptor v4(loopback());
    co_await check_connect(v4, v4.address().to_string());
    const auto addresses = co_await resolve(host_and_port(v4.address()));
    if (holds(addresses, v4.address())) co_await check_connect(v4, host_and_port(v4.address()));
    if (has_ipv6_loopback()) {
      Acceptor v6(SocketAddress::parse("[::1]:0"));
      co_await check_connect(v6, v6.address().to_string());
    } else {
      MESSAGE("skipped: no IPv6 here");
    }
  });
}

TEST_CASE("connect goes to a Unix path") {
  on_each_kernel_engine("no Unix sockets", []() -> Task<> {
    const auto directory = std::filesystem::temp_directory_path();
    const std::string path =
        "unix:" + (directory / ("weir-resolver-" + std::to_string(::getpid()))).string();
    Acceptor local(SocketAddress::parse(path));
    co_await check_connect(local, path);
  });
}

TEST_CASE("connect gives the error when nobody listens, and does not try for ever") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    auto [error, none] = co_await as_tuple(connect(port.address().to_string()));
    CHECK(error == std::errc::connection_refused);
    const BlackHole hole;
    auto [late, nothing] =
        co_await as_tuple(connect(hole.address().to_string(), {.timeout = 20ms}));
    CHECK(late == std::errc::timed_out);
  });
}

TEST_CASE("the second address is tried at once when the first refuses") {
  on_each_engine([]() -> Task<> {
    const RefusingPort port;
    Acceptor acceptor(loopback());
    std::vector<SocketAddress> addresses{port.address(), acceptor.address()};
    const Socket socket = co_await timeout(kPatience, connect_any(addresses, 1h));
    CHECK(socket.peer_address() == acceptor.address());
  });
}

TEST_CASE("the second address is tried after attempt_delay when the first is silent") {
  on_each_engine([]() -> Task<> {
    const BlackHole hole;
    Acceptor acceptor(loopback());
    const std::size_t before = count_descriptors();
    const TimePoint start = time_now();
    std::vector<SocketAddress> addresses{hole.address(), acceptor.address()};
    {
      const Socket socket = co_await connect_any(addresses, 30ms);
      CHECK(time_now() - start >= 30ms);
      CHECK(socket.peer_address() == acceptor.address());
      const Socket accepted = co_await acceptor.accept();
      co_await turn_until([&] { return count_descriptors() == before + 2; });
    }
    co_await turn_until([&] { return count_descriptors() == before; });
  });
}

TEST_CASE("an address that fails at once does not shorten the delay of those behind it") {
  on_each_engine([]() -> Task<> {
    const BlackHole hole;
    Acceptor acceptor(loopback());
    // A refused loopback connect fails in the call itself, or so soon that it does not matter.
    const SocketAddress nowhere = SocketAddress::parse("unix:/nowhere/at/all");
    std::vector<SocketAddress> addresses{nowhere, hole.address(), acceptor.address()};
    // Of one family but the first: they keep their order.
    const TimePoint start = time_now();
    const Socket socket = co_await connect_any(addresses, 50ms);
    CHECK(time_now() - start >= 50ms);
    CHECK(socket.peer_address() == acceptor.address());
  });
}

TEST_CASE("the first address wins, if late, over others that are silent") {
  on_each_engine([]() -> Task<> {
    BlackHole late;
    const BlackHole hole;
    std::vector<SocketAddress> addresses{late.address(), hole.address()};
    std::optional<Socket> socket;
    const auto connect = [&]() -> Task<> { socket = co_await connect_any(addresses, 1ms); };
    TaskGroup group;
    group.spawn(connect());
    co_await sleep(20ms);
    CHECK_FALSE(socket);
    late.open_up();
    co_await group.join();  // the system repeats its SYN after 1 s
    REQUIRE(socket);
    CHECK(socket->peer_address() == late.address());
  });
}

TEST_CASE("when all addresses fail, the last error comes; with none, an error too") {
  on_each_engine([]() -> Task<> {
    const RefusingPort one;
    const RefusingPort other;
    std::vector<SocketAddress> addresses{one.address(), other.address()};
    auto [error, socket] = co_await as_tuple(connect_any(addresses, 1ms));
    CHECK(error == std::errc::connection_refused);
    auto [empty, nothing] = co_await as_tuple(connect_any({}, 1ms));
    CHECK(empty == std::errc::address_not_available);
  });
}

TEST_CASE("the families take turns, beginning with the first") {
  on_each_engine([]() -> Task<> {
    if (!has_ipv6_loopback()) {
      MESSAGE("skipped: no IPv6 here");
      co_return;
    }
    // Two IPv4 addresses before the IPv6 one, which comes second all the same: at once, for the
    // first refuses, while whoever stands behind the silent one waits for long.
    const RefusingPort first;
    const BlackHole silent;
    Acceptor acceptor(SocketAddress::parse("[::1]:0"));
    std::vector<SocketAddress> addresses{first.address(), silent.address(), acceptor.address()};
    const Socket socket = co_await timeout(kPatience / 3, connect_any(addresses, 1h));
    CHECK(socket.peer_address() == acceptor.address());
  });
}

TEST_CASE("a race of connects may be dropped at every moment, and leaves no descriptor") {
  struct Scenario {
    BlackHole hole;
    RefusingPort port;
    std::optional<Acceptor> acceptor{loopback()};
    std::vector<SocketAddress> addresses{hole.address(), port.address(), acceptor->address()};
    std::size_t before = count_descriptors();

    Task<> task() {
      const Socket socket = co_await connect_any(addresses, 2ms);
      CHECK(socket.peer_address() == acceptor->address());
    }
    Task<> afterwards(bool) {
      acceptor.reset();  // and with it what it accepted
      co_await turn_until([this] { return count_descriptors() <= before; });
    }
  };
  drop_everywhere([] { return std::make_unique<Scenario>(); });
}

TEST_CASE("a connect by name may be dropped at every moment") {
  struct Scenario {
    Acceptor acceptor{loopback()};

    Task<> task() {
      const auto addresses = co_await resolve(host_and_port(acceptor.address()));
      if (!holds(addresses, acceptor.address())) co_return;
      const TcpConnection connection = co_await connect(host_and_port(acceptor.address()));
      CHECK(connection);
    }
    Task<> afterwards(bool) { co_return; }
  };
  drop_everywhere([] { return std::make_unique<Scenario>(); });
}

TEST_CASE("a loop may end while names are being resolved") {
  const LookupsEnd lookups_end;
  for_each_engine([](Engine engine) {
    for (int i = 0; i < 20; ++i) {
      EventLoop loop(LoopOptions{.engine = engine});
      const auto look_up = []() -> Task<> { (void)co_await resolve("localhost:1"); };
      for (int j = 0; j < 10; ++j) loop.spawn(look_up());
      loop.run_until_complete(turns(i % 3));
    }
  });
}

TEST_CASE("a wrong option of connect throws, and the text names it and its value") {
  on_each_engine([]() -> Task<> {
    const auto text = [](ConnectOptions options) -> Task<std::string> {
      try {
        const TcpConnection connection = co_await connect("127.0.0.1:1", options);
      } catch (const std::invalid_argument& error) {
        co_return error.what();
      }
      co_return "";
    };
    const auto names = [](const std::string& what, const char* option, const char* value) {
      INFO(what);
      CHECK(what.find(option) != std::string::npos);
      CHECK(what.find(value) != std::string::npos);
    };
    names(co_await text({.attempt_delay = -5ms}), "attempt_delay", "-5 ms");
    names(co_await text({.timeout = -6ms}), "timeout", "-6 ms");
    names(co_await text({.connection = {.water_marks = {.high = 10, .low = 20}}}), "low", "20");
    names(co_await text({.connection = {.water_marks = {.high = 0, .low = 0}}}), "high", "0");
    names(co_await text({.connection = {.input_high = 0}}), "input_high", "0");
    names(co_await text({.connection = {.linger = -7ms}}), "linger", "-7");
    std::vector<SocketAddress> addresses{SocketAddress::parse("127.0.0.1:1")};
    CHECK_THROWS_AS((void)co_await connect_any(addresses, -1ms), std::invalid_argument);
  });
}
