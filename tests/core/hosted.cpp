// A loop in the loop of a host, which here is poll(2) alone.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

LoopOptions hosted_on(Engine engine) {
  LoopOptions options;
  options.engine = engine;
  return options;
}

bool is_readable(int fd, std::chrono::milliseconds within = 0ms) {
  pollfd polled{fd, POLLIN, 0};
  int count = -1;
  do {
    count = ::poll(&polled, 1, static_cast<int>(within.count()));
  } while (count < 0 && errno == EINTR);
  return count == 1;
}

/// Turns of a host until the condition holds; it sleeps until the loop has something to do.
template <class Condition>
int drive(EventLoop& loop, Condition condition) {
  int turns = 0;
  for (; !condition(); ++turns) {
    REQUIRE(is_readable(loop.poll_fd(), kPatience));
    REQUIRE(loop.run_ready());
  }
  return turns;
}

}  // namespace

TEST_CASE("a host that polls drives a server to the last byte") {
  for_each_engine([](Engine engine) {
    EventLoop loop(hosted_on(engine));
    (void)loop.poll_fd();
    CHECK(&EventLoop::current() == &loop);
    TcpServer server(loop, server_options(engine));
    server.start([](TcpConnection conn) -> Task<> {
      for (;;) {
        Chunk chunk = co_await conn.read();
        if (chunk.empty()) co_return;
        co_await conn.send(std::move(chunk));
      }
    });
    std::atomic<bool> done{false};
    std::string got;
    const SocketAddress address = server.address();
    const Thread client([&] {
      Peer peer = Peer::connect(address);
      {
        const Thread sender([&] {
          peer.send(pattern(3 << 20));
          peer.shutdown_send();
        });
        got = peer.receive_all();
      }
      done = true;
      loop.post([] {});
    });
    drive(loop, [&] { return done.load() && server.connection_count() == 0; });
    CHECK(got.size() == 3 << 20);
    CHECK(matching(got, 1, 0) == got.size());
  });
}

TEST_CASE("timers wake a host, and between them it sleeps") {
  for_each_engine([](Engine engine) {
    EventLoop loop(hosted_on(engine));
    const int fd = loop.poll_fd();
    int ticks = 0;
    bool done = false;
    loop.spawn([&]() -> Task<> {
      for (; ticks < 20; ++ticks) co_await sleep(2ms);
      done = true;
    });
    const auto start = std::chrono::steady_clock::now();
    CHECK(loop.run_ready());
    const int turns = drive(loop, [&] { return done; });
    CHECK(std::chrono::steady_clock::now() - start >= 40ms);
    CHECK(turns <= 80);  // some for each tick
    CHECK(loop.run_ready());
    CHECK_FALSE(is_readable(fd));
  });
}

TEST_CASE("what other threads post and spawn wakes a host") {
  for_each_engine([](Engine engine) {
    EventLoop loop(hosted_on(engine));
    (void)loop.poll_fd();
    constexpr int kEach = 200;
    int posted = 0;
    int spawned = 0;
    const Thread other([&] {
      for (int i = 0; i < kEach; ++i) {
        loop.post([&] { ++posted; });
        loop.spawn([&]() -> Task<> {
          co_await sleep(0ms);
          ++spawned;
        });
        if (i % 50 == 0) yield_thread();
      }
    });
    drive(loop, [&] { return posted == kEach && spawned == kEach; });
  });
}

TEST_CASE("a host sleeps between what other threads post, and is woken for each") {
  for_each_engine([](Engine engine) {
    EventLoop loop(hosted_on(engine));
    (void)loop.poll_fd();
    constexpr int kPosts = 100;
    std::atomic<int> done{0};
    const Thread other([&] {
      for (int i = 1; i <= kPosts; ++i) {
        loop.post([&] { ++done; });
        CHECK(eventually([&] { return done == i; }));
      }
    });
    drive(loop, [&] { return done == kPosts; });
  });
}

TEST_CASE(
    "a host is woken for an event counter of the program's, each time that it is written to") {
  for_each_engine([](Engine engine) {
    EventLoop loop(hosted_on(engine));
    (void)loop.poll_fd();
    const int counter = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    REQUIRE(counter >= 0);
    constexpr int kTimes = 100;
    std::atomic<int> seen{0};
    loop.spawn([&]() -> Task<> {
      while (seen < kTimes) {
        co_await readable(counter);
        std::uint64_t count = 0;
        if (::read(counter, &count, sizeof count) == sizeof count) ++seen;
      }
    });
    const Thread other([&] {
      for (int i = 1; i <= kTimes; ++i) {
        const std::uint64_t one = 1;
        CHECK(::write(counter, &one, sizeof one) == sizeof one);
        CHECK(eventually([&] { return seen == i; }));
      }
    });
    drive(loop, [&] { return seen == kTimes; });
    ::close(counter);
  });
}

TEST_CASE("a host has its turn though a task never rests, and the task has its own") {
  for_each_engine([](Engine engine) {
    EventLoop loop(hosted_on(engine));
    const int fd = loop.poll_fd();
    int rounds = 0;
    bool end = false;
    loop.spawn([&]() -> Task<> {
      while (!end) {
        co_await turns(1);
        ++rounds;
      }
    });
    for (int i = 0; i < 10; ++i) {
      const int before = rounds;
      CHECK(loop.run_ready());
      CHECK(rounds > before);
      CHECK(is_readable(fd, kPatience));
    }
    end = true;
    drive(loop, [&] { return !is_readable(fd); });
  });
}

TEST_CASE("a stop is told to the host once, and the loop goes on if it does") {
  for_each_engine([](Engine engine) {
    EventLoop loop(hosted_on(engine));
    const int fd = loop.poll_fd();
    CHECK(loop.run_ready());
    const Thread other([&] { loop.stop(); });
    CHECK(is_readable(fd, kPatience));
    CHECK(eventually([&] { return !loop.run_ready(); }));
    bool ran = false;
    loop.post([&] { ran = true; });
    drive(loop, [&] { return ran; });
  });
}

TEST_CASE("what waits in a hosted loop goes with it") {
  for_each_engine([](Engine engine) {
    bool dropped = false;
    {
      EventLoop loop(hosted_on(engine));
      (void)loop.poll_fd();
      struct Says {
        bool& said;
        ~Says() { said = true; }
      };
      loop.spawn([&]() -> Task<> {
        const Says says{dropped};
        auto [conn, peer] = connect_pair();
        co_await conn.read();
      });
      CHECK(loop.run_ready());
      CHECK_FALSE(dropped);
    }
    CHECK(dropped);
    CHECK(EventLoop::current_or_null() == nullptr);
  });
}

TEST_CASE("a hosted loop refuses to run otherwise, and on other threads") {
  for_each_engine([](Engine engine) {
    EventLoop loop(hosted_on(engine));
    CHECK_THROWS_AS(loop.run_ready(), std::logic_error);
    (void)loop.poll_fd();
    CHECK_THROWS_AS(loop.run(), std::logic_error);
    bool refused = false;
    {
      const Thread other([&] {
        try {
          loop.run_ready();
        } catch (const std::logic_error&) {
          refused = true;
        }
      });
    }
    CHECK(refused);
    CHECK(loop.run_ready());
  });
}

TEST_CASE("a loop that runs, or is simulated, or has no descriptor left has none to poll") {
  on_each_engine([]() -> Task<> {
    EventLoop& loop = EventLoop::current();
    const bool simulated = loop.engine_name() == "simulation";
    try {
      (void)loop.poll_fd();
      FAIL("it ran already");
    } catch (const std::logic_error&) {
      CHECK_FALSE(simulated);
    } catch (const std::system_error& error) {
      CHECK(error.code() == std::errc::operation_not_supported);
      CHECK(simulated);
    }
    co_return;
  });
  for_each_engine([](Engine engine) {
    EventLoop loop(hosted_on(engine));
    std::error_code error;
    try {
      const NoDescriptorsLeft none;
      (void)loop.poll_fd();
    } catch (const std::system_error& thrown) {
      error = thrown.code();  // with descriptors again: sanitizers want some to look at it
    }
    CHECK(error == std::errc::too_many_files_open);
    (void)loop.poll_fd();
    CHECK(loop.run_ready());
  });
}
