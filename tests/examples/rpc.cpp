// Remote calls: in simulated worlds whose server goes and comes, and by a client of another make.
#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <system_error>
#include <utility>

#include "../../examples/rpc/client.h"
#include "../../examples/rpc/server.h"
#include "../support/sim.h"
#include "example.h"

using namespace weir;
using namespace weir::test;

namespace {

/// A request says how long it takes: "number milliseconds".
std::string request_of(std::uint64_t number, std::uint64_t milliseconds) {
  return std::to_string(number) + ' ' + std::to_string(milliseconds);
}
std::string answer_to(const std::string& request) { return "answer to " + request; }

Task<std::string> take_time(std::string request) {
  const std::string time = request.substr(request.find(' ') + 1);
  co_await sleep(std::chrono::milliseconds(std::stoi(time)));
  co_return answer_to(request);
}

Task<> serve_calls() {
  TcpServer server(EventLoop::current(), options_at("0.0.0.0:7"));
  co_await start_server(
      server, [](TcpConnection conn) { return rpc::answer_calls(std::move(conn), take_time); });
  co_await Event().wait();
}

ClientOptions to_server() {
  ClientOptions options;
  options.address = SocketAddress::parse("10.0.0.1:7");
  add_tls(options);
  return options;
}

/// The error of a call, or none. An answer is the caller's own, and an error comes in time.
Task<std::error_code> call_in_time(sim::World& world, rpc::Client& client, std::string request,
                                   std::chrono::nanoseconds limit) {
  const auto begin = world.now();
  auto [error, answer] = co_await as_tuple(client.call(request, limit));
  world.check(error || answer == answer_to(request), "the answer is the caller's: " + answer);
  world.check(!error || error == errc::deadline || error == std::errc::connection_reset,
              "a call ends with an error that is said: " + error.message());
  world.check(world.now() - begin <= limit + 100ms, "a call ends in time");
  co_return error;
}

struct Progress {
  int answered = 0;
  int late = 0;
  int broken = 0;
  int dropped = 0;
  bool ended = false;
};

Task<> call_again_and_again(sim::World& world, rpc::Client& client, std::uint64_t caller,
                            Progress& progress) {
  Random random(world.random());
  for (std::uint64_t i = 0; i < 30; ++i) {
    const std::string request = request_of(caller * 1000 + i, random.below(300));
    const std::chrono::milliseconds limit(50 + random.below(3000));
    if (random.below(4) == 0) {  // somebody who does not wait for the answer
      const std::chrono::milliseconds patience(random.below(300));
      (void)co_await when_any(sleep(patience), as_tuple(client.call(request, limit)));
      ++progress.dropped;
      continue;
    }
    const std::error_code error = co_await call_in_time(world, client, request, limit);
    ++(!error ? progress.answered : error == errc::deadline ? progress.late : progress.broken);
    co_await sleep(std::chrono::milliseconds(random.below(300)));
  }
}

Task<> make_calls(sim::World& world, Progress& progress) {
  rpc::Client client(to_server());
  {
    TaskGroup callers;
    for (std::uint64_t caller = 0; caller < 10; ++caller) {
      callers.spawn(call_again_and_again(world, client, caller, progress));
    }
    co_await callers.join();
  }
  world.check(client.in_flight() == 0, "nothing is left of calls that have ended");
  for (;;) {
    const std::error_code error = co_await call_in_time(world, client, request_of(999'999, 1), 5s);
    if (!error) break;
  }
  progress.ended = true;
}

/// What a client meets in a world without faults, run to its end.
void in_plain_world(std::function<Task<>(sim::World&)> body, bool with_server = true) {
  sim::World world({.seed = 1});
  sim::Host& server = world.add_host("10.0.0.1", "server");
  sim::Host& client = world.add_host("10.0.0.2", "client");
  if (with_server) server.run(serve_calls);
  bool& ended = world.make<bool>(false);
  const auto whole = [&]() -> Task<> {
    co_await body(world);
    ended = true;
  };
  client.run(whole);
  world.at(1min, [&] { server.kill(); });
  world.at(2min, [&] { server.restart(); });
  CHECK(world.run_until([&] { return ended; }, 1h));
  world.finish();
}

}  // namespace

TEST_CASE("scenario: calls end in time with their own answers, whatever becomes of the server") {
  explore_all("rpc", [](sim::World& world) {
    sim::Host& server = world.add_host("10.0.0.1", "server");
    sim::Host& client = world.add_host("10.0.0.2", "client");
    Progress& progress = world.make<Progress>();
    server.run(serve_calls);
    client.spawn(make_calls(world, progress), "calls");
    Random random(world.random());
    for (int i = 0; i < 6; ++i) {
      world.run_for(std::chrono::milliseconds(random.below(2000)));
      switch (random.below(4)) {
        case 0:
          world.partition(server, client);
          break;
        case 1:
          world.partition_one_way(server, client);
          break;
        case 2:
          server.kill();
          break;
        default:
          server.crash();
      }
      world.run_for(std::chrono::milliseconds(random.below(2000)));
      world.heal();
      if (!server.running()) server.restart();
    }
    world.heal_and_expect([&] { return progress.ended; }, 10min);
    world.check(progress.answered + progress.late + progress.broken + progress.dropped == 300,
                "every call ends");
    world.check(progress.answered > 0, "some are answered");
    sim::sometimes(progress.late > 0, "a call is too late");
    sim::sometimes(progress.broken > 0, "a call breaks with its connection");
    sim::sometimes(progress.dropped > 0, "a call is dropped");
  });
}

TEST_CASE("a call is safe to drop anywhere, and the others go on") {
  struct Shared {
    rpc::Client* client = nullptr;
    bool ended = false;
  };
  const sim::Exploration found = sim::drop_everywhere({.seed = 1}, [](sim::World& world) {
    world.add_host("10.0.0.1", "server").run(serve_calls);
    sim::Host& host = world.add_host("10.0.0.2", "client");
    Shared& shared = world.make<Shared>();
    const auto others = [](sim::World& in, Shared& with) -> Task<> {
      rpc::Client client(to_server());
      with.client = &client;
      for (std::uint64_t i = 0; i < 3; ++i) {
        const std::error_code error = co_await call_in_time(in, client, request_of(i, 20), 5s);
        in.check(!error, "another call is answered");
      }
      in.check(client.in_flight() == 0, "nothing is left");
      in.check(client.connects() == 1, "the connection has held");
      with.client = nullptr;
      with.ended = true;
    };
    host.spawn(others(world, shared));
    world.run_until([&] { return shared.client != nullptr; });
    const auto one = [](sim::World& in, rpc::Client& client) -> Task<> {
      const std::error_code error = co_await call_in_time(in, client, request_of(100, 5), 5s);
      in.check(!error, "it is answered, if it may");
    };
    host.spawn_dropped(one(world, *shared.client));
    world.check(world.run_until([&] { return shared.ended; }, 1min), "the others end");
  });
  CHECK_MESSAGE(found.failures.empty(), found.text());
  CHECK(found.runs >= 5);  // dropped while it waits for a connection, and for its answer
}

TEST_CASE("what is in flight fails with its connection, and the next call has a new one") {
  in_plain_world([](sim::World& world) -> Task<> {
    rpc::Client client(to_server());
    TaskGroup calls;
    int broken = 0;
    const auto hang = [&](std::uint64_t number) -> Task<> {
      auto [error, answer] = co_await as_tuple(client.call(request_of(number, 3'600'000), 1h));
      CHECK(error == std::errc::connection_reset);
      ++broken;
    };
    for (std::uint64_t number = 0; number < 50; ++number) calls.spawn(hang(number));
    co_await calls.join();  // after a minute: the server is killed
    CHECK(broken == 50);
    CHECK(world.now() >= 1min);
    CHECK(world.now() < 1min + 1s);
    CHECK(client.in_flight() == 0);
    auto [error, answer] = co_await as_tuple(client.call(request_of(1, 1), 3min));
    CHECK(answer == "answer to 1 1");
    CHECK(client.connects() == 2);
  });
}

TEST_CASE("an answer that comes after the deadline is nobody's, and the connection stays") {
  in_plain_world([](sim::World&) -> Task<> {
    rpc::Client client(to_server());
    auto [error, answer] = co_await as_tuple(client.call(request_of(1, 200), 100ms));
    CHECK(error == errc::deadline);
    CHECK(client.in_flight() == 0);
    auto [none, next] = co_await as_tuple(client.call(request_of(2, 500), 1s));
    CHECK(next == "answer to 2 500");
    CHECK(client.connects() == 1);
  });
}

TEST_CASE("without a server a call waits for its deadline") {
  const auto body = [](sim::World& world) -> Task<> {
    rpc::Client client(to_server());
    CHECK(co_await call_in_time(world, client, request_of(1, 1), 3s) == errc::deadline);
    CHECK(world.now() >= 3s);
  };
  in_plain_world(body, false);
}

TEST_CASE("a frame that is too long, or cut off, is an error") {
  const auto body = []() -> Task<> {
    auto [a, b] = stream_pair();
    co_await a.send(rpc::to_bytes(7, "") + rpc::to_bytes(8, "text"));
    const auto empty = co_await rpc::read_frame(b);
    REQUIRE(empty);
    CHECK(empty->id == 7);
    CHECK(empty->body.empty());
    const auto text = co_await rpc::read_frame(b);
    REQUIRE(text);
    CHECK(text->body == "text");
    co_await a.send(std::string_view("\0\x10\0\1\0\0\0\0\0\0\0\1x", 13));
    auto [too_long, none] = co_await as_tuple(rpc::read_frame(b));
    CHECK(too_long == std::errc::message_size);
    auto [c, d] = stream_pair();
    co_await c.send(rpc::to_bytes(7, "text").substr(0, 14));
    c.close();
    auto [cut, nothing] = co_await as_tuple(rpc::read_frame(d));
    CHECK(cut == std::errc::connection_aborted);
  };
  run(body());
  CHECK_THROWS_AS(rpc::to_bytes(1, std::string(rpc::kLongestBody + 1, 'x')), std::length_error);
}

#ifdef WEIR_EXAMPLES_DIR
TEST_CASE("the server of remote calls reads its options, refuses bad ones, and ends on SIGTERM") {
  check_command_line("rpc", {});
}

TEST_CASE("a thousand calls at once are answered on one connection") {
  Example server("rpc", {"--threads", "2"});
  const Ran ran = run_program(Example::path_of("rpc"), {"--connect", "127.0.0.1:" + server.port(),
                                                        "--calls", "1000", "--limit", "60000"});
  CHECK(without_stalls(ran.output) == "1000 answered, 0 too late, 0 broken\n");
  CHECK(ran.status == 0);
  CHECK(server.end() == 0);
}

TEST_CASE("a client in Python gets the quick answer before the slow one, and both at a drain") {
  const std::string python = client_program("python3");
  if (python.empty()) return;
  Example server("rpc");
  Child client(python, {"-c", R"(
import socket, struct, sys
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
stream = peer.makefile("rb")
def call(number, text): return struct.pack(">IQ", len(text), number) + text
def answer():
    size, number = struct.unpack(">IQ", stream.read(12))
    print(number, stream.read(size).decode(), flush=True)
peer.sendall(call(1 << 40, b"sleep 500") + call(2, b"quick"))
answer()
answer()
print(stream.read())
)",
                        server.port()});
  CHECK(client.read_line() == "2 QUICK");
  CHECK(server.end() == 0);
  CHECK(client.read_line() == std::to_string(1ULL << 40) + " SLEEP 500");
  CHECK(client.read_line() == "b''");
  CHECK(client.wait() == 0);
}
#endif
