#pragma once

#include <weir/io/random.h>
#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

/// What the tests of and with the simulation share.
namespace weir::test {

using namespace weir::detail;  // NOLINT: what is tested

using namespace std::chrono_literals;
using weir::detail::Random;

// The seeds of worlds with each set of faults: a seed says by itself which it needs.
inline constexpr std::uint64_t kSeedRange = 1'000'000'000;
inline constexpr std::uint64_t kPlainSeeds = 1 * kSeedRange;
inline constexpr std::uint64_t kMildSeeds = 2 * kSeedRange;
inline constexpr std::uint64_t kHarshSeeds = 3 * kSeedRange;

/// Bytes `offset` to `offset + count` of a numbered stream.
inline std::string stream_bytes(std::uint64_t stream, std::uint64_t offset, std::size_t count) {
  std::string bytes(count, '\0');
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t at = offset + i;
    Random word(stream * 0x9e3779b97f4a7c15 + at / 8);
    bytes[i] = static_cast<char>(word.next() >> (8 * (at % 8)));
  }
  return bytes;
}

/// Takes in a stream piece by piece and throws at the first byte that is not the next one.
class CheckedStream {
 public:
  /// With a world it is the world that fails, whoever catches what is thrown.
  explicit CheckedStream(std::uint64_t stream, sim::World* world = nullptr)
      : stream_(stream), world_(world) {}

  void take(std::string_view bytes) {
    if (bytes != stream_bytes(stream_, offset_, bytes.size())) {
      const std::string text = "stream " + std::to_string(stream_) + " has other bytes than were " +
                               "sent, from byte " + std::to_string(offset_) + " on";
      if (world_ != nullptr) world_->check(false, text);
      throw std::logic_error(text);
    }
    offset_ += bytes.size();
  }
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }

 private:
  std::uint64_t stream_;
  sim::World* world_;
  std::uint64_t offset_ = 0;
};

inline Task<> echo_all(TcpConnection connection) {
  while (Chunk chunk = co_await connection.read()) co_await connection.send(std::move(chunk));
}

/// A server on the current loop, tried again while the host is out of descriptors.
inline Task<> start_server(TcpServer& server, TcpServer::Handler handler) {
  for (;;) {
    try {
      server.listen();
      break;
    } catch (const std::system_error&) {
    }
    co_await sleep(10ms);
  }
  server.start(std::move(handler));
}

/// What the hosts of a world speak TLS with (tests/support/tls_worlds.cpp).
class WorldTls {
 public:
  WorldTls() = default;
  WorldTls(const WorldTls&) = delete;
  WorldTls& operator=(const WorldTls&) = delete;
  virtual ~WorldTls() = default;

  [[nodiscard]] virtual const TlsContext& server() const = 0;
  [[nodiscard]] virtual const TlsContext& client() const = 0;
  /// On a client's end.
  [[nodiscard]] virtual Task<> start(TcpConnection& connection) const = 0;

  /// Of the world that runs; nullptr: its hosts speak in the clear, as they do outside of
  /// `explore_all`.
  static const WorldTls*& current() noexcept {
    static const WorldTls* tls = nullptr;
    return tls;
  }

  using Maker = const WorldTls& (*)();
  /// nullptr: the tests are built without TLS.
  static Maker& maker() noexcept {
    static Maker make = nullptr;
    return make;
  }
};

/// Has a server or a client speak TLS, in a world that does.
inline ServerOptions options_at(std::string_view address) {
  ServerOptions options;
  options.address = SocketAddress::parse(address);
  if (const WorldTls* tls = WorldTls::current()) options.tls = &tls->server();
  return options;
}
template <class Options>
void add_tls(Options& options) {
  const WorldTls* tls = WorldTls::current();
  if (tls == nullptr) return;
  options.tls = &tls->client();
  options.server_name = "server.sim";
}
inline ConnectOptions client_options() {
  ConnectOptions options;
  add_tls(options);
  return options;
}
inline Task<> secure(TcpConnection& client) {
  if (const WorldTls* tls = WorldTls::current()) co_await tls->start(client);
}

/// Serves on port 7 until its host ends.
inline Task<> serve_echo() {
  TcpServer server(EventLoop::current(), options_at("0.0.0.0:7"));
  co_await start_server(server, echo_all);
  co_await Event().wait();
}

/// In one quarter of `explore_all`. Builds that are slow, those of the presets too, run fewer.
#if defined(__OPTIMIZE__) && !defined(WEIR_SANITIZED)
inline constexpr std::uint64_t kSeedsInQuarter = 50;
#else
inline constexpr std::uint64_t kSeedsInQuarter = 5;
#endif

/// The scenario, with TLS in half of the worlds: that is in the seed, and draws nothing.
inline std::function<void(sim::World&)> half_with_tls(std::function<void(sim::World&)> scenario) {
  return [scenario = std::move(scenario)](sim::World& world) {
    const bool speaks_tls = (Random(~world.seed()).next() & 1) != 0;
    const WorldTls::Maker make = WorldTls::maker();
    struct End {
      ~End() { WorldTls::current() = nullptr; }
    };
    const End end;
    WorldTls::current() = speaks_tls && make != nullptr ? &make() : nullptr;
    scenario(world);
  };
}

/// Runs the scenario in 200 worlds: a quarter of them without faults, a quarter with mild ones,
/// half with harsh ones (WEIR_SIM_SEEDS: that many in each quarter); in half of each with TLS.
/// Reports those that failed.
inline void explore_all(std::string_view name, const std::function<void(sim::World&)>& scenario) {
  const char* only = std::getenv("WEIR_SIM_SEED");  // NOLINT(concurrency-mt-unsafe)
  const std::uint64_t only_seed = only != nullptr ? std::strtoull(only, nullptr, 10) : 0;
  const auto run = [&](std::uint64_t first, const sim::Faults& faults) {
    constexpr std::uint64_t kPart = kSeedRange / 2;
    if (only != nullptr && only_seed / kPart != first / kPart) return;
    sim::ExploreOptions options;
    options.first = first;
    options.count = kSeedsInQuarter;
    options.world.faults = faults;
    options.name = name;
    const auto in_time = [&](sim::World& world) {
      ::alarm(400);  // the test's time limit, for each world
      scenario(world);
    };
    const sim::Exploration found = sim::explore(options, half_with_tls(in_time));
    CHECK_MESSAGE(found.failures.empty(), found.text());
  };
  run(kPlainSeeds, sim::Faults::none());
  run(kMildSeeds, sim::Faults::mild());
  run(kHarshSeeds, sim::Faults::harsh());
  run(kHarshSeeds + kSeedRange / 2, sim::Faults::harsh());
}

}  // namespace weir::test
