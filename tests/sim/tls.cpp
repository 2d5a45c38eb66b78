// TLS under the simulated network: as it is, and the same each time.
#include "../support/tls.h"

#include <weir/sim.h>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <system_error>

#include "../support/sim.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Connects again and again until so many exchanges have come back.
Task<> talk(TlsContext trusting, int wanted, int& done) {
  while (done < wanted) {
    try {
      ConnectOptions options;
      options.tls = &trusting;
      options.server_name = "server.sim";
      options.timeout = 20s;
      TcpConnection conn = co_await connect("10.0.0.1:443", options);
      for (int i = 0; i < 3; ++i) {
        const std::string sent = pattern(20'000, static_cast<std::uint64_t>(done));
        co_await conn.send(sent);
        Task<Chunk> reading = [](TcpConnection& from, std::size_t count) -> Task<Chunk> {
          co_return co_await from.read_exactly(count);
        }(conn, sent.size());
        const Chunk got = co_await timeout(20s, std::move(reading));
        if (got.is_end()) break;
        if (got.view() != sent) throw std::logic_error("other bytes");
        ++done;
      }
      co_await conn.shutdown();
    } catch (const std::system_error&) {  // the network's doing
    }
    co_await sleep(10ms);
  }
}

struct Run {
  std::uint64_t hash;
  int done;
};

Run run_world(std::uint64_t seed, const sim::Faults& faults, const TlsContext& secure,
              const TlsContext& trusting) {
  int done = 0;
  sim::World world({.seed = seed, .faults = faults});
  sim::Host& server = world.add_host("10.0.0.1");
  sim::Host& client = world.add_host("10.0.0.2");
  const auto serve = [](TlsContext context) -> Task<> {
    ServerOptions options;
    options.address = SocketAddress::parse("10.0.0.1:443");
    options.tls = &context;
    TcpServer listening(EventLoop::current(), std::move(options));
    listening.start([](TcpConnection conn) -> Task<> {
      while (Chunk chunk = co_await conn.read()) co_await conn.send(std::move(chunk));
    });
    co_await sleep(24h);
  };
  server.spawn(serve(secure));
  client.spawn(talk(trusting, 12, done));
  world.run_for(30min);
  return {world.trace_hash(), done};
}

}  // namespace

TEST_CASE("a simulated run with TLS is the same run each time, and bytes survive harsh faults") {
  const TlsContext secure = server_context();
  const TlsContext trusting = client_context();
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    const sim::Faults faults = seed % 2 == 0 ? sim::Faults::harsh() : sim::Faults{};
    const Run first = run_world(seed, faults, secure, trusting);
    const Run second = run_world(seed, faults, secure, trusting);
    CHECK(first.hash == second.hash);
    CHECK(first.done == second.done);
    if (seed % 2 == 1) CHECK(first.done >= 12);
  }
}
