#pragma once

#include <weir/io/sim/random.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

/// What the tests of and with the simulation share.
namespace weir::test {

using namespace std::chrono_literals;

/// Bytes `offset` to `offset + count` of a numbered stream.
inline std::string pattern(std::uint64_t stream, std::uint64_t offset, std::size_t count) {
  std::string bytes(count, '\0');
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t at = offset + i;
    sim::Random word(stream * 0x9e3779b97f4a7c15 + at / 8);
    bytes[i] = static_cast<char>(word.next() >> (8 * (at % 8)));
  }
  return bytes;
}

/// Takes in a stream piece by piece and throws at the first byte that is not the next one.
class CheckedStream {
 public:
  explicit CheckedStream(std::uint64_t stream) : stream_(stream) {}

  void take(std::string_view bytes) {
    if (bytes != pattern(stream_, offset_, bytes.size())) {
      throw std::logic_error("stream " + std::to_string(stream_) + " has other bytes than " +
                             "were sent, from byte " + std::to_string(offset_) + " on");
    }
    offset_ += bytes.size();
  }
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }

 private:
  std::uint64_t stream_;
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

inline ServerOptions options_at(std::string_view address) {
  ServerOptions options;
  options.address = SocketAddress::parse(address);
  return options;
}

/// Serves on port 7 until its host ends.
inline Task<> serve_echo() {
  TcpServer server(EventLoop::current(), options_at("0.0.0.0:7"));
  co_await start_server(server, echo_all);
  co_await Event().wait();
}

/// Runs the scenario in 200 worlds (WEIR_SIM_SEEDS: that many) and reports those that failed: a
/// quarter of them without faults, a quarter with mild ones, half with harsh ones.
inline void explore_all(std::string_view name, const std::function<void(sim::World&)>& scenario) {
  const auto run = [&](std::uint64_t seeds, const sim::Faults& faults) {
    sim::ExploreOptions options;
    options.first = faults.reset > 0 ? 1'000'001 : faults.interrupted > 0 ? 2'000'001 : 3'000'001;
    options.count = seeds;
    options.world.faults = faults;
    options.name = name;
    const sim::Exploration found = sim::explore(options, scenario);
    CHECK_MESSAGE(found.failures.empty(), found.text());
  };
  run(50, sim::Faults::none());
  run(50, sim::Faults::mild());
  run(100, sim::Faults::harsh());
}

}  // namespace weir::test
