// Lines of the log as objects of JSON.
#include <weir/core/log_json.h>
#include <weir/core/logging.h>
#include <weir/core/loop_thread.h>

#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

/// For its life.
struct AsJson {
  AsJson() { logging::set_format(logging::Format::json); }
  AsJson(const AsJson&) = delete;
  AsJson& operator=(const AsJson&) = delete;
  ~AsJson() { logging::set_format(logging::Format::text); }
};

/// What follows the time.
std::string behind_time(const std::string& line) {
  constexpr std::string_view kBegin = R"({"time":"2)";
  CHECK(line.substr(0, kBegin.size()) == kBegin);
  return line.substr(line.find("Z\",") + 3);
}

std::string fields(std::string_view message, std::string_view context = {}) {
  std::array<char, 2048> text{};
  return {text.data(), weir::detail::write_json_fields(text, context, message)};
}

Task<> say_there() {
  logging::set_context("request=\"7\"");
  logging::write(logging::Level::warning, "said");
  co_return;
}

Task<> say_and_echo(TcpConnection conn) {
  while (Chunk chunk = co_await conn.read()) {
    logging::write(logging::Level::info, "echoes");
    co_await conn.send(std::move(chunk));
  }
}

}  // namespace

TEST_CASE("a line as JSON has time, level, thread and message, and what loop and task say") {
  const CapturedLog log;
  const AsJson json;
  logging::write(logging::Level::error, "failed");
  LoopOptions options;
  options.name = "of \\JSON";
  EventLoop(options).run_until_complete(say_there());
  const std::string thread = std::to_string(::gettid());
  const auto lines = log.lines();
  REQUIRE(lines.size() == 2);
  CHECK(behind_time(lines[0]) ==
        R"("level":"error","thread":)" + thread + R"(,"message":"failed"})");
  CHECK(behind_time(lines[1]) == R"("level":"warning","loop":"of \\JSON","thread":)" + thread +
                                     R"(,"context":"request=\"7\"","message":"said"})");
}

TEST_CASE("a handler's line as JSON names its connection") {
  for_each_engine([](Engine engine) {
    const CapturedLog log;
    const AsJson json;
    ServerOptions options = server_options(engine);
    options.name = "saying";
    ServerThread serving(std::move(options), say_and_echo);
    Peer peer = serving.connect();
    CHECK(echoes(peer));
    CHECK(log.count(R"("connection":"saying-127.)") == 1);
  });
}

TEST_CASE("what a line says is escaped, and what is no UTF-8 replaced") {
  const std::string thread = R"("thread":)" + std::to_string(::gettid()) + R"(,"message":")";
  CHECK(fields("\"\\\n\x01") == thread + R"(\"\\\u000a\u0001"})");
  CHECK(fields("grün 水 😀") == thread + "grün 水 😀\"}");
  for (const std::string_view wrong : {"\xff", "\xc0", "\x80", "\xf8", "\xe6"}) {
    CHECK(fields(wrong) == thread + R"(\ufffd"})");
  }
  CHECK(fields("\xc0\xaf") == thread + R"(\ufffd\ufffd"})");            // too long
  CHECK(fields("\xed\xa0\x80") == thread + R"(\ufffd\ufffd\ufffd"})");  // a surrogate
  CHECK(fields("\xf4\x90\x80\x80") == thread + R"(\ufffd\ufffd\ufffd\ufffd"})");
}

TEST_CASE(
    "a line that is too long is cut in its message, between characters, and stays an object") {
  for (std::size_t size = 2000; size < 2100; ++size) {
    const std::string text = fields(std::string(size, '\n'), "context");
    CHECK(text.size() <= 2048);
    CHECK(text.ends_with("\\u000a\"}"));
  }
  const std::string text = fields(std::string(5000, 'm'), std::string(5000, 'c'));
  CHECK(text.size() == 2048);
  CHECK(text.find("c\",\"message\":\"mmm") != std::string::npos);
  CHECK(text.ends_with("m\"}"));
}

TEST_CASE("the time of a line as JSON is UTC, to the millisecond") {
  std::array<char, weir::detail::kLongestJsonHead> text{};
  const auto head = [&](std::int64_t milliseconds, logging::Level level) {
    const std::chrono::system_clock::time_point time{std::chrono::milliseconds(milliseconds)};
    return std::string(text.data(), weir::detail::write_json_head(text, time, level));
  };
  CHECK(head(1709208000123, logging::Level::info) ==
        R"({"time":"2024-02-29T12:00:00.123Z","level":"info",)");
  CHECK(head(-1, logging::Level::debug) ==
        R"({"time":"1969-12-31T23:59:59.999Z","level":"debug",)");
}
