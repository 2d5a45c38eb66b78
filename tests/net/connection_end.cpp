#include <doctest/doctest.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr int kSmall = 8 << 10;

ConnectionOptions marks(std::size_t high, std::size_t low) {
  ConnectionOptions options;
  options.water_marks = {.high = high, .low = low};
  return options;
}

Task<> send_into(TcpConnection& conn, std::size_t size, std::error_code& error) {
  std::string message(size, 'x');
  const auto result = co_await as_tuple(conn.send(std::move(message)));
  error = result.error;
}

Task<> flush_into(TcpConnection& conn, std::error_code& error) {
  const auto result = co_await as_tuple(conn.flush());
  error = result.error;
}

/// The reading side is told once, then there is the end.
Task<> check_reading(TcpConnection& conn) {
  auto [error, none] = co_await as_tuple(conn.read());
  CHECK(error == std::errc::connection_reset);
  const Chunk end = co_await conn.read();
  CHECK(end.is_end());
}

/// How long a test's own steps took at the most: a deadline that is shorter passes rightly, and
/// says nothing of who missed it.
class Pace {
 public:
  void step() {
    const TimePoint now = time_now();
    longest_ = std::max(longest_, now - last_);
    last_ = now;
  }
  [[nodiscard]] Duration longest() const noexcept { return longest_; }

 private:
  TimePoint last_ = time_now();
  Duration longest_ = Duration::zero();
};

/// What comes, up to `size` bytes, in steps of the loop's.
Task<> read_on(Peer& client, std::string& got, std::size_t size, Pace& pace) {
  while (got.size() < size) {
    got += client.receive_now(std::min<std::size_t>(size - got.size(), 64 << 10));
    co_await turns(1);
    pace.step();
  }
}

/// An idle server's connection: it sends far more than the peer takes, and waits.
constexpr std::size_t kMessage = 16 << 20;

ServerOptions server_with_deadline() {
  ServerOptions options = server_options(Engine::automatic);
  options.connection.water_marks.high = 64 << 20;
  options.connection.linger = 1min;
  return options;
}

}  // namespace

TEST_CASE("a reset that a waiting send heard of is told to the next read as well") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(1000, 0), kSmall);
    std::error_code send;
    TaskGroup group;
    group.spawn(send_into(conn, 1 << 20, send));
    co_await turns(3);
    peer.reset();
    co_await group.join();
    CHECK((send == std::errc::connection_reset || send == std::errc::broken_pipe));
    co_await check_reading(conn);
    std::error_code again;
    co_await send_into(conn, 1, again);
    CHECK(again == std::errc::broken_pipe);  // the sending side was told
  });
}

TEST_CASE("a reset that a waiting flush heard of is told to the next read as well") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options = marks(64 << 20, 0);
    options.input_high = 1000;  // receiving is paused: the send hears of it
    auto [conn, peer] = connect_pair(options, kSmall);
    std::string message(1 << 20, 'x');
    co_await conn.send(std::move(message));
    std::error_code flush;
    TaskGroup group;
    group.spawn(flush_into(conn, flush));
    co_await turns(3);
    peer.reset();
    co_await group.join();
    CHECK((flush == std::errc::connection_reset || flush == std::errc::broken_pipe));
    co_await check_reading(conn);
  });
}

TEST_CASE("a reset that a read heard of is told to the next send as well") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    peer.reset();
    co_await check_reading(conn);
    std::error_code error;
    co_await flush_into(conn, error);
    CHECK(error == std::errc::connection_reset);
    co_await flush_into(conn, error);
    CHECK(error == std::errc::broken_pipe);
  });
}

TEST_CASE("a reset is told to the next, if whoever heard of it is dropped in the same turn") {
  on_each_engine([]() -> Task<> {
    for (const bool flush : {false, true}) {
      CAPTURE(flush);
      auto [conn, peer] = connect_pair(marks(flush ? 64 << 20 : 1000, 0), kSmall);
      std::string message(1 << 20, 'x');
      if (flush) co_await conn.send(std::move(message));
      std::error_code dropped;
      std::optional<TaskGroup> group(std::in_place);
      group->spawn(flush ? flush_into(conn, dropped) : send_into(conn, 1 << 20, dropped));
      co_await turns(5);
      peer.reset();
      co_await turn_until([conn = &conn, &group] {
        if (conn->state() != ConnectionState::connected) group.reset();
        return !group;
      });
      std::error_code told;
      co_await send_into(conn, 1, told);
      // Dropped or told before: either way the sending side hears of it once.
      if (!dropped) CHECK((told == std::errc::connection_reset || told == std::errc::broken_pipe));
      co_await send_into(conn, 1, told);
      CHECK(told == std::errc::broken_pipe);
      co_await check_reading(conn);
    }
  });
}

TEST_CASE("a connection may go while those who hear of its end are about to resume") {
  on_each_engine([]() -> Task<> {
    std::optional<Connected> pair(connect_pair(marks(1000, 0), kSmall));
    Peer peer = std::move(pair->peer);
    std::error_code send;
    std::error_code waiting;
    std::error_code flush;
    TaskGroup group;
    group.spawn(send_into(pair->connection, 1 << 20, send));
    group.spawn(send_into(pair->connection, 10, waiting));
    group.spawn(flush_into(pair->connection, flush));
    co_await turns(3);
    pair->connection.force_close();
    pair.reset();
    co_await group.join();
    CHECK(send == errc::closed_here);
    CHECK(waiting == errc::closed_here);
    CHECK(flush == errc::closed_here);
  });
}

TEST_CASE("whoever hears of a reset first may end the connection and drop those who hear next") {
  on_each_engine([]() -> Task<> {
    for (const bool timed : {false, true}) {
      CAPTURE(timed);
      std::optional<Connected> pair(connect_pair(marks(1000, 10), kSmall));
      Peer peer = std::move(pair->peer);
      TaskGroup writers;
      int told = 0;
      for (int i = 0; i < 3; ++i) {
        writers.spawn([&]() -> Task<> {
          try {
            while (pair) {
              auto sent = pair->connection.send(std::string(300'000, 'x'));
              if (timed) {
                co_await timeout(1h, std::move(sent));
              } else {
                co_await std::move(sent);
              }
            }
          } catch (const std::system_error&) {
            ++told;
            pair.reset();
            writers.cancel();
          }
        });
      }
      co_await turns(3);
      peer.reset();
      co_await turn_until([&] { return told != 0; });
      co_await turns(3);
      CHECK(told == 1);
    }
  });
}

TEST_CASE("force_close resets at once while a send waits, also right behind the peer's FIN") {
  if (plain_only("it is about the kernel's sends")) return;
  on_each_engine([]() -> Task<> {
    auto [connection, peer] = connect_pair({}, 16 << 10);
    TaskGroup group;
    group.spawn([conn = &connection]() -> Task<> {
      const auto sent = co_await as_tuple(conn->send(std::string(1 << 20, 'x')));
      CHECK(sent.error == errc::closed_here);
    });
    co_await turns(3);
    // On io_uring the send goes to a kernel thread then, and a cancel does not find it on its way.
    peer.shutdown_send();
    co_await turns(20);
    connection.force_close();
    // Without reading, which would let the send go on.
    const int fd = peer.fd();
    const auto is_reset = [fd] { return (TestMachine::current().look_at(fd) & POLLHUP) != 0; };
    co_await turn_until(is_reset);
    CHECK(peer.wait_for_end() == ECONNRESET);
  });
}

TEST_CASE("closing from this side is closed_here, which is operation_canceled") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const auto read = [](TcpConnection& from, std::error_code& error) -> Task<> {
      error = (co_await as_tuple(from.read())).error;
    };
    std::error_code error;
    TaskGroup group;
    group.spawn(read(conn, error));
    conn.close();
    co_await group.join();
    CHECK(error == errc::closed_here);
    CHECK(error == std::errc::operation_canceled);
    CHECK(error.category() == error_category());
    CHECK(error.message() == "closed from this side");
  });
}

TEST_CASE("a deadline is errc::deadline, which is timed_out") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    auto [error, none] = co_await as_tuple(timeout(1ms, conn.read()));
    CHECK(error == errc::deadline);
    CHECK(error == std::errc::timed_out);
    CHECK(error != errc::idle);
  });
}

TEST_CASE("what a loop that is gone had to send ends with RST, never with FIN after a part") {
  for_each_engine([](Engine engine) {
    Peer peer;
    {
      LoopOptions options;
      options.engine = engine;
      EventLoop loop(options);
      const auto scene = [&peer]() -> Task<> {
        ConnectionOptions large;
        large.water_marks.high = 64 << 20;
        large.linger = 20ms;
        auto pair = connect_pair(large, kSmall);
        peer = std::move(pair.peer);
        std::string message = pattern(8 << 20);
        co_await pair.connection.send(std::move(message));
        co_await turns(3);
      };
      std::thread([&] { loop.run_until_complete(scene()); }).join();
      // The loop ends on a thread that is not its own.
    }
    CHECK(peer.wait_for_end() == ECONNRESET);
  });
}

TEST_CASE("idle_timeout resets a peer that stopped reading in the middle of a message") {
  on_each_engine([]() -> Task<> {
    ServerOptions options = server_with_deadline();
    options.idle_timeout = 100ms;
    TcpServer server(EventLoop::current(), options);
    std::error_code error;
    Event done;
    server.start([&](TcpConnection conn) -> Task<> {
      std::string message(kMessage, 'x');
      co_await conn.send(std::move(message));
      error = (co_await as_tuple(conn.read())).error;
      done.set();
    });
    Peer client = co_await agreed_peer(server, kSmall);
    co_await done.wait();
    CHECK(error == errc::idle);
    CHECK(error == std::errc::timed_out);
    const auto end = [&client] { return client.wait_for_end(); };
    const int end_of_stream = co_await in_thread(end);
    CHECK(end_of_stream == ECONNRESET);
  });
}

TEST_CASE("a background flush is not idle") {
  on_each_engine([]() -> Task<> {
    ServerOptions options = server_with_deadline();
    options.idle_timeout = 20ms;
    TcpServer server(EventLoop::current(), options);
    server.start([&](TcpConnection conn) -> Task<> {
      std::string message = pattern(kMessage);
      co_await conn.send(std::move(message));
    });
    Peer client = co_await agreed_peer(server, kSmall);
    co_await sleep(300ms);
    const auto receive = [&client] { return client.receive_all(); };
    const std::string got = co_await in_thread(receive);
    CHECK(matching(got, 1, 0) == kMessage);
  });
}

TEST_CASE("write_timeout resets a peer that takes nothing, whatever the handler waits for") {
  on_each_engine([]() -> Task<> {
    for (const bool waits : {false, true}) {
      CAPTURE(waits);
      ServerOptions options = server_with_deadline();
      options.write_timeout = 100ms;
      if (waits) options.connection.water_marks = {.high = 1 << 20, .low = 0};
      TcpServer server(EventLoop::current(), options);
      std::error_code error;
      Event done;
      server.start([&](TcpConnection conn) -> Task<> {
        std::string message(kMessage, 'x');
        const auto sent = co_await as_tuple(conn.send(std::move(message)));
        error = sent.error;
        if (!error) error = (co_await as_tuple(conn.read())).error;
        done.set();
      });
      Peer client = co_await agreed_peer(server, kSmall);
      co_await done.wait();
      CHECK(error == errc::unresponsive);
      CHECK(error == std::errc::timed_out);
      const auto end = [&client] { return client.wait_for_end(); };
      const int end_of_stream = co_await in_thread(end);
      CHECK(end_of_stream == ECONNRESET);
    }
  });
}

TEST_CASE("write_timeout leaves alone who reads slowly, and who says nothing") {
  on_each_engine([]() -> Task<> {
    constexpr std::size_t kAnswer = 1 << 20;
    ServerOptions options = server_with_deadline();
    options.write_timeout = 1s;
    TcpServer server(EventLoop::current(), options);
    server.start([&](TcpConnection conn) -> Task<> {
      const Chunk request = co_await conn.read();
      std::string message = pattern(kAnswer);
      co_await conn.send(std::move(message));
      co_await conn.shutdown();
      (void)co_await as_tuple(conn.read());
    });
    for (bool again = true; again;) {
      Peer client = co_await agreed_peer(server, kSmall);
      co_await sleep(1200ms);  // nothing is to be sent
      client.send("go on");
      std::string got;
      Pace pace;
      try {
        for (int i = 0; i < 12; ++i) {
          co_await sleep(100ms);
          pace.step();
          got += client.receive_now(8 << 10);
        }
        co_await read_on(client, got, kAnswer, pace);
      } catch (const std::system_error&) {  // reset
      }
      CHECK(matching(got, 1, 0) == got.size());
      again = got.size() < kAnswer && pace.longest() >= options.write_timeout / 4;
      if (!again) CHECK(got.size() == kAnswer);
    }
  });
}

TEST_CASE("no deadline ends who reads little out of a full buffer, but steadily") {
  on_each_engine([]() -> Task<> {
    for (const bool idle : {false, true}) {
      CAPTURE(idle);
      constexpr auto kDeadline = 160ms;
      ServerOptions options = server_with_deadline();
      (idle ? options.idle_timeout : options.write_timeout) = kDeadline;
      for (bool again = true; again;) {
        TcpServer server(EventLoop::current(), options);
        bool ended = false;
        server.start([&](TcpConnection conn) -> Task<> {
          std::string message = pattern(kMessage);
          co_await conn.send(std::move(message));
          (void)co_await as_tuple(conn.read());
          ended = true;
        });
        Peer client = co_await agreed_peer(server, kSmall);
        // Less than a third of what the kernel keeps for it: nothing can be sent meanwhile.
        std::string got;
        Pace pace;
        try {
          for (int i = 0; i < 48; ++i) {
            co_await sleep(10ms);
            pace.step();
            got += client.receive_now(4 << 10);
          }
          if (!ended) co_await read_on(client, got, kMessage / 2, pace);
        } catch (const std::system_error&) {  // reset
          ended = true;
        }
        CHECK(matching(got, 1, 0) == got.size());
        again = ended && pace.longest() >= kDeadline / 4;
        if (!again) CHECK(!ended);
      }
    }
  });
}

TEST_CASE("a bad write_timeout is refused by name and value") {
  ServerOptions options = server_with_deadline();
  options.write_timeout = -3ms;
  const std::string text = text_of<std::invalid_argument>([&] { const TcpServer server(options); });
  CHECK(text.find("write_timeout is -3 ms") != std::string::npos);
}
