#include <weir/sim.h>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "../support/allocations.h"
#include "../support/net.h"
#include "../support/process.h"
#include "../support/simulation.h"

using namespace weir;
using namespace weir::test;

namespace {

Task<> accept_into(Acceptor& acceptor, std::vector<Socket>& accepted) {
  accepted.push_back(co_await acceptor.accept());
}

/// Bytes go through: the socket is a live connection to that peer.
Task<> check_connected(Socket socket, Peer& peer) {
  TcpConnection connection(std::move(socket));
  peer.send("ping");
  const Chunk chunk = co_await connection.read_exactly(4);
  CHECK(chunk.view() == "ping");
}

}  // namespace

TEST_CASE("clients are accepted in the order in which they came, whoever asks first") {
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    CHECK(acceptor.address().port() != 0);
    std::vector<Peer> clients;
    for (int i = 0; i < 3; ++i) clients.push_back(Peer::connect(acceptor.address()));
    for (int i = 0; i < 3; ++i) {
      const Socket socket = co_await acceptor.accept();
      CHECK(socket.peer_address() == clients[static_cast<std::size_t>(i)].local_address());
      CHECK(socket.local_address() == acceptor.address());
    }
    // And the other way round: three wait, and are served in their order.
    std::vector<Socket> accepted;
    TaskGroup group;
    for (int i = 0; i < 3; ++i) group.spawn(accept_into(acceptor, accepted));
    clients.clear();
    for (int i = 0; i < 3; ++i) clients.push_back(Peer::connect(acceptor.address()));
    co_await group.join();
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(accepted[i].peer_address() == clients[i].local_address());
    }
  });
}

TEST_CASE("a dropped accept hands its connection to the next one") {
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    std::vector<Socket> accepted;
    std::optional<TaskGroup> first(std::in_place);
    TaskGroup second;
    first->spawn(accept_into(acceptor, accepted));
    second.spawn(accept_into(acceptor, accepted));
    first.reset();
    Peer client = Peer::connect(acceptor.address());
    co_await second.join();
    REQUIRE(accepted.size() == 1);
    co_await check_connected(std::move(accepted[0]), client);
  });
}

TEST_CASE("an accept dropped when its client was there already gives it back, in its place") {
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    std::vector<Socket> accepted;
    std::optional<TaskGroup> group(std::in_place);
    group->spawn(accept_into(acceptor, accepted));
    co_await turns(1);  // the listener is armed
    std::vector<Peer> clients;
    const auto before = completions();
    for (int i = 0; i < 3; ++i) clients.push_back(Peer::connect(acceptor.address()));
    before_resuming(before, 1, [&] { group.reset(); });
    co_await completed(before, 3);
    CHECK(accepted.empty());
    for (Peer& client : clients) {
      Socket socket = co_await acceptor.accept();
      CHECK(socket.peer_address() == client.local_address());
      co_await check_connected(std::move(socket), client);
    }
  });
}

TEST_CASE("an accept dropped with its client there serves the next who waits") {
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    std::vector<Socket> accepted;
    std::optional<TaskGroup> first(std::in_place);
    TaskGroup second;
    first->spawn(accept_into(acceptor, accepted));
    second.spawn(accept_into(acceptor, accepted));
    co_await turns(1);
    const auto before = completions();
    Peer client = Peer::connect(acceptor.address());
    before_resuming(before, 1, [&] { first.reset(); });
    co_await second.join();
    REQUIRE(accepted.size() == 1);
    co_await check_connected(std::move(accepted[0]), client);
  });
}

TEST_CASE("closing an acceptor wakes all who wait with operation_canceled") {
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    int cancelled = 0;
    const auto wait = [&]() -> Task<> {
      auto [error, socket] = co_await as_tuple(acceptor.accept());
      if (error == std::errc::operation_canceled) ++cancelled;
    };
    TaskGroup group;
    group.spawn(wait());
    group.spawn(wait());
    acceptor.close();
    CHECK(cancelled == 0);  // in the loop's turn, not here
    co_await group.join();
    CHECK(cancelled == 2);
    CHECK_THROWS_AS(co_await acceptor.accept(), std::system_error);
    acceptor.close();  // again: nothing
  });
}

TEST_CASE("an acceptor may be destroyed under those who wait") {
  on_each_engine([]() -> Task<> {
    std::optional<Acceptor> acceptor(loopback());
    bool cancelled = false;
    const auto wait = [&]() -> Task<> {
      auto [error, socket] = co_await as_tuple(acceptor->accept());
      cancelled = error == std::errc::operation_canceled;
    };
    TaskGroup group;
    group.spawn(wait());
    co_await turns(1);
    acceptor.reset();
    co_await group.join();
    CHECK(cancelled);
  });
}

TEST_CASE("a port can be bound again as soon as its acceptor is closed") {
  on_each_engine([]() -> Task<> {
    std::optional<Acceptor> acceptor(own_loopback());
    const SocketAddress address = acceptor->address();
    for (int i = 0; i < 20; ++i) {
      Peer client = Peer::connect(address);
      const Socket socket = co_await acceptor->accept();
      acceptor->close();
      // The listener goes when the kernel has let go of the accept.
      co_await turn_until([&] { return acceptor->fd() < 0; });
      acceptor.emplace(address);
      CHECK(acceptor->address() == address);
    }
  });
}

TEST_CASE("a port can be bound again in the very turn in which its acceptor is closed") {
  on_each_engine([]() -> Task<> {
    std::optional<Acceptor> acceptor(own_loopback());
    const SocketAddress address = acceptor->address();
    for (int i = 0; i < 3; ++i) {
      co_await turns(1);  // the accept is with the kernel
      acceptor->close();
      Acceptor other(address);
      co_await turns(1);
      other.close();
      acceptor.emplace(address);
      Peer client = Peer::connect(address);
      const Socket socket = co_await acceptor->accept();
      CHECK(socket.peer_address() == client.local_address());
    }
  });
}

TEST_CASE("a listener that is shared is left to the others when one acceptor closes") {
  on_each_kernel_engine("its descriptors cannot be duplicated", []() -> Task<> {
    Sockets& sockets = EventLoop::current().sockets();
    Socket listener = listen(sockets, loopback());
    const SocketAddress address = listener.local_address();
    Acceptor first(EventLoop::current(), Socket(sockets, ::dup(listener.fd())));
    co_await turns(1);
    first.close();
    co_await turns(5);
    Acceptor second(EventLoop::current(), std::move(listener));
    Peer client = Peer::connect(address);
    const Socket socket = co_await second.accept();
    CHECK(socket.peer_address() == client.local_address());
  });
}

TEST_CASE("connections that nobody asked for are closed with their acceptor") {
  on_each_engine([]() -> Task<> {
    std::optional<Acceptor> acceptor(loopback());
    Peer client = Peer::connect(acceptor->address());
    co_await turns(5);
    acceptor.reset();
    co_await turns(5);
    const int end = co_await in_thread([&] { return client.wait_for_end(); });
    CHECK((end == 0 || end == ECONNRESET));
  });
}

TEST_CASE("a client that is gone before the accept gives a socket, not an exception") {
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    for (int i = 0; i < 3; ++i) {
      Peer client = Peer::connect(acceptor.address());
      client.reset();
    }
    Peer alive = Peer::connect(acceptor.address());
    for (int i = 0; i < 3; ++i) {
      Socket socket = co_await acceptor.accept();
      if (socket.peer_address() == alive.local_address()) break;  // the kernel skipped the others
      CHECK_FALSE(socket.peer_address());
      TcpConnection connection(std::move(socket));
      auto [error, chunk] = co_await as_tuple(connection.read());
      CHECK((error == std::errc::connection_reset || (!error && !chunk)));
    }
    Socket socket = co_await acceptor.accept();
    co_await check_connected(std::move(socket), alive);
  });
}

TEST_CASE("a client for whom there is no memory is reset, not closed as if it had been served") {
  const auto body = []() -> Task<> {
    const std::size_t before = count_descriptors();
    Acceptor acceptor(loopback());
    std::vector<Peer> clients;
    for (std::size_t i = 0; i < 8; ++i) {  // as many as wait before their list has to grow
      clients.push_back(Peer::connect(acceptor.address()));
      co_await turn_until([&] { return count_descriptors() > before + 2 * (i + 1); });
    }
    clients.push_back(Peer::connect(acceptor.address()));
    {
      const FailingAllocations none(0);
      for (int i = 0; i < 10'000 && none.failed() == 0; ++i) co_await yield();
      CHECK(none.failed() == 1);
    }
    const int end = co_await in_thread([&] { return clients.back().wait_for_end(); });
    CHECK(end == ECONNRESET);
    for (std::size_t i = 0; i < 8; ++i) {
      Socket socket = co_await acceptor.accept();
      CHECK(socket.peer_address() == clients[i].local_address());
    }
  };
  for_each_engine([&](Engine engine) {
    // A thread of its own has no blocks yet that it could use again.
    std::thread([&] { on_engine(engine, body); }).join();
  });
}

TEST_CASE("what is accepted and not asked for is bounded, and the backlog holds the rest") {
  on_each_engine([]() -> Task<> {
    const std::size_t before = count_descriptors();
    AcceptorOptions options;
    options.max_waiting = 16;
    Acceptor acceptor(loopback(), options);
    constexpr std::size_t kClients = 1000;
    std::vector<Peer> clients;
    for (std::size_t i = 0; i < kClients; ++i) {
      clients.push_back(Peer::connect(acceptor.address()));
      if (i % 50 == 0) co_await turns(1);
    }
    const auto taken = [&] { return count_descriptors() - before - kClients; };
    co_await turn_until([&] { return taken() >= 16; });
    co_await turns(20);
    // The mark, and what was under way when the accept was called off.
    CHECK(taken() <= 16 + 128);
    for (std::size_t i = 0; i < kClients; ++i) {
      const Socket socket = co_await acceptor.accept();
      CHECK(socket.peer_address() == clients[i].local_address());
    }
  });
}

TEST_CASE("a port in use is refused with a message that names it") {
  on_each_engine([]() -> Task<> {
    const Acceptor first(loopback());
    const SocketAddress address = first.address();
    try {
      const Acceptor second(address);
      FAIL("bound twice");
    } catch (const std::system_error& error) {
      CHECK(error.code() == std::errc::address_in_use);
      CHECK(std::string_view(error.what()).find(address.to_string()) != std::string_view::npos);
    }
    co_return;
  });
}

TEST_CASE("an address of another machine is refused with a message that names it") {
  on_each_engine([]() -> Task<> {
    const auto address = SocketAddress::parse("192.0.2.1:0");
    const std::string text = text_of<std::system_error>([&] { const Acceptor acceptor(address); });
    CHECK(text.find("192.0.2.1:0") != std::string::npos);
    co_return;
  });
}

TEST_CASE("a bad option of an acceptor is refused by name and value") {
  on_each_engine([]() -> Task<> {
    AcceptorOptions options;
    options.backlog = -3;
    std::string text = text_of<std::invalid_argument>([&] { Acceptor(loopback(), options); });
    CHECK(text.find("backlog is -3") != std::string::npos);
    options = {};
    options.max_waiting = 0;
    text = text_of<std::invalid_argument>([&] { Acceptor(loopback(), options); });
    CHECK(text.find("max_waiting is 0") != std::string::npos);
    const SocketAddress none;
    CHECK_THROWS_AS(Acceptor{none}, std::invalid_argument);
    co_return;
  });
}

TEST_CASE("two listeners share a port if both ask for it") {
  on_each_engine([]() -> Task<> {
    AcceptorOptions options;
    options.reuse_port = true;
    const Acceptor first(loopback(), options);
    const Acceptor second(first.address(), options);
    CHECK(second.address() == first.address());
    co_return;
  });
}

TEST_CASE("accepted sockets inherit the options and are closed on exec") {
  on_each_kernel_engine("it has no options to read back", []() -> Task<> {
    for (const bool on : {true, false}) {
      AcceptorOptions options;
      options.no_delay = on;
      options.keep_alive = on;
      Acceptor acceptor(loopback(), options);
      const Peer client = Peer::connect(acceptor.address());
      const Socket socket = co_await acceptor.accept();
      CHECK((option_of(socket.fd(), IPPROTO_TCP, TCP_NODELAY) != 0) == on);
      CHECK((option_of(socket.fd(), SOL_SOCKET, SO_KEEPALIVE) != 0) == on);
      if (on) CHECK(option_of(socket.fd(), IPPROTO_TCP, TCP_KEEPIDLE) == 60);
      CHECK((::fcntl(socket.fd(), F_GETFD) & FD_CLOEXEC) != 0);
      CHECK((::fcntl(acceptor.fd(), F_GETFD) & FD_CLOEXEC) != 0);
    }
  });
}

TEST_CASE("an acceptor without any descriptor goes on looking for one several times a second") {
  on_simulation([]() -> Task<> {
    Sockets& sockets = EventLoop::current().sockets();
    Socket listener = listen(sockets, loopback());
    const Peer client = Peer::connect(listener.bound_address());
    std::optional<Acceptor> acceptor;
    {
      const NoDescriptorsLeft limit;  // so that there is no spare one either
      acceptor.emplace(EventLoop::current(), std::move(listener));
      co_await sleep(20s);
    }
    Socket socket = co_await timeout(100ms, acceptor->accept());
    CHECK(socket.peer_address() == client.local_address());
  });
}

TEST_CASE("an acceptor that stops listening gives what the kernel has, then the end") {
  on_each_engine([]() -> Task<> {
    // All are accepted already, or some only, and the others stand in the kernel's backlog.
    for (const std::size_t accepted : {6UL, 3UL}) {
      CAPTURE(accepted);
      AcceptorOptions options;
      options.max_waiting = accepted;
      Acceptor acceptor(own_loopback(), options);
      const SocketAddress address = acceptor.address();
      std::vector<Peer> clients;
      for (int i = 0; i < 3; ++i) clients.push_back(Peer::connect(address));
      co_await turns(3);
      for (int i = 0; i < 3; ++i) clients.push_back(Peer::connect(address));
      acceptor.stop_listening();
      CHECK_THROWS_AS(Peer::connect(address), std::system_error);
      const Acceptor next(address);  // it may be bound again
      for (Peer& client : clients) {
        Socket socket = co_await acceptor.accept();
        CHECK(socket.peer_address() == client.local_address());
        co_await check_connected(std::move(socket), client);
      }
      for (int i = 0; i < 2; ++i) {
        const auto [error, none] = co_await as_tuple(acceptor.accept());
        CHECK(error == std::errc::operation_canceled);
      }
      acceptor.stop_listening();  // again: nothing
      CHECK(acceptor.address() == address);
    }
  });
}

TEST_CASE(
    "an acceptor that stops gives all that its backlog held, which is one more than it says") {
  on_each_engine([]() -> Task<> {
    EventLoop& loop = EventLoop::current();
    AcceptorOptions options;
    options.backlog = 1;
    Socket listener = listen(loop.sockets(), loopback(), options);
    const SocketAddress address = listener.bound_address();
    std::vector<Peer> clients;
    for (int i = 0; i < 2; ++i) clients.push_back(Peer::connect(address));
    Acceptor acceptor(loop, std::move(listener), options);
    acceptor.stop_listening();
    for (Peer& client : clients) {
      Socket socket = co_await acceptor.accept();
      CHECK(socket.peer_address() == client.local_address());
      co_await check_connected(std::move(socket), client);
    }
    const auto [error, none] = co_await as_tuple(acceptor.accept());
    CHECK(error == std::errc::operation_canceled);
  });
}

TEST_CASE("a listener that stops gives those who come until the kernel has let go of it") {
  on_each_engine([]() -> Task<> {
    for (const bool armed : {true, false}) {
      CAPTURE(armed);
      EventLoop& loop = EventLoop::current();
      // Others might have it as well: nobody is refused before it is closed.
      Acceptor acceptor(loop, listen(loop.sockets(), loopback()));
      if (armed) co_await turns(3);
      acceptor.stop_listening();
      std::vector<Peer> late;
      for (int i = 0; i < 3; ++i) late.push_back(Peer::connect(acceptor.address()));
      for (Peer& client : late) {
        Socket socket = co_await acceptor.accept();
        co_await check_connected(std::move(socket), client);
      }
      const auto [error, none] = co_await as_tuple(acceptor.accept());
      CHECK(error == std::errc::operation_canceled);
      CHECK(acceptor.fd() < 0);
    }
  });
}

TEST_CASE("those who wait for an acceptor that stops are told, and dropped ones lose no client") {
  on_each_engine([]() -> Task<> {
    Acceptor acceptor(loopback());
    std::vector<Socket> accepted;
    int cancelled = 0;
    const auto wait = [&]() -> Task<> {
      auto [error, socket] = co_await as_tuple(acceptor.accept());
      if (error == std::errc::operation_canceled) ++cancelled;
    };
    std::optional<TaskGroup> dropped(std::in_place);
    TaskGroup group;
    dropped->spawn(accept_into(acceptor, accepted));
    co_await turns(1);
    Peer client = Peer::connect(acceptor.address());
    acceptor.stop_listening();
    CHECK(accepted.empty());  // in the loop's turn, not here
    dropped.reset();
    group.spawn(accept_into(acceptor, accepted));
    group.spawn(wait());
    co_await group.join();
    CHECK(cancelled == 1);
    REQUIRE(accepted.size() == 1);
    co_await check_connected(std::move(accepted[0]), client);
  });
}

TEST_CASE("an acceptor that stopped may be closed and destroyed at any moment") {
  on_each_engine([]() -> Task<> {
    const std::size_t before = count_descriptors();
    for (int turns_between = 0; turns_between < 4; ++turns_between) {
      std::optional<Acceptor> acceptor(loopback());
      co_await turns(turns_between);
      Peer client = Peer::connect(acceptor->address());
      acceptor->stop_listening();
      co_await turns(turns_between);
      acceptor.reset();
      const int end = co_await in_thread([&] { return client.wait_for_end(); });
      CHECK((end == 0 || end == ECONNRESET));
      client.close();
    }
    co_await turn_until([&] { return count_descriptors() == before; });
  });
}

TEST_CASE("accepts that are interrupted or aborted end no backlog") {
  sim::World world;
  auto& server = world.add_host("10.0.0.1");
  auto& client = world.add_host("10.0.0.2");
  std::size_t accepted = 0;
  bool ended = false;
  const auto serve = [](sim::World& in, sim::Host& on, std::size_t& count, bool& end) -> Task<> {
    AcceptorOptions options;
    options.max_waiting = 2;  // the others stand in the backlog
    Acceptor acceptor(SocketAddress::parse("0.0.0.0:7"), options);
    co_await sleep(1s);
    in.inject(sim::Fault::interrupted, on, 3);
    acceptor.stop_listening();
    for (;;) {
      auto [error, socket] = co_await as_tuple(acceptor.accept());
      if (error) break;
      ++count;
    }
    end = true;
  };
  const auto talk = []() -> Task<> {
    std::vector<TcpConnection> connections;
    for (int i = 0; i < 8; ++i) connections.push_back(co_await connect("10.0.0.1:7"));
    co_await sleep(10s);
  };
  server.spawn(serve(world, server, accepted, ended));
  client.spawn(talk());
  world.run_for(20s);
  CHECK(ended);
  CHECK(accepted == 8);
}

TEST_CASE("IPv6 listeners take IPv4 clients unless they are told not to") {
  on_each_engine([]() -> Task<> {
    for (const bool only : {false, true}) {
      AcceptorOptions options;
      options.v6_only = only;
      std::optional<Acceptor> acceptor;
      try {
        acceptor.emplace(SocketAddress::parse("[::]:0"), options);
      } catch (const std::system_error& error) {
        MESSAGE("skipped: no IPv6 here: " << std::string(error.what()));
        co_return;
      }
      const auto v4 =
          SocketAddress::parse("127.0.0.1:" + std::to_string(acceptor->address().port()));
      if (only) {
        CHECK_THROWS_AS(Peer::connect(v4), std::system_error);
      } else {
        const Peer client = Peer::connect(v4);
        const Socket socket = co_await acceptor->accept();
        CHECK(socket.peer_address().peer_key() == client.local_address().peer_key());
      }
    }
  });
}

TEST_CASE("a Unix socket's file is made, replaced when stale, and removed") {
  on_each_kernel_engine("no Unix sockets", []() -> Task<> {
    const std::string name = "weir-acceptor-" + std::to_string(::getpid()) + ".sock";
    const std::string path = std::filesystem::temp_directory_path() / name;
    const auto address = SocketAddress::parse("unix:" + path);
    ::unlink(path.c_str());
    {
      Acceptor acceptor(address);
      CHECK(acceptor.address() == address);
      Peer client = Peer::connect(address);
      Socket socket = co_await acceptor.accept();
      co_await check_connected(std::move(socket), client);
      // In use: it is not taken away from its owner.
      CHECK_THROWS_AS(Acceptor{address}, std::system_error);
    }
    CHECK(::access(path.c_str(), F_OK) != 0);
    // A leftover of a process that crashed.
    const int stale = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const RawAddress& raw = address.raw();
    REQUIRE(::bind(stale, reinterpret_cast<const sockaddr*>(raw.bytes), raw.size) == 0);
    ::close(stale);
    CHECK(::access(path.c_str(), F_OK) == 0);
    {
      Acceptor acceptor(address);
      Peer client = Peer::connect(address);
      Socket socket = co_await acceptor.accept();
      co_await check_connected(std::move(socket), client);
    }
    CHECK(::access(path.c_str(), F_OK) != 0);
  });
}

TEST_CASE("a Unix acceptor does not remove a plain file in its way") {
  on_each_kernel_engine("no Unix sockets", []() -> Task<> {
    const std::string name = "weir-acceptor-" + std::to_string(::getpid()) + ".txt";
    const std::string path = std::filesystem::temp_directory_path() / name;
    const int file = ::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    REQUIRE(file >= 0);
    ::close(file);
    CHECK_THROWS_AS(Acceptor{SocketAddress::parse("unix:" + path)}, std::system_error);
    CHECK(::access(path.c_str(), F_OK) == 0);
    ::unlink(path.c_str());
    co_return;
  });
}
