// What a fork has made has its parent's loops and servers too, and their descriptors; nothing that
// it does with those reaches the parent.
#include <weir/weir.h>

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <latch>
#include <memory>
#include <optional>
#include <semaphore>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "../support/directory.h"
#include "../support/net_server.h"
#include "../support/process.h"

using namespace weir;
using namespace weir::test;

namespace {

/// How a child ends that destroys its copy: 0, unless it hangs or falls.
template <class Thing>
int end_of_child(Thing& thing) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    thing.reset();
    ::_exit(0);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return status;
}

/// Forks in a task of the loop; the child goes on with that task as if it were the parent. Gives
/// how the child ends: 0 once the loop says whose it is.
template <class Next>
int end_of_child_that_goes_on(EventLoop& loop, Next next) {
  pid_t child = -1;
  const auto body = [&]() -> Task<> {
    auto [here, there] = stream_pair();
    child = ::fork();
    if (child == 0) {
      ::alarm(60);
      co_await next();
    }
    co_await here.send("one");
    const Chunk answer = co_await there.read_exactly(3);
    CHECK(answer.view() == "one");
  };
  try {
    loop.run_until_complete(body());
  } catch (const std::logic_error& error) {
    if (child != 0) throw;
    const std::string_view text = error.what();
    ::_exit(text.find("another process, before a fork") == std::string_view::npos ? 1 : 0);
  } catch (...) {
    if (child != 0) throw;
    ::_exit(3);
  }
  if (child == 0) ::_exit(2);
  int status = -1;
  ::waitpid(child, &status, 0);
  return status;
}

}  // namespace

TEST_CASE("a loop that goes on in a child of a fork says there whose it is, and serves nobody") {
  for_each_kernel_engine("it forks", [](Engine engine) {
    EventLoop loop(server_options(engine).loop);
    const auto sleeps = []() -> Task<> { co_await sleep(1ms); };
    CHECK(end_of_child_that_goes_on(loop, sleeps) == 0);
    const auto yields = []() -> Task<> {
      for (;;) co_await yield();
    };
    CHECK(end_of_child_that_goes_on(loop, yields) == 0);
  });
}

TEST_CASE(
    "a child of a fork that destroys its parent's server and loop leaves both to the parent") {
  for_each_kernel_engine("it forks", [](Engine engine) {
    const Directory directory;
    for (const bool is_unix : {false, true}) {
      ServerOptions options = server_options(engine);
      if (is_unix) options.address = SocketAddress::parse("unix:" + directory.file("socket"));
      std::optional<EventLoop> loop(std::in_place, options.loop);
      std::optional<TcpServer> server(std::in_place, *loop, options);
      const auto body = [&]() -> Task<> {
        server->start(echo);
        const std::string address = server->address().to_string();
        TcpConnection before = co_await connect(address);
        co_await before.send("one");
        Chunk answer = co_await before.read_exactly(3);
        CHECK(answer.view() == "one");
        const int dropped = end_of_child(server);
        CHECK(dropped == 0);
        co_await before.send("two");
        answer = co_await before.read_exactly(3);
        CHECK(answer.view() == "two");
        TcpConnection after = co_await connect(address);
        co_await after.send("new");
        answer = co_await after.read_exactly(3);
        CHECK(answer.view() == "new");
        before.close();
        after.close();
      };
      loop->run_until_complete(body());
      CHECK(end_of_child(server) == 0);
      CHECK(end_of_child(loop) == 0);
      const auto again = [&]() -> Task<> {
        TcpConnection after = co_await connect(server->address().to_string());
        co_await after.send("new");
        const Chunk answer = co_await after.read_exactly(3);
        CHECK(answer.view() == "new");
      };
      loop->run_until_complete(again());
    }
  });
}

TEST_CASE("a child that is forked beside a server's thread destroys its copy without that thread") {
  if (kThreadSanitizer) {
    MESSAGE("skipped: the sanitizer waits for the threads of a forked child's parent");
    return;
  }
  for_each_kernel_engine("it forks", [](Engine engine) {
    for (const std::size_t threads : {1UL, 3UL}) {
      auto server = std::make_unique<TcpServer>(server_options(engine, threads));
      server->listen();
      std::thread thread([&] { server->run(echo); });
      Peer peer = Peer::connect_to(*server);
      CHECK(echoes(peer));
      CHECK(eventually([] { return other_threads_sleep(); }));
      CHECK(end_of_child(server) == 0);
      CHECK(echoes(peer));
      Peer next = Peer::connect_to(*server);
      CHECK(echoes(next));
      server->stop();
      thread.join();
    }
  });
}

TEST_CASE("a child ends its copy of a connection to which a thread of its parent was sending") {
  if (kThreadSanitizer) {
    MESSAGE("skipped: the sanitizer waits for the threads of a forked child's parent");
    return;
  }
  for_each_kernel_engine("it forks", [](Engine engine) {
    on_engine(engine, []() -> Task<> {
      co_await yield();
      Connected connected = connect_pair();
      std::optional<TcpConnection> conn(std::move(connected.connection));
      std::atomic<bool> ends{false};
      std::thread sends([&ends, sender = conn->sender()] {
        while (!ends) (void)sender.try_send("one of many");
      });
      for (int i = 0; i < 30; ++i) CHECK(end_of_child(conn) == 0);
      ends = true;
      sends.join();
    });
  });
}

TEST_CASE("a child ends its copy of a loop without what others had asked of that, nor wakes it") {
  if (kThreadSanitizer) {
    MESSAGE("skipped: the sanitizer waits for the threads of a forked child's parent");
    return;
  }
  for_each_kernel_engine("it forks", [](Engine engine) {
    std::optional<EventLoop> loop(std::in_place, LoopOptions{.engine = engine});
    int pipe[2];
    REQUIRE(::pipe(pipe) == 0);
    // The loop's end takes a turn or two: the kernel has to let go of this.
    loop->spawn([fd = pipe[0]]() -> Task<> { co_await readable(fd); });
    std::atomic<bool> goes_on{false};
    std::atomic<int> done{0};
    std::binary_semaphore is_busy{0};
    std::thread runs([&] { loop->run(); });
    loop->post([&] {
      is_busy.release();
      goes_on.wait(false);
    });
    is_busy.acquire();
    std::thread calls([&] { loop->call([&] { ++done; }); });
    CHECK(eventually([] { return other_threads_sleep(); }));
    loop->post([&] { ++done; });
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(60);
      loop.reset();
      ::_exit(done);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
    goes_on = true;
    goes_on.notify_all();
    calls.join();
    loop->stop();
    runs.join();
    CHECK(done == 2);
    ::close(pipe[0]);
    ::close(pipe[1]);

    EventLoopThread quiet({.engine = engine});
    const auto wakes = [&quiet] {
      std::uint64_t count = 0;
      quiet.loop().call([&] { count = quiet.loop().metrics().wakes; });
      return count;
    };
    const std::uint64_t before = wakes();
    CHECK(eventually([] { return other_threads_sleep(); }));
    const pid_t other = ::fork();
    if (other == 0) {
      ::alarm(60);
      quiet.loop().stop();
      ::_exit(0);
    }
    ::waitpid(other, &status, 0);
    CHECK(eventually([] { return other_threads_sleep(); }));
    CHECK(wakes() == before + 1);  // by the call itself
  });
}

TEST_CASE("a child ends its copy of a server that a thread of its parent was asking") {
  if (kSanitized) {
    MESSAGE("skipped: in a child the sanitizer's allocator is as another thread had it");
    return;
  }
  for_each_kernel_engine("it forks", [](Engine engine) {
    ServerOptions options = server_options(engine);
    options.max_connections_per_peer = 10;
    std::optional<EventLoop> loop(std::in_place, options.loop);
    std::optional<TcpServer> server(std::in_place, *loop, options);
    server->start(echo);
    std::atomic<bool> ends{false};
    std::thread asks([&] {
      while (!ends) (void)server->metrics();
    });
    for (int i = 0; i < 30; ++i) CHECK(end_of_child(server) == 0);
    ends = true;
    asks.join();
  });
}

TEST_CASE("a child with threads of its own destroys its copy of a server of several threads") {
  if (kThreadSanitizer) {
    MESSAGE("skipped: the sanitizer starts no thread in a forked child");
    return;
  }
  for_each_kernel_engine("it forks", [](Engine engine) {
    const ServerOptions options = server_options(engine, 3, true);
    EventLoop loop(options.loop);
    std::optional<TcpServer> server(std::in_place, loop, options);
    server->start(echo);
    Peer peer = Peer::connect_to(*server);
    CHECK(echoes(peer));
    CHECK(eventually([] { return other_threads_sleep(); }));
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(60);
      // At once, so that they have all the stacks of the parent's threads.
      constexpr int kThreads = 8;
      std::latch all(kThreads);
      std::vector<std::thread> threads;
      for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&all] {
          volatile unsigned char stack[64 << 10];
          for (volatile unsigned char& byte : stack) byte = 0xa5;
          all.arrive_and_wait();
        });
      }
      for (std::thread& one : threads) one.join();
      server.reset();
      ::_exit(0);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
    CHECK(echoes(peer));
  });
}

TEST_CASE("a child has loops and threads of its own, whatever its parent's threads ran") {
  if (kThreadSanitizer) {
    MESSAGE("skipped: the sanitizer starts no thread in a forked child");
    return;
  }
  std::vector<std::unique_ptr<EventLoopThread>> threads;
  for (int i = 0; i < 4; ++i) threads.push_back(std::make_unique<EventLoopThread>());
  CHECK(eventually([] { return other_threads_sleep(); }));
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    const auto body = []() -> Task<Chunk> {
      auto [one, other] = stream_pair();
      co_await one.send("of the child");
      co_return co_await other.read();
    };
    for (int i = 0; i < 4; ++i) {
      EventLoopThread own;
      own.loop().call([] {});
      EventLoop loop;
      const Chunk chunk = loop.run_until_complete(body());
      if (chunk.view() != "of the child") ::_exit(1);
    }
    threads.clear();
    ::_exit(0);
  }
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("what was posted behind a function that forks runs in the parent alone") {
  for_each_kernel_engine("it forks", [](Engine engine) {
    EventLoop loop(server_options(engine).loop);
    pid_t child = -1;
    bool ran = false;
    loop.post([&] {
      child = ::fork();
      if (child == 0) ::alarm(60);
    });
    loop.post([&] { ran = true; });
    loop.post([&] { loop.stop(); });
    try {
      loop.run();
    } catch (const std::logic_error&) {
      if (child != 0) throw;
    }
    if (child == 0) ::_exit(ran ? 1 : 0);
    CHECK(ran);
    int status = -1;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  });
}
