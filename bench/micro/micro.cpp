// The framework's own steps, each alone: crossing loops, timers, tasks, leases, sending.
#include <weir/net/stream/segment_queue.h>
#include <weir/weir.h>

#include <benchmark/benchmark.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <utility>

using namespace weir;
using namespace weir::detail;
using namespace std::chrono_literals;

namespace {

/// Runs a coroutine that loops `for (auto _ : state)` on a loop of its own.
template <class Body>
void run_here(Body body) {
  EventLoop loop;
  loop.run_until_complete(body());
}

/// One producer thread sends on a connection that another thread's loop serves; the peer's end is
/// read and thrown away by a third.
void sender_try_send(benchmark::State& state) {
  EventLoopThread thread;
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
  Sender sender;
  std::optional<TcpConnection> connection;
  thread.loop().call([&] {
    connection.emplace(Socket(thread.loop().sockets(), ends[0]),
                       ConnectionOptions{.water_marks = {.high = 8 << 20, .low = 4 << 20}});
    sender = connection->sender();
  });
  std::uint64_t received = 0;
  std::thread drain([&] {
    static std::array<char, 1 << 20> buffer;
    for (ssize_t size = 0; (size = ::read(ends[1], buffer.data(), buffer.size())) > 0;) {
      received += static_cast<std::uint64_t>(size);
    }
  });
  const auto size = static_cast<std::size_t>(state.range(0));
  std::int64_t refused = 0;
  for (auto _ : state) {
    while (!sender.try_send(std::string(size, 'x'))) {
      ++refused;
      std::this_thread::yield();
    }
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["refused"] = static_cast<double>(refused);
  thread.loop().call([&] { connection.reset(); });
  drain.join();
  ::close(ends[1]);
  if (received != static_cast<std::uint64_t>(state.iterations()) * size) {
    state.SkipWithError("messages are missing");
  }
}
BENCHMARK(sender_try_send)->Arg(14)->Arg(64)->UseRealTime();

void channel_ping_pong(benchmark::State& state) {
  EventLoopThread other;
  run_here([&]() -> Task<> {
    Channel<int> there(1);
    Channel<int> back(1);
    const auto answer = [&]() -> Task<> {
      while (auto item = co_await there.receive()) co_await back.send(*item);
    };
    TaskGroup group;
    const auto cross = [&]() -> Task<> { co_await on(other.loop(), answer()); };
    group.spawn(cross());
    for (auto _ : state) {
      co_await there.send(1);
      benchmark::DoNotOptimize(co_await back.receive());
    }
    there.close();
    co_await group.join();
  });
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(channel_ping_pong)->UseRealTime();

/// What the kernel gives at the most: two threads, each blocking in read of an eventfd.
void eventfd_ping_pong(benchmark::State& state) {
  const int there = ::eventfd(0, EFD_CLOEXEC);
  const int back = ::eventfd(0, EFD_CLOEXEC);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    std::uint64_t value = 0;
    while (::read(there, &value, sizeof value) == sizeof value && !stop) {
      value = 1;
      if (::write(back, &value, sizeof value) < 0) return;
    }
  });
  std::uint64_t value = 1;
  for (auto _ : state) {
    value = 1;
    if (::write(there, &value, sizeof value) < 0 || ::read(back, &value, sizeof value) < 0) break;
  }
  stop = true;
  value = 1;
  if (::write(there, &value, sizeof value) < 0) std::abort();
  other.join();
  ::close(there);
  ::close(back);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(eventfd_ping_pong)->UseRealTime();

void post_from_another_thread(benchmark::State& state) {
  EventLoopThread thread;
  std::atomic<std::int64_t> ran{0};
  for (auto _ : state) {
    thread.loop().post([&ran] { ran.store(ran.load(std::memory_order_relaxed) + 1); });
  }
  while (ran.load() < state.iterations()) std::this_thread::yield();
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(post_from_another_thread)->UseRealTime();

void on_another_loop_and_back(benchmark::State& state) {
  EventLoopThread other;
  run_here([&]() -> Task<> {
    const auto give = []() -> Task<int> { co_return 1; };
    for (auto _ : state) benchmark::DoNotOptimize(co_await on(other.loop(), give()));
  });
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(on_another_loop_and_back)->UseRealTime();

struct CountingTimer : Timer {
  CountingTimer()
      : Timer([](Timer& timer) noexcept { ++static_cast<CountingTimer&>(timer).fired; }) {}
  std::int64_t fired = 0;
};

void timer_arm_and_cancel(benchmark::State& state) {
  run_here([&]() -> Task<> {
    EventLoop& loop = EventLoop::current();
    CountingTimer timer;
    TimePoint deadline = loop.now() + 10s;
    for (auto _ : state) {
      timer.arm(loop, deadline);
      deadline += 1us;
      timer.disarm();
    }
    co_return;
  });
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(timer_arm_and_cancel);

void timer_arm_and_expire(benchmark::State& state) {
  run_here([&]() -> Task<> {
    constexpr std::size_t kBatch = 1000;
    EventLoop& loop = EventLoop::current();
    std::array<CountingTimer, kBatch> timers;
    for (auto _ : state) {
      const TimePoint now = loop.deadline_in(Duration::zero());
      for (std::size_t i = 0; i < kBatch; ++i) timers[i].arm(loop, now + i * 100ns);
      while (timers.back().fired == 0) co_await yield();
      timers.back().fired = 0;
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kBatch));
  });
}
BENCHMARK(timer_arm_and_expire);

void await_a_task(benchmark::State& state) {
  run_here([&]() -> Task<> {
    const auto give = [](int value) -> Task<int> { co_return value; };
    for (auto _ : state) benchmark::DoNotOptimize(co_await give(1));
  });
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(await_a_task);

void spawn_a_task(benchmark::State& state) {
  run_here([&]() -> Task<> {
    TaskGroup group;
    const auto nothing = []() -> Task<> { co_return; };
    for (auto _ : state) group.spawn(nothing());
    co_await group.join();
  });
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(spawn_a_task);

void yield_to_the_loop(benchmark::State& state) {
  run_here([&]() -> Task<> {
    for (auto _ : state) co_await yield();
  });
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(yield_to_the_loop);

/// A second lease on received bytes, taken and given back.
void lease_and_give_back(benchmark::State& state) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
  if (::write(ends[1], "received", 8) != 8) std::abort();
  run_here([&]() -> Task<> {
    TcpConnection connection(Socket(EventLoop::current().sockets(), ends[0]));
    const Chunk chunk = co_await connection.read();
    for (auto _ : state) {
      Chunk second = chunk.slice(0);
      benchmark::DoNotOptimize(second);
    }
  });
  ::close(ends[1]);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(lease_and_give_back);

/// What waits to be sent: so many pieces go in, and out again.
void send_queue(benchmark::State& state) {
  struct Nobody final : BufferOwner {
    void release(Buffer& /*buffer*/) noexcept override {}
  } nobody;
  std::array<std::byte, 64> bytes{};
  Buffer buffer(nobody, bytes.data(), bytes.size(), 0);
  const BufferRef held(buffer);
  detail::SegmentQueue queue;
  for (auto _ : state) {
    for (std::int64_t i = 0; i < state.range(0); ++i) {
      queue.push_back({.buffer = held, .slice = {bytes.data(), bytes.size()}});
    }
    benchmark::DoNotOptimize(queue.front());
    while (!queue.empty()) queue.pop_front();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(send_queue)->Arg(1)->Arg(16);

/// The way of a message through connection, engine and kernel: sends, flushed together.
void send_and_flush(benchmark::State& state) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
  std::thread drain([&] {
    static std::array<char, 1 << 16> buffer;
    while (::read(ends[1], buffer.data(), buffer.size()) > 0) {
    }
  });
  run_here([&]() -> Task<> {
    TcpConnection connection(Socket(EventLoop::current().sockets(), ends[0]));
    for (auto _ : state) {
      for (std::int64_t i = 0; i < state.range(0); ++i) {
        co_await connection.send("a message of some sixty-four bytes, as the echo workloads have.");
      }
      co_await connection.flush();
    }
  });
  drain.join();
  ::close(ends[1]);
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(send_and_flush)->Arg(1)->Arg(16)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
