#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sweep.h"

namespace weir::test::sweep {
namespace {

Task<> echo(TcpConnection conn) {
  while (Chunk chunk = co_await conn.read()) co_await conn.send(std::move(chunk));
}

ServerOptions server_options() {
  ServerOptions options;
  options.address = loopback();
  options.connection.linger = 200ms;
  options.loop.engine =
      EventLoop::current().engine_name() == "epoll" ? Engine::epoll : Engine::uring;
  options.loop.buffer_count = 64;
  return options;
}

Task<TcpConnection> connect_once(SocketAddress address) {
  ConnectorOptions options;
  options.max_attempts = 1;
  Connector connector(address, options);
  Socket socket = co_await connector.connect();
  ConnectionOptions connection;
  connection.linger = 200ms;
  co_return TcpConnection(std::move(socket), connection);
}

/// Reads to the end. True if that was clean.
Task<bool> read_all(TcpConnection& conn, std::string& bytes) {
  for (;;) {
    auto piece = co_await as_tuple(conn.read());
    if (piece.error) co_return false;
    if (!piece.value) co_return true;
    bytes += piece.value.view();
  }
}

Task<> echo_and_drain(Report& report) {
  TcpServer server(EventLoop::current(), server_options());
  server.start(echo);
  {
    TcpConnection conn = co_await connect_once(server.address());
    const std::string sent = pattern(10'000);
    co_await conn.send(std::string_view(sent));
    co_await conn.shutdown();
    std::string back;
    const bool clean = co_await read_all(conn, back);
    report.require(matching(back, 1, 0) == back.size(), "bytes of an echo");
    (void)clean;
  }
  (void)co_await server.drain(500ms);
  report.require(server.connection_count() == 0, "a drain leaves connections");
}

Task<> echo_on_two_loops(Report& report) {
  ServerOptions options = server_options();
  options.threads = 2;
  TcpServer server(EventLoop::current(), options);
  server.start(echo);
  for (int i = 0; i < 2; ++i) {
    TcpConnection conn = co_await connect_once(server.address());
    co_await conn.send(std::string(100, 'x'));
    co_await conn.shutdown();
    std::string back;
    (void)co_await read_all(conn, back);
    report.require(back == std::string(back.size(), 'x'), "bytes of an echo");
  }
  [[maybe_unused]] const DrainReport drained = co_await server.drain(500ms);
  report.require(server.connection_count() == 0, "a drain leaves connections");
}

/// One message is whole, or its stream ends with an error.
Task<> large_message(Report& report) {
  const std::string message = pattern(700'000);
  auto [a, b] = link_pair({.linger = 200ms}, {.linger = 200ms});
  auto serve = [&message](TcpConnection conn) -> Task<> {
    conn.set_water_marks({.high = 1000, .low = 10});
    co_await conn.send(std::string_view(message));
    co_await conn.send(std::string("."));
  };
  TaskGroup group;
  group.spawn(serve(std::move(a)));
  std::string got;
  const bool clean = co_await read_all(b, got);
  report.require(matching(std::string_view(got).substr(0, message.size()), 1, 0) ==
                     std::min(got.size(), message.size()),
                 "bytes of a message");
  if (clean) report.require(got.empty() || got.size() >= message.size(), "a part for the whole");
  (void)co_await as_tuple(group.join());
}

Task<> senders(Report& report) {
  auto [a, b] = link_pair({.linger = 200ms}, {.linger = 200ms});
  std::string promised;
  {
    TcpConnection conn = std::move(a);
    Sender sender = conn.sender();
    for (int i = 0; i < 4; ++i) {
      std::string text = "message " + std::to_string(i) + ";";
      bool taken = false;
      try {
        taken = sender.try_send(text);
      } catch (const std::bad_alloc&) {
      }
      if (taken) promised += text;
    }
    co_await sender.send("last");
    promised += "last";
    co_await conn.flush();
  }
  std::string got;
  const bool clean = co_await read_all(b, got);
  if (clean) report.require(got == promised, "a message of a Sender is lost or doubled");
}

Task<> lines(Report& report) {
  auto [a, b] = link_pair({.linger = 200ms}, {.linger = 200ms});
  auto serve = [](TcpConnection conn) -> Task<> {
    for (;;) {
      auto [error, line] = co_await as_tuple(timeout(30s, conn.read_until("\r\n", 8192)));
      if (error || !line) co_return;
      co_await conn.send("+");
      co_await conn.send(std::move(line));
    }
  };
  TaskGroup group;
  group.spawn(serve(std::move(a)));
  for (int i = 0; i < 3; ++i) {
    const std::string line = std::string(static_cast<std::size_t>(2000 * i + 1), 'l') + "\r\n";
    co_await b.send(std::string_view(line));
    const Chunk answer = co_await b.read_exactly(line.size() + 1);
    if (!answer) break;
    report.require(answer.view() == "+" + line, "an answer");
  }
  co_await b.shutdown();
  (void)co_await as_tuple(group.join());
}

Task<> channels(Report& report) {
  Channel<std::unique_ptr<int>> channel(2);
  int sent = 0;
  struct Closer {
    Channel<std::unique_ptr<int>>& of;
    ~Closer() { of.close(); }
  };
  auto produce = [&]() -> Task<> {
    const Closer at_the_end{channel};
    for (int i = 1; i <= 6; ++i) {
      auto item = std::make_unique<int>(i);
      if (i % 2 == 0 && channel.try_send(std::move(item))) {
        sent = i;
        continue;
      }
      if (item == nullptr) continue;
      const bool taken = co_await channel.send(std::move(item));
      if (taken) sent = i;
    }
  };
  const Closer closer{channel};
  TaskGroup group;
  group.spawn(produce());
  int last = 0;
  for (;;) {
    auto item = co_await timeout(5s, channel.receive());
    if (!item) break;
    report.require(**item > last, "the order of a channel");
    last = **item;
  }
  report.require(last == sent, "an item that a channel took is lost");
  co_await group.join();
}

Task<> other_loop(Report& report) {
  LoopOptions options;
  options.engine = EventLoop::current().engine_name() == "epoll" ? Engine::epoll : Engine::uring;
  options.buffer_count = 64;
  EventLoopThread thread(options);
  auto there = []() -> Task<int> {
    co_await sleep(1ms);
    co_return 7;
  };
  for (int i = 0; i < 2; ++i) {
    const int result = co_await on(thread.loop(), there());
    report.require(result == 7, "a result from another loop");
  }
  auto dropped = co_await as_tuple(timeout(1ms, on(thread.loop(), there())));
  (void)dropped;
}

AsyncGenerator<int> numbers(int count) {
  for (int i = 0; i < count; ++i) {
    co_await yield();
    co_yield i;
  }
}

Task<int> later(int value) {
  co_await sleep(100us);
  co_return value;
}

Task<> compositions(Report& report) {
  int sum = 0;
  auto generator = numbers(3);
  while (auto item = co_await generator.next()) sum += *item;
  report.require(sum == 3, "the items of a generator");
  const auto both = co_await when_all(later(1), later(2));
  report.require(std::get<0>(both) == 1 && std::get<1>(both) == 2, "results of when_all");
  std::vector<Task<int>> many;
  for (int i = 0; i < 3; ++i) many.push_back(later(i));
  const auto all = co_await when_all(std::move(many));
  report.require(all.size() == 3, "results of when_all");
  const auto first = co_await when_any(later(1), sleep(10s));
  report.require(first.index() == 0, "the winner of when_any");
  Mutex mutex;
  int inside = 0;
  auto locked = [&]() -> Task<> {
    const auto lock = co_await mutex.lock();
    ++inside;
    report.require(inside == 1, "two in a mutex");
    co_await yield();
    --inside;
  };
  TaskGroup group;  // what its tasks refer to stands above it
  for (int i = 0; i < 4; ++i) group.spawn(locked());
  co_await group.join();
}

Task<> reconnecting_client(Report& report) {
  TcpServer server(EventLoop::current(), server_options());
  server.start(echo);
  ClientOptions options;
  options.address = server.address();
  TcpClient client(options);
  int sessions = 0;
  auto session = [&](TcpConnection& conn) -> Task<> {
    ++sessions;
    co_await conn.send("hello");
    const Chunk answer = co_await conn.read_exactly(5);
    if (answer) report.require(answer.view() == "hello", "an answer");
    client.stop();
  };
  (void)co_await as_tuple(timeout(3s, client.run(session)));
  server.stop();
}

Task<> refused(Report& report) {
  SocketAddress address;
  {
    Acceptor acceptor(loopback());
    address = acceptor.address();
  }
  ConnectorOptions options;
  options.max_attempts = 2;
  options.initial_delay = 1ms;
  Connector connector(address, options);
  const auto outcome = co_await as_tuple(connector.connect());
  report.require(static_cast<bool>(outcome.error), "a connection to nobody");
}

Task<> files(Report& report) {
  const int file = ::memfd_create("weir", MFD_CLOEXEC);
  if (file < 0) throw std::system_error(errno, std::generic_category(), "memfd_create");
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  };
  const Closer closer{file};
  std::string got;
  bool clean = false;
  const std::string content = pattern(100'000);
  report.require(
      ::pwrite(file, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()),
      "the file");
  auto [a, b] = link_pair({.linger = 200ms}, {.linger = 200ms});
  auto serve = [file](TcpConnection conn) -> Task<> {
    co_await conn.send_file(file, 0, 100'000);
    co_await conn.send(".");
  };
  TaskGroup group;
  group.spawn(serve(std::move(a)));
  clean = co_await read_all(b, got);
  if (clean) {
    report.require(got.empty() || got == content || got == content + ".",
                   "a part of a file for the whole");
  }
  [[maybe_unused]] const auto over = co_await as_tuple(group.join());
}

Task<> visits(Report& report) {
  TcpServer server(EventLoop::current(), server_options());
  server.start(echo);
  TcpConnection one = co_await connect_once(server.address());
  TcpConnection two = co_await connect_once(server.address());
  co_await one.send("x");
  (void)co_await as_tuple(timeout(2s, one.read_exactly(1)));
  std::size_t seen = 0;
  server.for_each_connection([&](TcpConnection& conn) {
    ++seen;
    (void)conn.name();
  });
  report.require(seen <= 2, "more connections than there are");
  server.stop();
  std::string rest;
  (void)co_await read_all(one, rest);
}

}  // namespace

const std::vector<Named>& scenarios() {
  static const std::vector<Named> all = {
      {"echo and drain", echo_and_drain},
      {"echo on two loops", echo_on_two_loops},
      {"a large message", large_message},
      {"senders", senders},
      {"lines", lines},
      {"channels", channels},
      {"another loop", other_loop},
      {"compositions", compositions},
      {"a reconnecting client", reconnecting_client},
      {"a refused connection", refused},
      {"files", files},
      {"visits", visits},
  };
  return all;
}

}  // namespace weir::test::sweep
