// GETs of one key, many in flight on one connection: hiredis on libevent by its own adapter, and on
// weir. `--server` is 1.2.3.4:6379; the key "key" holds 64 bytes.
#include <hiredis/adapters/libevent.h>

#include <cstdlib>
#include <exception>
#include <vector>

#include "../../examples/adapters/redis.h"
#include "load.h"

namespace {

constexpr std::size_t kValueBytes = 64;

// ---- hiredis and libevent ----

const char* const kWords[] = {"GET", "key"};
const std::size_t kSizes[] = {3, 3};

struct Own {
  load::Meter& meter;
  std::size_t in_flight = 0;
};

void ask(redisAsyncContext* redis, Own& own);

void on_reply(redisAsyncContext* redis, void* got, void* data) {
  auto& own = *static_cast<Own*>(data);
  const auto* reply = static_cast<const redisReply*>(got);
  if (reply == nullptr || reply->type != REDIS_REPLY_STRING ||
      static_cast<std::size_t>(reply->len) != kValueBytes) {
    std::fputs("redis_loops: a wrong reply\n", stderr);
    std::_Exit(1);
  }
  --own.in_flight;
  if (own.meter.done()) {
    ask(redis, own);
  } else if (own.in_flight == 0) {
    redisAsyncDisconnect(redis);
  }
}

void ask(redisAsyncContext* redis, Own& own) {
  redisAsyncCommandArgv(redis, &on_reply, &own, 2, const_cast<const char**>(kWords), kSizes);
  ++own.in_flight;
}

void own_loop(const load::Options& options, load::Meter& meter) {
  event_base* base = event_base_new();
  const std::size_t colon = options.server.find(':');
  redisAsyncContext* redis = redisAsyncConnect(options.server.substr(0, colon).c_str(),
                                               std::stoi(options.server.substr(colon + 1)));
  load::require(redis != nullptr && redis->err == 0, "no connection");
  redisLibeventAttach(redis, base);
  Own own{meter};
  for (std::size_t i = 0; i < options.in_flight; ++i) ask(redis, own);
  event_base_dispatch(base);
  event_base_free(base);
}

// ---- weir ----

weir::Task<> client(adapters::Redis& redis, load::Meter& meter) {
  for (bool more = true; more; more = meter.done()) {
    std::vector<std::string> words = {"GET", "key"};
    const adapters::RedisReply reply = co_await redis.command(std::move(words));
    load::require(reply.text.size() == kValueBytes, "a wrong reply");
  }
}

weir::Task<> weir_loop(const load::Options& options, load::Meter& meter) {
  adapters::Redis redis(options.server);
  std::vector<weir::Task<>> clients;
  for (std::size_t i = 0; i < options.in_flight; ++i) clients.push_back(client(redis, meter));
  co_await weir::when_all(std::move(clients));
}

}  // namespace

int main(int argc, char** argv) try {
  const load::Options options(argc, argv);
  load::Meter meter(options);
  if (options.loop == "own") {
    own_loop(options, meter);
  } else {
    weir::run(weir_loop(options, meter));
  }
  meter.print();
} catch (const std::exception& error) {
  std::fprintf(stderr, "redis_loops: %s\n", error.what());
  return 1;
}
