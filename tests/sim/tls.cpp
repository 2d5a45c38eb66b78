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

struct RunOfWorld {
  std::uint64_t hash;
  int done;
};

RunOfWorld run_world(std::uint64_t seed, const sim::Faults& faults, const TlsContext& secure,
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

TEST_CASE("in a simulated world certificates run out, and become valid, by its own time") {
  const Credentials& credentials = Credentials::instance();
  const Directory directory;
  const std::string certificate = directory.file("c");
  const std::string key = directory.file("k");
  const auto reason_at = [](Duration when, const TlsContext& secure) {
    std::string reason;
    sim::World world({.seed = 1});
    sim::Host& server = world.add_host("10.0.0.1");
    const auto serve = [](TlsContext context) -> Task<> {
      ServerOptions options;
      options.address = SocketAddress::parse("10.0.0.1:443");
      options.tls = &context;
      TcpServer listening(EventLoop::current(), std::move(options));
      listening.start([](TcpConnection conn) -> Task<> { (void)co_await conn.read(); });
      co_await sleep(1000h);
    };
    server.spawn(serve(secure));
    const auto ask = [](Duration at, TlsContext trusting, std::string& why) -> Task<> {
      co_await sleep(at);
      ConnectOptions options;
      options.tls = &trusting;
      options.server_name = "server.sim";
      try {
        (void)co_await connect("10.0.0.1:443", options);
      } catch (const std::system_error& error) {
        why = error.what();
      }
    };
    world.add_host("10.0.0.2").spawn(ask(when, client_context(), reason));
    world.run_for(when + 1min);
    return reason;
  };
  CHECK(reason_at(1min, server_context()) == "");
  CHECK(reason_at(2h, server_context()).find("has expired") != std::string::npos);
  credentials.write({.from = 30 * 60}, certificate, key);
  const TlsContext later =
      TlsContext::server({.certificate_file = certificate, .private_key_file = key});
  CHECK(reason_at(1min, later).find("not yet valid") != std::string::npos);
  CHECK(reason_at(45min, later) == "");
}

TEST_CASE("a simulated run with TLS is the same run each time, and bytes survive harsh faults") {
  const TlsContext secure = server_context();
  const TlsContext trusting = client_context();
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    const sim::Faults faults = seed % 2 == 0 ? sim::Faults::harsh() : sim::Faults{};
    const RunOfWorld first = run_world(seed, faults, secure, trusting);
    const RunOfWorld second = run_world(seed, faults, secure, trusting);
    CHECK(first.hash == second.hash);
    CHECK(first.done == second.done);
    if (seed % 2 == 1) CHECK(first.done >= 12);
  }
}
