#include <weir/weir.h>

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <string_view>

#include "../../examples/socks5/handshake.h"

using namespace weir;

namespace {

/// What a client that says all that, a byte at a time, asks for, and what it is told.
struct Asked {
  std::optional<socks5::Request> request;
  std::string told;
};

Task<Asked> ask(std::string_view said) {
  auto [client, server] = stream_pair();
  Asked asked;
  const auto say = [&]() -> Task<> {
    for (const char& byte : said) {
      co_await client.send(std::string_view(&byte, 1));
      co_await client.flush();
    }
    co_await client.shutdown();
    while (Chunk chunk = co_await client.read()) asked.told += chunk.view();
  };
  const auto answer = [&]() -> Task<> {
    asked.request = co_await socks5::read_request(server);
    server.close();
  };
  co_await when_all(say(), answer());
  co_return asked;
}

}  // namespace

TEST_CASE("a SOCKS request is read from a pair in memory as from a socket") {
  using namespace std::string_view_literals;
  const Asked whole = run(ask("\5\1\0\5\1\0\3\4host\0\120"sv));
  REQUIRE(whole.request);
  CHECK(whole.request->target == "host:80");
  CHECK(whole.told == "\5\0"sv);
  const Asked refused = run(ask("\5\1\2"sv));
  CHECK_FALSE(refused.request);
  CHECK(refused.told == "\5\xff"sv);
  const Asked other = run(ask("GET / HTTP/1.1\r\n"sv));
  CHECK_FALSE(other.request);
  CHECK(other.told.empty());
}
