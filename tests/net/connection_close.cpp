#include <doctest/doctest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <system_error>
#include <vector>

#include "../support/net_server.h"
#include "../support/simulation.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr int kSmall = 8 << 10;

Task<> read_into(TcpConnection& conn, std::optional<std::error_code>& error) {
  error = (co_await as_tuple(conn.read())).error;
}

Task<> send_into(TcpConnection& conn, std::size_t size, std::optional<std::error_code>& error) {
  std::string message(size, 'x');
  const auto result = co_await as_tuple(conn.send(std::move(message)));
  error = result.error;
}

Task<> flush_into(TcpConnection& conn, std::optional<std::error_code>& error) {
  const auto result = co_await as_tuple(conn.flush());
  error = result.error;
}

}  // namespace

TEST_CASE("native_handle is what system calls know the connection by, while it has one") {
  on_each_kernel_engine("no descriptors", []() -> Task<> {
    auto [conn, peer] = connect_pair();
    int type = 0;
    socklen_t size = sizeof type;
    CHECK(::getsockopt(conn.native_handle(), SOL_SOCKET, SO_TYPE, &type, &size) == 0);
    CHECK(type == SOCK_STREAM);
    conn.force_close();
    co_await turn_until([conn = &conn] { return conn->native_handle() == -1; });
    CHECK(TcpConnection().native_handle() == -1);
  });
  on_simulation([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    CHECK(conn.native_handle() == -1);
    co_return;
  });
}

TEST_CASE("shutdown sends what is queued, then FIN, and reading goes on") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair({}, kSmall);
    CHECK(conn.state() == ConnectionState::connected);
    std::string message = pattern(500000);
    co_await conn.send(std::move(message));
    const auto receive = [peer = &peer] { return peer->receive_all(); };
    TaskGroup group;
    std::string got;
    const auto collect = [&]() -> Task<> { got = co_await in_thread(receive); };
    group.spawn(collect());
    co_await conn.shutdown();
    CHECK(conn.state() == ConnectionState::disconnecting);
    co_await group.join();
    CHECK(matching(got, 1, 0) == 500000);
    auto [error, none] = co_await as_tuple(conn.send("late"));
    CHECK(error == std::errc::broken_pipe);
    peer.send("still here");
    peer.close();
    Chunk chunk = co_await conn.read_exactly(10);
    CHECK(chunk.view() == "still here");
    chunk = co_await conn.read();
    CHECK_FALSE(chunk);
    co_await conn.shutdown();  // again: nothing
  });
}

TEST_CASE("a dropped shutdown still sends its FIN") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.water_marks.high = 4 << 20;
    auto [conn, peer] = connect_pair(options, kSmall);
    std::string message = pattern(1 << 20);
    co_await conn.send(std::move(message));
    {
      const auto shut = [](TcpConnection& of) -> Task<> { co_await of.shutdown(); };
      TaskGroup dropped;
      dropped.spawn(shut(conn));
      co_await turns(2);
    }
    const auto receive = [peer = &peer] { return peer->receive_all(); };
    const std::string got = co_await in_thread(receive);
    CHECK(matching(got, 1, 0) == 1U << 20);
  });
}

TEST_CASE("close with unread input gives the peer the whole reply and a FIN, not a RST") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.input_high = 1000;  // so that receiving is paused, too
    options.water_marks.high = 4 << 20;
    auto [conn, peer] = connect_pair(options);
    peer.send(pattern(200000, 7));
    co_await turns(10);
    std::string reply = pattern(1 << 20);
    co_await conn.send(std::move(reply));
    conn.close();
    CHECK(conn.state() == ConnectionState::disconnecting);
    const auto receive = [peer = &peer] {
      int error = 0;
      std::string all = peer->receive_all(&error);
      peer->close();
      return std::pair(error, std::move(all));
    };
    const auto [error, all] = co_await in_thread(receive);
    CHECK(error == 0);
    CHECK(matching(all, 1, 0) == 1U << 20);
    co_await turn_until([conn = &conn] { return conn->state() == ConnectionState::disconnected; });
  });
}

TEST_CASE("a peer that goes on sending after the close sees no RST before its own FIN") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    co_await conn.send("bye");
    conn.close();
    const auto talk = [peer = &peer] {
      const std::string got = peer->receive_all();
      for (int i = 0; i < 100; ++i) peer->send(pattern(10000));
      peer->shutdown_send();
      return got;
    };
    const std::string got = co_await in_thread(talk);
    CHECK(got == "bye");
    co_await turn_until([conn = &conn] { return conn->state() == ConnectionState::disconnected; });
  });
}

TEST_CASE("what comes after a close is discarded, also where receiving was paused") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.input_high = 1000;
    options.linger = 2min;  // it is not that which ends it
    auto [conn, peer] = connect_pair(options, kSmall);
    const auto before = completions();
    peer.send(pattern(5000));
    co_await completed(before);
    co_await turns(3);
    conn.close();
    const auto talk = [peer = &peer] {
      for (int i = 0; i < 90; ++i) peer->send(pattern(10000));  // far more than the buffers hold
      const int error = peer->wait_for_end();
      peer->shutdown_send();
      return error;
    };
    const int error = co_await in_thread(talk);
    CHECK(error == 0);
    co_await turn_until([conn = &conn] { return conn->state() == ConnectionState::disconnected; });
  });
}

TEST_CASE("a peer that sends without end after a close is reset") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.linger = 2min;
    auto [conn, peer] = connect_pair(options);
    co_await conn.send("bye");
    conn.close();
    const auto flood = [peer = &peer] {
      const std::string bytes = pattern(100'000);
      std::size_t sent = 0;
      try {
        while (sent < 1U << 30) {
          peer->send(bytes);
          sent += bytes.size();
        }
      } catch (const std::system_error&) {  // reset, or a broken pipe
      }
      return sent;
    };
    const std::size_t sent = co_await in_thread(flood);
    CHECK(sent + 100'000 >= 1U << 20);  // the last may have gone in part
    CHECK(sent < 64U << 20);            // with what the kernel's buffers hold
    co_await turn_until([conn = &conn] { return conn->state() == ConnectionState::disconnected; });
  });
}

TEST_CASE("a peer that sends without end is held back, not reset, while a close flushes") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.linger = 2min;
    options.water_marks.high = 64 << 20;
    auto [conn, peer] = connect_pair(options, kSmall);
    std::string reply = pattern(4 << 20);
    co_await conn.send(std::move(reply));
    conn.close();
    const std::string bytes = pattern(100'000);
    std::size_t sent = 0;
    for (int stuck = 0; stuck < 50; ++stuck) {
      const std::size_t now = peer.send_now(bytes);
      if (now > 0) stuck = 0;
      sent += now;
      REQUIRE(sent < 64U << 20);
      co_await turns(1);
    }
    const auto receive = [peer = &peer] {
      int error = 0;
      std::string all = peer->receive_all(&error);
      peer->close();
      return std::pair(error, std::move(all));
    };
    const auto [error, all] = co_await in_thread(receive);
    CHECK(error == 0);
    CHECK(matching(all, 1, 0) == 4U << 20);
    co_await turn_until([conn = &conn] { return conn->state() == ConnectionState::disconnected; });
  });
}

TEST_CASE("a close that cannot flush within its linger ends with RST") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.linger = 20ms;
    options.water_marks.high = 64 << 20;
    auto [conn, peer] = connect_pair(options, kSmall);
    std::string message(16 << 20, 'x');
    co_await conn.send(std::move(message));
    conn.close();
    co_await turn_until([conn = &conn] { return conn->state() == ConnectionState::disconnected; });
    const auto end = [peer = &peer] { return peer->wait_for_end(); };
    const int error = co_await in_thread(end);
    CHECK(error == ECONNRESET);
  });
}

TEST_CASE("a close whose peer never answers ends after its linger") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.linger = 20ms;
    for (bool again = true; again;) {
      auto [conn, peer] = connect_pair(options);
      co_await conn.send("all of it");
      const TimePoint before = time_now();
      conn.close();
      co_await turns(5);
      const bool in_time = time_now() - before < options.linger;  // else nothing may have gone
      co_await turn_until(
          [conn = &conn] { return conn->state() == ConnectionState::disconnected; });
      CHECK(time_now() - before >= options.linger);
      int error = 0;
      const std::string got = peer.receive_all(&error);
      again = error != 0 && !in_time;
      if (!again) CHECK((error == 0 && got == "all of it"));
    }
  });
}

TEST_CASE("with a linger of zero a close is at once, with RST if something was left") {
  on_each_engine([]() -> Task<> {
    for (const bool left : {false, true}) {
      ConnectionOptions options;
      options.linger = 0ms;
      auto [conn, peer] = connect_pair(options, kSmall);
      if (left) co_await conn.send(std::string_view(pattern(500000)));
      conn.close();
      co_await turn_until(
          [conn = &conn] { return conn->state() == ConnectionState::disconnected; });
      CHECK(peer.wait_for_end() == (left ? ECONNRESET : 0));
    }
  });
}

TEST_CASE("force_close ends the connection with RST and what is queued is lost") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.water_marks.high = 64 << 20;
    auto [conn, peer] = connect_pair(options, kSmall);
    std::string message(4 << 20, 'x');
    co_await conn.send(std::move(message));
    conn.force_close();
    co_await turn_until([conn = &conn] { return conn->state() == ConnectionState::disconnected; });
    CHECK(conn.pending_bytes() == 0);
    const auto end = [peer = &peer] { return peer->wait_for_end(); };
    const int error = co_await in_thread(end);
    CHECK(error == ECONNRESET);
    auto [failed, none] = co_await as_tuple(conn.send("x"));
    CHECK(failed);
    conn.force_close();  // again: nothing
    conn.close();
  });
}

TEST_CASE("the destructor is a close: what was sent arrives, then FIN") {
  on_each_engine([]() -> Task<> {
    Peer peer;
    {
      auto pair = connect_pair();
      peer = std::move(pair.peer);
      co_await pair.connection.send("last words");
    }
    const auto receive = [&peer] { return peer.receive_all(); };
    const std::string got = co_await in_thread(receive);
    CHECK(got == "last words");
  });
}

TEST_CASE("what was sent before the loop ends still arrives") {
  for_each_engine([](Engine engine) {
    Peer peer;
    on_engine(engine, [&]() -> Task<> {
      ConnectionOptions options;
      options.water_marks.high = 4 << 20;
      auto pair = connect_pair(options);
      peer = std::move(pair.peer);
      std::string message = pattern(100000);
      co_await pair.connection.send(std::move(message));
    });
    const std::string got = peer.receive_all();
    CHECK(matching(got, 1, 0) == 100000);
  });
}

TEST_CASE("close wakes a read, a send and a flush of other coroutines with operation_canceled") {
  on_each_engine([]() -> Task<> {
    for (const bool destroy : {false, true}) {
      CAPTURE(destroy);
      ConnectionOptions options;
      options.water_marks = {.high = 1000, .low = 0};
      options.linger = 100ms;
      std::optional<Connected> pair(connect_pair(options, kSmall));
      std::optional<std::error_code> read;
      std::optional<std::error_code> accepted;
      std::optional<std::error_code> waiting;
      std::optional<std::error_code> flush;
      TaskGroup group;
      group.spawn(read_into(pair->connection, read));
      group.spawn(send_into(pair->connection, 1 << 20, accepted));
      group.spawn(send_into(pair->connection, 10, waiting));
      group.spawn(flush_into(pair->connection, flush));
      co_await turns(3);
      if (destroy) {
        pair.reset();
      } else {
        pair->connection.close();
      }
      CHECK_FALSE(read);
      co_await group.join();
      CHECK(read == std::errc::operation_canceled);
      CHECK(accepted == std::errc::operation_canceled);
      CHECK(waiting == std::errc::operation_canceled);
      CHECK(flush == std::errc::operation_canceled);
    }
  });
}

TEST_CASE("force_close ends a read, a send and a flush of other coroutines") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.water_marks = {.high = 1000, .low = 0};
    auto [conn, peer] = connect_pair(options, kSmall);
    std::optional<std::error_code> read;
    std::optional<std::error_code> send;
    std::optional<std::error_code> flush;
    TaskGroup group;
    group.spawn(read_into(conn, read));
    group.spawn(send_into(conn, 1 << 20, send));
    group.spawn(flush_into(conn, flush));
    co_await turns(3);
    conn.force_close();
    co_await group.join();
    CHECK(read == std::errc::operation_canceled);
    CHECK(send == std::errc::operation_canceled);
    CHECK(flush == std::errc::operation_canceled);
  });
}

TEST_CASE("a connection may go while a read is about to resume") {
  on_each_engine([]() -> Task<> {
    for (const bool fin : {false, true}) {
      CAPTURE(fin);
      std::optional<Connected> pair(connect_pair());
      Peer peer = std::move(pair->peer);
      std::optional<std::error_code> read;
      TaskGroup group;
      group.spawn(read_into(pair->connection, read));
      co_await turns(1);
      const auto before = completions();
      if (fin) {
        peer.shutdown_send();
      } else {
        peer.send("bytes");
      }
      before_resuming(before, 1, [&] { pair.reset(); });
      co_await group.join();
      CHECK(read == std::errc::operation_canceled);
    }
  });
}

TEST_CASE("a connection may go while a send and a flush are about to resume") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.water_marks = {.high = 1000, .low = 0};
    options.linger = 0ms;
    std::optional<Connected> pair(connect_pair(options));
    Peer peer = std::move(pair->peer);
    std::optional<std::error_code> send;
    std::optional<std::error_code> flush;
    TaskGroup group;
    const auto before = completions();
    group.spawn(send_into(pair->connection, 2000, send));
    group.spawn(flush_into(pair->connection, flush));
    before_resuming(before, 1, [&] { pair.reset(); });
    co_await group.join();
    CHECK(send);
    CHECK(flush);
    peer.shutdown_send();
  });
}

TEST_CASE("a send may be dropped when it is about to resume and its connection is gone") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.water_marks = {.high = 1000, .low = 0};
    options.linger = 0ms;
    std::optional<Connected> pair(connect_pair(options));
    pair->peer.shutdown_send();
    const Chunk end = co_await pair->connection.read();
    CHECK_FALSE(end);  // nothing is being received any more
    std::optional<std::error_code> send;
    std::optional<TaskGroup> group(std::in_place);
    const auto before = completions();
    group->spawn(send_into(pair->connection, 2000, send));
    before_resuming(before, 1, [&] {
      pair.reset();
      group.reset();
    });
    co_await turn_until([&] { return !group; });
    CHECK_FALSE(send);
  });
}

TEST_CASE("a waiting read that is woken and then dropped leaves its bytes to the next") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    std::optional<TaskGroup> group(std::in_place);
    std::optional<std::error_code> read;
    group->spawn(read_into(conn, read));
    co_await turns(1);
    const auto before = completions();
    peer.send("kept");
    before_resuming(before, 1, [&] { group.reset(); });
    co_await turn_until([&] { return !group; });
    CHECK_FALSE(read);
    const Chunk chunk = co_await conn.read();
    CHECK(chunk.view() == "kept");
  });
}

TEST_CASE("a connection keeps its name and its addresses when it is closed") {
  on_each_engine([]() -> Task<> {
    ServerOptions options = server_options(Engine::automatic);
    options.name = "named";
    TcpServer server(EventLoop::current(), options);
    bool same = false;
    Event done;
    server.start([&](TcpConnection conn) -> Task<> {
      const std::string name = conn.name();
      const SocketAddress local = conn.local_address();
      const SocketAddress peer = conn.peer_address();
      conn.force_close();
      co_await turn_until([&] { return conn.state() == ConnectionState::disconnected; });
      same = conn.name() == name && conn.local_address() == local && conn.peer_address() == peer &&
             name.starts_with("named-127.0.0.1:") && local == server.address();
      done.set();
    });
    const Peer client = co_await agreed_peer(server);
    co_await done.wait();
    CHECK(same);
  });
}

TEST_CASE("a connection is disconnected once it broke, and once both directions have ended") {
  on_each_engine([]() -> Task<> {
    auto [broken, peer] = connect_pair();
    peer.reset();
    auto [error, none] = co_await as_tuple(broken.read());
    CHECK(error == std::errc::connection_reset);
    CHECK(broken.state() == ConnectionState::disconnected);
    auto [ended, other] = connect_pair();
    co_await ended.shutdown();
    CHECK(ended.state() == ConnectionState::disconnecting);
    other.shutdown_send();
    const Chunk end = co_await ended.read();
    CHECK_FALSE(end);
    CHECK(ended.state() == ConnectionState::disconnected);
  });
}

TEST_CASE("a connection has a name, a peer, an address and a loop") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    CHECK(conn.peer_address() == peer.local_address());
    CHECK(conn.local_address().port() != 0);
    CHECK(conn.name() == "connection-" + peer.local_address().to_string() + "#0");
    CHECK(conn.id() == 0);
    CHECK(&conn.loop() == &EventLoop::current());
    const TcpConnection none;
    CHECK(none.state() == ConnectionState::disconnected);
    CHECK(none.name().empty());
    CHECK_FALSE(none.peer_address());
    CHECK_THROWS_AS((void)none.loop(), std::logic_error);
    co_return;
  });
}

TEST_CASE("socket options follow the connection's") {
  on_each_kernel_engine("it has no options to read back", []() -> Task<> {
    const auto [ours, theirs] = tcp_pair();
    const Peer peer(theirs);
    TcpConnection conn(Socket(EventLoop::current().sockets(), ours));
    CHECK(option_of(ours, IPPROTO_TCP, TCP_NODELAY) != 0);
    CHECK(option_of(ours, SOL_SOCKET, SO_KEEPALIVE) != 0);
    conn.set_no_delay(false);
    CHECK(option_of(ours, IPPROTO_TCP, TCP_NODELAY) == 0);
    conn.set_no_delay();
    CHECK(option_of(ours, IPPROTO_TCP, TCP_NODELAY) != 0);
    conn.set_keep_alive(false);
    CHECK(option_of(ours, SOL_SOCKET, SO_KEEPALIVE) == 0);
    conn.force_close();
    co_await turn_until([&] { return conn.state() == ConnectionState::disconnected; });
    CHECK_THROWS_AS(conn.set_no_delay(), std::system_error);
  });
}

TEST_CASE("a loop may end with every operation of a connection under way") {
  for_each_engine([](Engine engine) {
    std::vector<Peer> peers;
    LoopOptions options;
    options.engine = engine;
    EventLoop loop(options);
    const auto scene = [&]() -> Task<> {
      ConnectionOptions small;
      small.water_marks = {.high = 1000, .low = 0};
      small.input_high = 1000;
      small.linger = 20ms;
      const auto busy = [](Connected pair) -> Task<> {
        TcpConnection conn = std::move(pair.connection);
        Peer peer = std::move(pair.peer);
        std::optional<std::error_code> error;
        TaskGroup group;
        group.spawn(read_into(conn, error));
        group.spawn(send_into(conn, 1 << 20, error));
        group.spawn(send_into(conn, 10, error));
        group.spawn(flush_into(conn, error));
        co_await group.join();
      };
      for (int i = 0; i < 5; ++i) {
        auto pair = connect_pair(small, kSmall);
        peers.push_back(Peer(::dup(pair.peer.fd())));
        EventLoop::current().spawn(busy(std::move(pair)));
      }
      auto paused = connect_pair(small);
      paused.peer.send(pattern(50000));
      co_await turns(5);
      peers.push_back(std::move(paused.peer));
    };
    loop.run_until_complete(scene());
    // And now the loop goes.
  });
}

TEST_CASE("a connection whose loop has ended may be closed and dropped") {
  for_each_engine([](Engine engine) {
    Peer peer;
    TcpConnection conn;
    TcpConnection other;
    on_engine(engine, [&]() -> Task<> {
      auto [ours, theirs] = connect_pair();
      auto [second, none] = connect_pair();
      conn = std::move(ours);
      peer = std::move(theirs);
      other = std::move(second);
      co_return;
    });
    CHECK(conn.state() == ConnectionState::disconnected);
    CHECK(conn.native_handle() == -1);
    on_engine(engine, [&]() -> Task<> {
      const std::string view("of no use");
      const auto sent = co_await as_tuple(conn.send(view));
      CHECK(sent.error == errc::closed_here);
    });
    (void)peer.wait_for_end();
    conn.close();
    conn.force_close();
    conn = TcpConnection();
  });
}
