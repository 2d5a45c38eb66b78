// A look inside of a running process: tasks, connections, loops and metrics over HTTP.
#include <weir/core/survey.h>
#include <weir/inspect.h>

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <coroutine>
#include <exception>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "../support/child.h"
#include "../support/directory.h"
#include "../support/emulated.h"
#include "../support/inspected.h"
#include "../support/net.h"
#include "../support/net_server.h"
#include "namespace.h"

using namespace weir;
using namespace weir::test;

namespace {

/// A coroutine of a program's own, whose promise begins with no place.
struct Otherwise {
  struct promise_type {
    promise_type* self = this;
    static Otherwise get_return_object() noexcept { return {}; }
    static std::suspend_never initial_suspend() noexcept { return {}; }
    static std::suspend_never final_suspend() noexcept { return {}; }
    static void return_void() noexcept {}
    static void unhandled_exception() noexcept { std::terminate(); }
  };
};

Otherwise read_otherwise(TcpConnection& conn, std::vector<Chunk>& into, Event& done) {
  Chunk chunk = co_await conn.read();
  into.push_back(std::move(chunk));
  done.set();
}

// Each has a name of its own, for the tree.

Task<> wait_for_both(Mutex& first, Mutex& second, Event& have_first) {
  const auto one = co_await first.lock();
  have_first.set();
  co_await yield();
  const auto two = co_await second.lock();
}

Task<> deadlock(Mutex& a, Mutex& b, Event& ready) {
  Event one;
  Event other;
  TaskGroup group;
  group.spawn(wait_for_both(a, b, one));
  group.spawn(wait_for_both(b, a, other));
  ready.set();
  co_await group.join();
}

Task<int> receive_deep(Channel<int>& channel) {
  const auto item = co_await channel.receive();
  co_return item.value_or(0);
}

Task<int> receive_deeper(Channel<int>& channel) {
  const int item = co_await receive_deep(channel);
  co_return item;
}

Task<> race(Channel<int>& channel, Event& never) {
  auto first = co_await when_any(receive_deeper(channel), never.wait(), sleep(1h));
  (void)first;
}

Task<> give_up_later(Event& never) {
  auto [error, nothing] = co_await as_tuple(timeout(1h, never.wait()));
  (void)error, (void)nothing;
}

AsyncGenerator<int> numbers(Event& never) {
  co_yield 1;
  co_await never.wait();
}

Task<> count_numbers(Event& never) {
  auto generator = numbers(never);
  while (auto number = co_await generator.next()) (void)*number;
}

Task<> block(std::promise<void>& blocks, std::shared_future<void> released) {
  co_await yield();
  blocks.set_value();
  released.wait();
}

}  // namespace

TEST_CASE("the tree of tasks names function, file and line, what each waits for, and since when") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    Mutex a;
    Mutex b;
    Event never;
    Event ready;
    Channel<int> channel(1);
    Inspected inspected(engine);
    inspected.loop().spawn(deadlock(a, b, ready));
    inspected.loop().spawn(race(channel, never));
    inspected.loop().spawn(give_up_later(never));
    inspected.loop().spawn(count_numbers(never));
    (void)tree_with(inspector, "numbers at ");  // the last to begin
    const std::string tree = tree_with(inspector, ": Mutex::lock");
    CAPTURE(tree);
    CHECK(has(tree, "\"inspected\" ("));
    const std::string locked = line_with(tree, "wait_for_both at ");
    CHECK(has(locked, "tests/net/inspector.cpp:"));
    CHECK(has(locked, ": Mutex::lock"));
    CHECK(has(locked, " (spawned by "));
    CHECK(has(locked.substr(locked.find(" (spawned by ")), "deadlock at tests/net/inspector.cpp:"));
    CHECK(has(line_with(tree, "deadlock at "), " (spawned by "));
    CHECK_FALSE(has(line_with(tree, "receive_deep at "), " (spawned by "));
    CHECK(has(line_with(tree, "deadlock at "), ": TaskGroup::join"));
    CHECK(has(line_with(tree, "receive_deep at "), ": Channel::receive"));
    CHECK(has(line_with(tree, "give_up_later at "), ": timeout of Event::wait"));
    CHECK(has(line_with(tree, "count_numbers at "), ": AsyncGenerator::next"));
    CHECK(has(line_with(tree, "numbers at "), ": "));
    CHECK(has(tree, ": sleep"));
    // One below the other.
    const auto indent = [&](std::string_view name) {
      return line_with(tree, name).find_first_not_of(' ');
    };
    CHECK(indent("wait_for_both at ") > indent("deadlock at "));
    CHECK(indent("receive_deeper at ") > indent("race at "));
    CHECK(indent("receive_deep at ") > indent("receive_deeper at "));
    const std::string json = get(inspector, "/tasks", "application/json");
    CHECK(has(json, "Content-Type: application/json"));
    CHECK(has(json, R"("waits_for":"Mutex::lock")"));
    CHECK(has(json, R"(deadlock","file":"tests/net/inspector.cpp")"));
    CHECK(has(json, R"(receive_deep","file":")"));
    inspected.thread.stop();
  });
}

TEST_CASE("a loop that does not answer is shown as stuck, with its turn and thread") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    std::promise<void> blocks;
    std::promise<void> release;
    Inspected inspected(engine);
    inspected.loop().spawn(block(blocks, release.get_future().share()));
    blocks.get_future().wait();
    const std::string tree = get(inspector, "/tasks");
    const std::string loops = get(inspector, "/loops");
    release.set_value();
    CHECK(has(line_with(tree, "\"inspected\""), "STUCK in one turn for "));
    CHECK(has(line_with(loops, "inspected"), "STUCK"));
    CHECK(eventually(
        [&] { return has(line_with(get(inspector, "/tasks"), "\"inspected\""), ": runs"); }));
  });
}

TEST_CASE("connections are shown with their state, marks and bytes, and with the task that reads") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    ServerOptions options = server_options(engine);
    options.name = "shown";
    ServerThread serving(std::move(options), echo);
    Peer peer = serving.connect();
    CHECK(echoes(peer));
    std::string connections;
    CHECK(eventually([&] {
      connections = get(inspector, "/connections", "application/json");
      return has(connections, R"("sent":5)") &&
             has(connections, kEmulated ? R"("received":null)" : R"("received":5)");
    }));
    CAPTURE(connections);
    CHECK(has(connections, R"("name":"shown-127.)"));
    CHECK(has(connections, R"("state":"connected")"));
    CHECK(has(connections, R"("unread":0)"));
    CHECK(has(connections, R"("age_ms":)"));
    CHECK(has(connections, R"("paused":false)"));
    CHECK(has(line_with(get(inspector, "/tasks"), "[shown-127."), ": read"));
    const std::string metrics = get(inspector, "/metrics");
    CHECK(has(metrics, "version=0.0.4"));
    CHECK(has(metrics, "# TYPE weir_server_connections gauge\n"));
    CHECK(has(line_with(metrics, "weir_server_received_bytes_total{"), "name=\"shown\"} 5"));
    CHECK(has(metrics, "weir_loop_turns_total{"));
    CHECK(has(get(inspector, "/"), "<table>"));
  });
}

namespace {

/// Keeps what it reads.
Task<> keep_all(TcpConnection conn, std::vector<Chunk>& kept) {
  co_await conn.send("x");
  while (Chunk chunk = co_await conn.read()) {
    kept.push_back(std::move(chunk));
    co_await conn.send("x");
  }
}

}  // namespace

TEST_CASE("buffers that a program keeps are told with the read that gave them") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    ServerOptions options = server_options(engine);
    options.loop.name = "keeping";
    ServerThread serving(std::move(options), [](TcpConnection conn) -> Task<> {
      std::vector<Chunk> own;
      co_await keep_all(std::move(conn), own);
    });
    Peer peer = serving.connect();
    for (int i = 0; i < 3; ++i) {
      CHECK(peer.receive_exactly(1) == "x");  // it reads now
      peer.send("kept");
    }
    CHECK(peer.receive_exactly(1) == "x");
    const std::string loops = line_with(get(inspector, "/loops"), " keeping ");
    CHECK(has(loops, "3  3 read by "));
    CHECK(has(loops, "keep_all at tests/net/inspector.cpp:"));
    CHECK(has(get(inspector, "/loops", "application/json"), R"("kept_by":"3 read by )"));
  });
}

TEST_CASE("buffers that operands and coroutines of another kind read are told as such") {
  const Inspector inspector({.address = loopback()});
  ServerOptions options = server_options(Engine::automatic);
  options.loop.name = "keeping";
  ServerThread serving(std::move(options), [](TcpConnection conn) -> Task<> {
    std::vector<Chunk> own;
    co_await conn.send("x");
    auto first = co_await when_any(conn.read(), sleep(1h));
    own.push_back(std::get<0>(std::move(first)));
    for (int i = 0; i < 2; ++i) {
      Event done;
      read_otherwise(conn, own, done);
      co_await conn.send("x");
      co_await done.wait();
    }
    co_await conn.send("x");
    co_await conn.read();
  });
  Peer peer = serving.connect();
  for (int i = 0; i < 3; ++i) {
    CHECK(peer.receive_exactly(1) == "x");  // it reads now
    peer.send("kept");
  }
  CHECK(peer.receive_exactly(1) == "x");
  const std::string loops = line_with(get(inspector, "/loops"), " keeping ");
  CHECK(has(loops, "3  2 read by a coroutine of another kind, 1 read by an operand"));
}

TEST_CASE("what is no request is refused, and several may come over one connection") {
  const Inspector inspector({.address = loopback()});
  const auto ask = [&](std::string_view text) {
    Peer peer = Peer::connect(inspector.address());
    peer.send(text);
    return peer.receive_all();
  };
  CHECK(has(ask("POST /tasks HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 "));
  CHECK(has(ask("GET /tasks HTTP/1.1\r\nContent-Length: 3\r\n\r\n"), "HTTP/1.1 413 "));
  CHECK(has(ask("nonsense\r\n\r\n"), "HTTP/1.1 400 "));
  CHECK(has(ask("GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n"), "HTTP/1.1 404 "));
  CHECK(ask(std::string(100'000, 'x')).empty());
  const std::string both =
      ask("GET /metrics HTTP/1.1\r\n\r\nGET /loops HTTP/1.1\r\nconnection: close\r\n\r\n");
  CHECK(both.find("HTTP/1.1 200 OK") != both.rfind("HTTP/1.1 200 OK"));
}

TEST_CASE("an inspector serves so many clients at a time, and closes those beyond") {
  const Inspector inspector({.address = loopback()});
  constexpr std::string_view kRequest = "GET /nothing HTTP/1.1\r\n\r\n";
  constexpr std::string_view kAnswer = "HTTP/1.1 404 ";
  std::vector<Peer> clients;
  for (int i = 0; i < 16; ++i) {
    clients.push_back(Peer::connect(inspector.address()));
    clients.back().send(kRequest);
    CHECK(clients.back().receive_exactly(kAnswer.size()) == kAnswer);
  }
  Peer beyond = Peer::connect(inspector.address());
  CHECK(beyond.wait_for_end() == 0);
}

TEST_CASE("an inspector on a Unix socket is its owner's alone, and ends with its object") {
  const Directory directory;
  const std::filesystem::path path = directory / "socket";
  {
    const Inspector inspector({.address = SocketAddress::parse("unix:" + path.string())});
    struct ::stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
    CHECK(has(get(inspector, "/loops"), "200 OK"));
  }
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK_THROWS_AS(Inspector({}), std::invalid_argument);
}

TEST_CASE("the environment starts an inspector in any program") {
  const Directory directory;
  const std::string address = "unix:" + directory.file("socket");
  Child child("/usr/bin/env",
              {"WEIR_INSPECT=" + address, WEIR_TEST_PROGRAMS_DIR "/obedient_server", "epoll"});
  std::string tree;
  CHECK(eventually([&] {
    try {
      tree = get(SocketAddress::parse(address), "/tasks");
    } catch (const std::system_error&) {  // it is not there yet
    }
    return has(tree, ": accept");
  }));
  CAPTURE(tree);
  CHECK(has(tree, "(epoll): runs"));
  child.signal(SIGTERM);  // and nobody who looks for leaks finds one
  CHECK(child.wait() == 0);
}

TEST_CASE("a coroutine's name is its function's, however the compiler says it") {
  using weir::detail::function_name;
  CHECK(function_name("weir::Task<void> outer(int)") == "outer");
  CHECK(function_name("void inner(inner()::_Z5innerv.Frame*)") == "inner");
  CHECK(function_name("Task<> (anonymous namespace)::serve(weir::TcpConnection)") == "serve");
  CHECK(function_name("weir::Task<T> a::b<T>::go(T, void (*)(int)) [with T = int]") ==
        "a::b<T>::go");
  CHECK(function_name("auto main()::(anonymous class)::operator()() const") ==
        "main()::(anonymous class)::operator()");
  CHECK(function_name("").empty());
}
