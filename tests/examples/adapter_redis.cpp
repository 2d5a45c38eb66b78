// hiredis on weir's loop against redis-server.
#include <doctest/doctest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../examples/adapters/redis.h"
#include "example.h"
#include "service.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Redis on a Unix socket, which keeps nothing.
class RedisServer {
 public:
  explicit RedisServer(const std::string& program)
      : service_(program, {"--port", "0", "--unixsocket", directory_.file("socket"), "--save", "",
                           "--dir", directory_.file("")}) {
    service_.wait_for_listener(SocketAddress::parse(address()));
  }
  [[nodiscard]] std::string address() const { return "unix:" + directory_.file("socket"); }

 private:
  Directory directory_;
  Service service_;
};

Task<> count_up(adapters::Redis& redis, std::vector<long long>& counts) {
  const std::vector<std::string> words = {"INCR", "count"};
  const adapters::RedisReply reply = co_await redis.command(words);
  counts.push_back(reply.integer);
}

/// What the command throws, or "".
Task<std::string> failure(adapters::Redis& redis, std::vector<std::string> words) {
  std::string said;
  try {
    (void)co_await redis.command(words);
  } catch (const std::runtime_error& error) {
    said = error.what();
  }
  co_return said;
}

}  // namespace

TEST_CASE("five hundred commands go in one connection at once, and are answered in order") {
  const std::string program = service_program("redis-server");
  if (program.empty()) return;
  const RedisServer server(program);
  on_each_kernel_engine("hiredis has sockets of its own", [&]() -> Task<> {
    adapters::Redis redis(server.address());
    const std::vector<std::string> clear = {"DEL", "count"};
    (void)co_await redis.command(clear);
    std::vector<long long> counts;
    TaskGroup commands;
    for (int i = 0; i < 500; ++i) commands.spawn(count_up(redis, counts));
    CHECK(counts.empty());
    co_await commands.join();
    REQUIRE(counts.size() == 500);
    for (std::size_t i = 0; i < 500; ++i) CHECK(counts[i] == static_cast<long long>(i) + 1);

    const std::string binary = pattern(300'000) + std::string(3, '\0');
    const std::vector<std::string> set = {"SET", "key", binary};
    const std::vector<std::string> get = {"MGET", "key", "none"};
    (void)co_await redis.command(set);
    const adapters::RedisReply reply = co_await redis.command(get);
    REQUIRE(reply.elements.size() == 2);
    CHECK(reply.elements[0].text == binary);
    CHECK(reply.elements[1].type == REDIS_REPLY_NIL);
    const std::vector<std::string> increment = {"INCR", "key"};
    const std::string wrong = co_await failure(redis, increment);
    CHECK(wrong.starts_with("ERR value is not an integer"));
  });
}

TEST_CASE("a command that was dropped is done all the same, and its reply is nobody else's") {
  const std::string program = service_program("redis-server");
  if (program.empty()) return;
  const RedisServer server(program);
  on_each_kernel_engine("hiredis has sockets of its own", [&]() -> Task<> {
    adapters::Redis redis(server.address());
    const std::vector<std::string> clear = {"DEL", "count"};
    (void)co_await redis.command(clear);
    std::vector<long long> counts;
    {
      TaskGroup dropped;
      for (int i = 0; i < 10; ++i) dropped.spawn(count_up(redis, counts));
    }
    co_await count_up(redis, counts);
    CHECK(counts == std::vector<long long>{11});
  });
}

TEST_CASE("subscribers hear what is published, until their connection or their patience ends") {
  const std::string program = service_program("redis-server");
  if (program.empty()) return;
  const RedisServer server(program);
  on_each_kernel_engine("hiredis has sockets of its own", [&]() -> Task<> {
    adapters::Redis redis(server.address());
    auto subscriber = std::make_unique<adapters::Redis>(server.address());
    const adapters::Redis::Messages news = subscriber->subscribe("news");
    const adapters::Redis::Messages slow = subscriber->subscribe("much", 2);
    const std::vector<std::string> publish = {"PUBLISH", "news", "first"};
    for (long long heard = 0; heard == 0;) {  // until the server knows of the subscription
      const adapters::RedisReply reply = co_await redis.command(publish);
      heard = reply.integer;
    }
    const auto first = co_await news->receive();
    CHECK(first == "first");
    for (int i = 0; i < 100; ++i) {
      const std::vector<std::string> next = {"PUBLISH", "news", std::to_string(i)};
      (void)co_await redis.command(next);
    }
    for (int i = 0; i < 100; ++i) {
      const auto next = co_await news->receive();
      CHECK(next == std::to_string(i));
    }
    const std::vector<std::string> much = {"PUBLISH", "much", "more"};
    for (int i = 0; i < 3; ++i) (void)co_await redis.command(much);
    const std::vector<std::string> last = {"PUBLISH", "news", "last"};
    (void)co_await redis.command(last);
    const auto after = co_await news->receive();
    CHECK(after == "last");
    CHECK(slow->closed());
    CHECK(slow->size() == 2);
    subscriber.reset();
    const auto end = co_await news->receive();
    CHECK_FALSE(end.has_value());
  });
}

TEST_CASE("what waits for a Redis that ends, or was never there, is told") {
  const std::string program = service_program("redis-server");
  if (program.empty()) return;
  on_each_kernel_engine("hiredis has sockets of its own", [&]() -> Task<> {
    auto server = std::make_unique<RedisServer>(program);
    const std::string address = server->address();
    adapters::Redis redis(address);
    const std::vector<std::string> ping = {"PING"};
    const adapters::RedisReply pong = co_await redis.command(ping);
    CHECK(pong.text == "PONG");
    adapters::Redis subscriber(address);
    const adapters::Redis::Messages news = subscriber.subscribe("news");
    std::string said;
    TaskGroup waiting;
    waiting.spawn([&]() -> Task<> {
      const std::vector<std::string> wait = {"BLPOP", "nothing", "0"};
      said = co_await failure(redis, wait);
    });
    server.reset();
    co_await waiting.join();
    CHECK(said == "redis: the connection has ended");
    const auto end = co_await news->receive();
    CHECK_FALSE(end.has_value());
    const std::string later = co_await failure(redis, ping);
    CHECK(later == "redis: the connection has ended");
    CHECK_THROWS_AS(adapters::Redis{address}, std::runtime_error);
  });
}

TEST_CASE("the program for hiredis says what Redis answers") {
  const std::string program = service_program("redis-server");
  if (program.empty()) return;
  const RedisServer server(program);
  const Ran ran = run_program(Example::path_of("adapters/redis_pipe"), {server.address()},
                              "SET name weir\nGET name\nINCR name\n");
  CHECK(ran.output == "OK\nweir\nERR value is not an integer or out of range\n");
  CHECK(ran.status == 0);
}
