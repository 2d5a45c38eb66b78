#include <weir/io/random.h>

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "../support/net.h"

// Several tasks use one connection in whatever way, and are dropped at any moment: what one of them
// ends, the others must not meet. Sanitizers see what goes wrong; WEIR_MIXED_USE_SEED=N begins
// there, WEIR_MIXED_USE_ROUNDS=N goes on for so many.

using namespace weir;
using namespace weir::test;

namespace {

using Shared = std::shared_ptr<std::optional<TcpConnection>>;

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// A file without a name, of so many zeros.
class ZeroFile {
 public:
  explicit ZeroFile(std::int64_t size) : fd_(::memfd_create("zeros", MFD_CLOEXEC)) {
    REQUIRE(fd_ >= 0);
    REQUIRE(::ftruncate(fd_, size) == 0);
  }
  ZeroFile(const ZeroFile&) = delete;
  ZeroFile& operator=(const ZeroFile&) = delete;
  ~ZeroFile() { ::close(fd_); }
  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  int fd_;
};

Task<> send_through_sender(TcpConnection& connection, Random& random) {
  Sender sender = connection.sender();
  (void)sender.try_send(std::string(random.below(1000), 'b'));
  std::string rest(random.below(100'000), 'c');
  co_await sender.send(std::move(rest));
}

Task<> wait_for_readiness(TcpConnection& connection) {
  const int fd = connection.native_handle();
  if (fd >= 0) (void)co_await when_any(readable(fd), writable(fd), connection.read());
}

/// What a task may wait for.
Task<> wait_somehow(TcpConnection& connection, const ZeroFile& file, Random& random) {
  switch (random.below(9)) {
    case 0: {
      std::string message(random.below(3) == 0 ? random.below(400'000) : random.below(2000), 'a');
      co_await connection.send(std::move(message));
      break;
    }
    case 1:
      co_await connection.send_file(file.fd(), 0, random.below(300'000));
      break;
    case 2:
      co_await connection.flush();
      break;
    case 3:
      co_await send_through_sender(connection, random);
      break;
    case 4:
      (void)co_await connection.read();
      break;
    case 5:
      (void)co_await connection.peek(random.below(5000));
      break;
    case 6:
      (void)co_await connection.read_exactly(random.below(50'000));
      break;
    case 7:
      (void)co_await connection.read_until("zz", 8000);
      break;
    default:
      if (EventLoop::current().engine_name() == "simulation") {
        co_await connection.flush();
      } else {
        co_await wait_for_readiness(connection);
      }
  }
}

/// What it may do at once.
void act_somehow(const Shared& shared, Random& random) {
  TcpConnection& connection = **shared;
  switch (random.below(40)) {
    case 0:
      return connection.force_close();
    case 1:
      return connection.close();
    case 2:
      return shared->reset();
    case 3:
      connection.set_water_marks({.high = 1 + random.below(100'000), .low = 1});
      return connection.on_high_water([weak = std::weak_ptr(shared), seed = random.next()] {
        if (const Shared mine = weak.lock(); mine && Random(seed).below(4) == 0) mine->reset();
      });
    default:
      return;
  }
}

Task<> use(Shared shared, const ZeroFile& file, std::uint64_t seed) {
  Random random(seed);
  for (int step = 0; step < 6 && *shared; ++step) {
    act_somehow(shared, random);
    if (!*shared) co_return;
    const auto limit = std::chrono::microseconds(random.below(3000));
    bool broken = false;
    try {
      if (random.below(20) == 0) {
        co_await timeout(limit, (*shared)->shutdown());
      } else {
        co_await timeout(limit, wait_somehow(**shared, file, random));
      }
    } catch (const std::logic_error&) {  // somebody else reads
    } catch (const std::system_error&) {
      broken = random.below(8) == 0;
    }
    // Who hears of an end may be the one who gives the connection up.
    if (broken) shared->reset();
    if (random.below(2) == 0) co_await yield();
  }
}

Task<> drop_somewhen(TaskGroup& group, std::uint64_t seed) {
  co_await sleep(std::chrono::microseconds(Random(seed).below(6000)));
  group.cancel();
}

Shared share(TcpConnection connection) {
  return std::make_shared<std::optional<TcpConnection>>(std::move(connection));
}

ConnectionOptions some_options(Random& random) {
  ConnectionOptions options;
  options.water_marks = {.high = 1 + random.below(200'000), .low = 1};
  options.input_high = 1 + random.below(100'000);
  options.linger = std::chrono::milliseconds(random.below(30));
  return options;
}

Task<> mix(const ZeroFile& file, std::uint64_t seed) {
  Random random(seed);
  const ConnectionOptions first = some_options(random);
  Linked pair = link_pair(first, some_options(random));
  const Shared a = share(std::move(pair.a));
  const Shared b = share(std::move(pair.b));
  TaskGroup at_a;
  TaskGroup at_b;
  TaskGroup droppers;
  for (int i = 0; i < 5; ++i) {
    at_a.spawn(use(a, file, random.next()));
    at_b.spawn(use(b, file, random.next()));
  }
  if (random.below(2) == 0) droppers.spawn(drop_somewhen(at_a, random.next()));
  if (random.below(2) == 0) droppers.spawn(drop_somewhen(at_b, random.next()));
  co_await at_a.join();
  a->reset();
  co_await at_b.join();
  co_await droppers.join();
}

void mix_on_each_engine(LoopOptions options) {
  const ZeroFile file(1 << 20);
  on_each_engine(
      [&]() -> Task<> {
        const std::uint64_t begin = setting("WEIR_MIXED_USE_SEED", 0);
        const std::uint64_t end = begin + setting("WEIR_MIXED_USE_ROUNDS", 100);
        for (std::uint64_t seed = begin; seed < end; ++seed) {
          CAPTURE(seed);
          co_await timeout(60s, mix(file, seed));
        }
        co_await turn_until([] { return EventLoop::current().metrics().buffers_leased == 0; });
      },
      options);
}

}  // namespace

TEST_CASE("whatever several tasks do with a connection, each of them ends, and nothing is kept") {
  mix_on_each_engine({});
}

TEST_CASE("whatever several tasks do with a connection ends in a ring of four with two buffers") {
  LoopOptions options;
  options.ring_entries = 4;
  options.buffer_count = 2;
  options.buffer_size = 512;
  mix_on_each_engine(options);
}
