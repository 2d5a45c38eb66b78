#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../support/directory.h"
#include "../support/net.h"
#include "../support/process.h"

using namespace weir;
using namespace weir::test;

namespace {

SocketAddress unix_address(const std::filesystem::path& path) {
  return SocketAddress::parse("unix:" + path.string());
}

SocketAddress abstract_address() {
  return SocketAddress::parse("unix:@weir-test-" + std::to_string(::getpid()));
}

Task<> echo(TcpConnection connection) {
  while (Chunk data = co_await connection.read()) co_await connection.send(std::move(data));
}

/// Acceptor and Connector, one at each end.
Task<> check_pair(SocketAddress address) {
  Acceptor acceptor(address);
  CHECK(acceptor.address() == address);
  const Connector connector(address);
  auto [ours, theirs] = co_await when_all(connector.connect(), acceptor.accept());
  TcpConnection a(std::move(ours));
  TcpConnection b(std::move(theirs));
  CHECK(a.peer_address() == address);
  CHECK(b.local_address() == address);
  const std::string bytes = pattern(300'000);
  const auto send = [&]() -> Task<> {
    co_await a.send(bytes);
    co_await a.shutdown();
  };
  std::string received;
  const auto receive = [&]() -> Task<> {
    while (const Chunk chunk = co_await b.read()) received += chunk.view();
  };
  co_await when_all(send(), receive());
  CHECK(received == bytes);
}

/// As a server that crashed leaves it: a file, and nobody who listens.
void leave_stale(const SocketAddress& address) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const RawAddress& raw = address.raw();
  REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(raw.bytes), raw.size) == 0);
  ::close(fd);
}

}  // namespace

TEST_CASE("acceptor and connector meet at a Unix path, which goes with the acceptor") {
  const Directory directory;
  on_each_kernel_engine("no Unix sockets", [&]() -> Task<> {
    const auto path = directory / "socket";
    co_await check_pair(unix_address(path));
    CHECK_FALSE(std::filesystem::exists(path));
  });
}

TEST_CASE("acceptor and connector meet at an abstract name, which is free at once afterwards") {
  on_each_kernel_engine("no Unix sockets", []() -> Task<> {
    co_await check_pair(abstract_address());
    co_await turns(3);
    co_await check_pair(abstract_address());
    co_await turns(3);
  });
}

TEST_CASE("the end is told over a Unix socket, whatever came before it and however it was read") {
  // After many results in a row io_uring's multishot receive would not notice the end (Linux 6.18).
  for (const std::uint32_t buffer_size : {64U, 512U, 4096U}) {
    CAPTURE(buffer_size);
    LoopOptions loop;
    loop.buffer_size = buffer_size;
    const auto body = [&]() -> Task<> {
      for (const std::size_t input_high : {512U, 8191U, 1U << 20}) {
        const std::size_t size = 200'000;
        CAPTURE(input_high);
        ConnectionOptions options;
        options.input_high = input_high;
        Acceptor acceptor(abstract_address());
        const Connector connector(acceptor.address());
        auto [ours, theirs] = co_await when_all(connector.connect(), acceptor.accept());
        TcpConnection a(std::move(ours));
        TcpConnection b(std::move(theirs), options);
        const std::string bytes = pattern(size);
        const auto send = [&]() -> Task<> {
          co_await a.send(bytes);
          co_await a.shutdown();
        };
        std::size_t received = 0;
        const auto receive = [&]() -> Task<> {
          while (const Chunk chunk = co_await b.read()) received += chunk.size();
        };
        co_await when_all(send(), receive());
        CHECK(received == size);
        acceptor.close();
        co_await turns(3);
      }
    };
    on_each_kernel_engine("no Unix sockets", body, loop);
  }
}

TEST_CASE("server and client meet at a Unix path") {
  const Directory directory;
  on_each_kernel_engine("no Unix sockets", [&]() -> Task<> {
    ServerOptions options;
    options.address = unix_address(directory / "socket");
    TcpServer server(EventLoop::current(), options);
    server.start(echo);
    CHECK(server.address() == options.address);
    TcpClient client({.address = options.address});
    std::string heard;
    co_await client.run([&](TcpConnection& connection) -> Task<> {
      co_await connection.send("hello");
      const Chunk chunk = co_await connection.read_exactly(5);
      heard = chunk.view();
      client.stop();
      co_await sleep(1h);
    });
    CHECK(heard == "hello");
    TcpConnection connection = co_await connect("unix:" + (directory / "socket").string());
    co_await connection.send("again");
    CHECK((co_await connection.read_exactly(5)).view() == "again");
    // Every client of a Unix path is the same peer, and has no address of its own.
    server.for_each_connection([](TcpConnection& one) { CHECK_FALSE(one.name().empty()); });
  });
  CHECK_FALSE(std::filesystem::exists(directory / "socket"));
}

TEST_CASE("a client of a Unix path reconnects when the file comes back") {
  const Directory directory;
  on_each_kernel_engine("no Unix sockets", [&]() -> Task<> {
    const auto address = unix_address(directory / "socket");
    TcpClient client({.address = address, .connector = {.initial_delay = 2ms, .max_delay = 4ms}});
    TaskGroup group;
    group.spawn(client.run([](TcpConnection& connection) -> Task<> {
      while (const Chunk data = co_await connection.read()) {
      }
    }));
    for (std::uint64_t round = 1; round <= 3; ++round) {
      co_await sleep(5ms);
      Acceptor acceptor(address);
      const Socket socket = co_await acceptor.accept();
      co_await turn_until([&] { return client.connects() == round; });
    }
    client.stop();
    co_await group.join();
  });
}

TEST_CASE("a stale socket file is replaced") {
  const Directory directory;
  on_each_kernel_engine("no Unix sockets", [&]() -> Task<> {
    const auto address = unix_address(directory / "socket");
    leave_stale(address);
    co_await check_pair(address);
  });
}

TEST_CASE("a path on which somebody listens, or that is no socket, is left alone") {
  const Directory directory;
  on_each_kernel_engine("no Unix sockets", [&]() -> Task<> {
    const auto address = unix_address(directory / "socket");
    const Acceptor first(address);
    const std::string text = text_of<std::system_error>([&] { const Acceptor second(address); });
    CHECK(text.find(address.to_string()) != std::string::npos);
    CHECK(std::filesystem::exists(directory / "socket"));
    const auto file = directory / "file";
    std::ofstream(file) << "somebody's data";
    CHECK_THROWS_AS(Acceptor{unix_address(file)}, std::system_error);
    CHECK(std::filesystem::file_size(file) == 15);
    co_await turns(1);
  });
}

TEST_CASE("a Unix socket's file has the permissions asked for, whatever the umask") {
  const Directory directory;
  on_each_kernel_engine("no Unix sockets", [&]() -> Task<> {
    const auto path = directory / "socket";
    const auto mode = [&] {
      struct stat info{};
      return ::stat(path.c_str(), &info) == 0 ? info.st_mode & 07777 : 0;
    };
    for (const mode_t mask : {mode_t{0022}, mode_t{0077}, mode_t{0}}) {
      const mode_t before = ::umask(mask);
      {
        const Acceptor acceptor(unix_address(path));
        CHECK(mode() == 0660);
      }
      AcceptorOptions options;
      options.unix_mode = 0606;
      {
        const Acceptor acceptor(unix_address(path), options);
        CHECK(mode() == 0606);
      }
      ServerOptions server_options;
      server_options.address = unix_address(path);
      server_options.unix_mode = 0600;
      TcpServer server(EventLoop::current(), server_options);
      server.start(echo);
      CHECK(mode() == 0600);
      ::umask(before);
    }
    AcceptorOptions options;
    options.unix_mode = 01777;
    CHECK_THROWS_AS(Acceptor(unix_address(path), options), std::invalid_argument);
    co_return;
  });
}

TEST_CASE("who cannot bind a path that is in use leaves its owner alone, listening or about to") {
  on_each_kernel_engine("no Unix sockets", []() -> Task<> {
    const Directory directory;
    const SocketAddress address = unix_address(directory / "socket");
    {
      const Peer bound(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const RawAddress& raw = address.raw();
      REQUIRE(::bind(bound.fd(), reinterpret_cast<const sockaddr*>(raw.bytes), raw.size) == 0);
      CHECK_THROWS_AS(Acceptor{address}, std::system_error);
      CHECK(std::filesystem::exists(directory / "socket"));
    }
    Acceptor acceptor(address);
    CHECK_THROWS_AS(Acceptor{address}, std::system_error);
    Peer peer = Peer::connect(address);
    peer.send("x");
    TcpConnection first(co_await acceptor.accept());
    const Chunk said = co_await first.read();
    CHECK(said.view() == "x");
  });
}

TEST_CASE("a stale socket file that is not ours, and a link to one, are left alone") {
  const Directory directory;
  on_each_kernel_engine("no Unix sockets", [&]() -> Task<> {
    const auto path = directory / "socket";
    const auto link = directory / "link";
    leave_stale(unix_address(path));
    std::filesystem::create_symlink(path, link);
    CHECK_THROWS_AS(Acceptor{unix_address(link)}, std::system_error);
    CHECK(std::filesystem::exists(path));
    std::filesystem::remove(link);
    if (::chown(path.c_str(), 12345, static_cast<gid_t>(-1)) == 0) {
      CHECK_THROWS_AS(Acceptor{unix_address(path)}, std::system_error);
      CHECK(std::filesystem::exists(path));
    } else {
      MESSAGE("skipped: only root can have a file of another user");
    }
    std::filesystem::remove(path);
    co_return;
  });
}

TEST_CASE("an acceptor removes only its own file") {
  const Directory directory;
  on_each_kernel_engine("no Unix sockets", [&]() -> Task<> {
    const auto path = directory / "socket";
    auto first = std::make_unique<Acceptor>(unix_address(path));
    // Somebody took the path away and listens there now.
    std::filesystem::remove(path);
    Acceptor second(unix_address(path));
    first.reset();
    CHECK(std::filesystem::exists(path));
    const Peer client = Peer::connect(second.address());
    CHECK(co_await second.accept());
  });
}

TEST_CASE("a path has 107 bytes, and the error for more shows the limit") {
  const Directory directory;
  on_each_kernel_engine("no Unix sockets", [&]() -> Task<> {
    std::string path = (directory / "").string();
    path.append(107 - path.size(), 'x');
    co_await check_pair(unix_address(path));
    const std::string text =
        text_of<std::invalid_argument>([&] { (void)unix_address(path + "x"); });
    CHECK(text.find("107") != std::string::npos);
    CHECK(text.find("xxx") != std::string::npos);
    std::string abstract = "unix:@" + std::to_string(::getpid());
    abstract.append(6 + 106 - abstract.size(), 'y');
    co_await check_pair(SocketAddress::parse(abstract));
    CHECK_THROWS_AS(SocketAddress::parse(abstract + "yy"), std::invalid_argument);
  });
}

TEST_CASE("a full backlog of a Unix path is tried again, and comes through") {
  const Directory directory;
  on_each_kernel_engine("no Unix sockets", [&]() -> Task<> {
    const auto address = unix_address(directory / "socket");
    // A listener that nobody accepts on, with room for one or two.
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const RawAddress& raw = address.raw();
    REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(raw.bytes), raw.size) == 0);
    REQUIRE(::listen(fd, 0) == 0);
    std::vector<Socket> fillers;
    const Connector once(address, {.max_attempts = 1});
    std::error_code full;
    while (!full) {
      auto [error, socket] = co_await as_tuple(once.connect());
      full = error;
      if (!error) fillers.push_back(std::move(socket));
    }
    CHECK(full == std::errc::resource_unavailable_try_again);
    const Connector connector(address, {.initial_delay = 1ms, .max_delay = 2ms});
    std::optional<Socket> connected;
    const auto connect = [&]() -> Task<> { connected = co_await connector.connect(); };
    TaskGroup group;
    group.spawn(connect());
    co_await sleep(5ms);
    CHECK_FALSE(connected);
    const int accepted = ::accept(fd, nullptr, nullptr);
    co_await group.join();
    CHECK(connected);
    ::close(accepted);
    ::close(fd);
    std::filesystem::remove(directory / "socket");
  });
}
