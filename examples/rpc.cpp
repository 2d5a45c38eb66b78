// rpc --port N [--address A] [--threads T] [--engine auto|uring|epoll]
// rpc --connect HOST:PORT [--calls N] [--limit MS]
//
// Remote calls: many at a time on one connection, answered in any order, each with a deadline. The
// server writes texts in capitals, and for "sleep MS" takes its time. The client makes its calls at
// once and says what became of them. rpc/client.h and rpc/server.h are to copy from.
#include <weir/weir.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/arguments.h"
#include "rpc/client.h"
#include "rpc/server.h"

using namespace weir;
using namespace std::chrono_literals;

namespace {

Task<std::string> serve_request(std::string request) {
  constexpr std::string_view kSleep = "sleep ";
  if (request.starts_with(kSleep)) {
    const auto time = std::strtoul(request.c_str() + kSleep.size(), nullptr, 10);
    co_await sleep(std::chrono::milliseconds(std::min(time, 60'000UL)));
  }
  std::ranges::transform(request, request.begin(),
                         [](char c) { return c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c; });
  co_return request;
}

struct Tally {
  std::size_t answered = 0;
  std::size_t late = 0;
  std::size_t broken = 0;
};

Task<> call_once(rpc::Client& client, std::size_t number, std::chrono::milliseconds limit,
                 Tally& tally) {
  const std::string text = "call " + std::to_string(number);
  auto [error, answer] = co_await as_tuple(client.call(text, limit));
  if (!error && answer == "CALL " + std::to_string(number)) {
    ++tally.answered;
  } else {
    ++(error == errc::deadline ? tally.late : tally.broken);
  }
}

Task<bool> call_many(std::string server, std::size_t count, std::chrono::milliseconds limit) {
  rpc::Client client({.host = std::move(server)});
  Tally tally;
  TaskGroup calls;
  for (std::size_t number = 0; number < count; ++number) {
    calls.spawn(call_once(client, number, limit, tally));
  }
  co_await calls.join();
  std::printf("%zu answered, %zu too late, %zu broken\n", tally.answered, tally.late, tally.broken);
  co_return tally.answered == count;
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv, {{"connect", ""}, {"calls", "100"}, {"limit", "5000"}});
  if (const std::string& server = arguments.text("connect"); !server.empty()) {
    return run(call_many(server, arguments.number("calls"), arguments.milliseconds("limit"))) ? 0
                                                                                              : 1;
  }
  TcpServer server(arguments.server_options("rpc"));
  serve(server,
        [](TcpConnection conn) { return rpc::answer_calls(std::move(conn), serve_request); });
} catch (const std::exception& error) {
  std::fprintf(stderr, "rpc: %s\n", error.what());
  return 1;
}
