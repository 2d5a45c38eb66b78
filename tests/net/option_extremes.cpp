// Each option at the ends of its range: what takes it works, or its error names the option.
#include <weir/core/rate_limiter.h>
#include <weir/core/retry.h>

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "../support/net_server.h"
#include "namespace.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Options of a server, and of a client.
struct Both {
  ServerOptions server;
  ConnectOptions client;
};

struct Extreme {
  std::string_view option;
  std::string value;
  std::function<void(Both&)> set;
};

/// `member` gives the option of the two that is set.
template <class T, class Member>
void add(std::vector<Extreme>& all, std::string_view option, const std::vector<T>& values,
         Member member) {
  for (const T& value : values) {
    std::string text;
    if constexpr (requires { value.count(); }) {
      text = std::to_string(value.count());
    } else {
      text = std::to_string(value);
    }
    all.push_back({option, text, [member, value](Both& both) { member(both) = value; }});
  }
}

constexpr auto kMostSize = std::numeric_limits<std::size_t>::max();
constexpr auto kMostInt = std::numeric_limits<int>::max();

std::vector<Extreme> extremes() {
  using std::chrono::milliseconds;
  const std::vector<milliseconds> times{milliseconds::min(), -1ms, 0ms, milliseconds::max() - 1ms,
                                        milliseconds::max()};
  const std::vector<std::size_t> sizes{0, 1, kMostSize - 1, kMostSize};
  const std::vector<int> numbers{std::numeric_limits<int>::min(), -1, 0, 1, kMostInt};
  std::vector<Extreme> all;
  const auto time = [&](std::string_view option, auto member) { add(all, option, times, member); };
  const auto size = [&](std::string_view option, auto member) { add(all, option, sizes, member); };
  time("idle_timeout", [](Both& b) -> auto& { return b.server.idle_timeout; });
  time("write_timeout", [](Both& b) -> auto& { return b.server.write_timeout; });
  time("drain_timeout", [](Both& b) -> auto& { return b.server.drain_timeout; });
  time("hand_over_timeout", [](Both& b) -> auto& { return b.server.hand_over_timeout; });
  time("linger", [](Both& b) -> auto& { return b.server.connection.linger; });
  time("linger", [](Both& b) -> auto& { return b.client.connection.linger; });
  time("attempt_delay", [](Both& b) -> auto& { return b.client.attempt_delay; });
  time("timeout", [](Both& b) -> auto& { return b.client.timeout; });
  size("input_high", [](Both& b) -> auto& { return b.server.connection.input_high; });
  size("input_high", [](Both& b) -> auto& { return b.client.connection.input_high; });
  size("water_marks", [](Both& b) -> auto& { return b.server.connection.water_marks.high; });
  size("water_marks", [](Both& b) -> auto& { return b.server.connection.water_marks.low; });
  size("water_marks", [](Both& b) -> auto& { return b.client.connection.water_marks.high; });
  size("max_connections", [](Both& b) -> auto& { return b.server.max_connections; });
  size("max_connections_per_peer",
       [](Both& b) -> auto& { return b.server.max_connections_per_peer; });
  add(all, "backlog", numbers, [](Both& b) -> auto& { return b.server.backlog; });
  add(all, "threads", std::vector<std::size_t>{0, kMostSize},
      [](Both& b) -> auto& { return b.server.threads; });
  add(all, "unix_mode", std::vector<unsigned>{0, 0777, 01000, ~0U},
      [](Both& b) -> auto& { return b.server.unix_mode; });
  return all;
}

/// Calls, and is content with an error that names the option.
Task<> works_or_names(std::string_view option, Task<> use) {
  try {
    co_await std::move(use);
  } catch (const std::invalid_argument& error) {
    INFO(error.what());
    CHECK(std::string_view(error.what()).find(option) != std::string_view::npos);
  }
}

Task<> one_echo(const Both& both) {
  TcpServer server(EventLoop::current(), both.server);
  server.listen();
  server.start(echo);
  {
    TcpConnection client = co_await connect(server.address().to_string(), both.client);
    co_await client.send("hello");
    const Chunk answer = co_await client.read_exactly(5);
    CHECK(answer.view() == "hello");
  }
  (void)co_await server.drain(both.server.drain_timeout);
  CHECK(server.connection_count() == 0);
}

/// Fails again and again, until it, or somebody, has enough of that.
Task<> tries_for_ever(RetryPolicy policy) {
  const auto fails = []() -> Task<> {
    throw std::system_error(make_error_code(std::errc::connection_refused));
    co_return;
  };
  try {
    co_await timeout(20ms, retry(policy, fails));
  } catch (const std::system_error&) {
  }
}

Task<> tries_to_connect(ConnectorOptions options) {
  const RefusingPort port;
  const Connector connector(port.address(), options);
  try {
    (void)co_await timeout(20ms, connector.connect());
  } catch (const std::system_error&) {
  }
}

}  // namespace

TEST_CASE("a server or a client with an option at the end of its range works, or names it") {
  const std::vector<Extreme> all = extremes();
  on_each_engine([&]() -> Task<> {
    for (const Extreme& extreme : all) {
      CAPTURE(extreme.option);
      CAPTURE(extreme.value);
      Both both;
      both.server.address = loopback();
      extreme.set(both);
      co_await works_or_names(extreme.option, one_echo(both));
    }
  });
}

TEST_CASE("a loop with an option at the end of its range runs, or names it") {
  const auto runs = [](std::string_view option, const LoopOptions& options) {
    CAPTURE(option);
    try {
      EventLoop loop(options);
      bool ran = false;
      const auto body = [&]() -> Task<> {
        co_await yield();
        ran = true;
      };
      loop.run_until_complete(body());
      CHECK(ran);
    } catch (const std::invalid_argument& error) {
      CHECK(std::string_view(error.what()).find(option) != std::string_view::npos);
    }
  };
  for_each_engine([&](Engine engine) {
    const LoopOptions usual{.engine = engine};
    for (const unsigned entries : {0U, 1U, 3U, 4U, 4096U, 8192U, ~0U}) {
      LoopOptions options = usual;
      options.ring_entries = entries;
      runs("ring_entries", options);
    }
    for (const std::size_t bytes :
         {std::size_t{0}, std::size_t{63}, std::size_t{64}, std::size_t{1} << 20, kMostSize}) {
      LoopOptions options = usual;
      options.buffer_count = 16;
      options.buffer_size = bytes;
      runs("buffer_size", options);
    }
    for (const std::size_t count :
         {std::size_t{0}, std::size_t{1}, std::size_t{32768}, kMostSize}) {
      LoopOptions options = usual;
      options.buffer_size = 64;
      options.buffer_count = count;
      runs("buffer_count", options);
    }
    for (const auto stall : {std::chrono::milliseconds::min(), -1ms, std::chrono::milliseconds(0),
                             std::chrono::milliseconds::max()}) {
      LoopOptions options = usual;
      options.stall = stall;
      runs("stall", options);
    }
    for (const int cpu : {std::numeric_limits<int>::min(), -2, -1, 0, kMostInt}) {
      LoopOptions options = usual;
      options.cpu = cpu;
      runs("cpu", options);
    }
  });
}

TEST_CASE("delays between tries may be as short and as long as there are any") {
  on_each_engine([]() -> Task<> {
    using std::chrono::milliseconds;
    for (const auto delay : {milliseconds::min(), milliseconds(-1), milliseconds(0),
                             milliseconds(1), milliseconds::max()}) {
      for (const auto longest : {milliseconds(0), milliseconds::max()}) {
        CAPTURE(delay.count());
        CAPTURE(longest.count());
        RetryPolicy policy;
        policy.max_attempts = 20;
        policy.initial_delay = delay;
        policy.max_delay = longest;
        co_await works_or_names("_delay", tries_for_ever(policy));
        ConnectorOptions options;
        options.initial_delay = delay;
        options.max_delay = longest;
        options.max_attempts = 20;
        options.attempt_timeout = longest;
        options.total_timeout = longest;
        co_await works_or_names("_delay", tries_to_connect(options));
      }
    }
  });
}
