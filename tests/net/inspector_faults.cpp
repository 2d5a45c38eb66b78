// What goes wrong with servers, planted: what an inspector shows of each, with file, line and
// reason.
#include <weir/inspect.h>
#include <weir/weir.h>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <future>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../support/captured_log.h"
#include "../support/directory.h"
#include "../support/emulated.h"
#include "../support/inspected.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr std::string_view kHere = "tests/net/inspector_faults.cpp:";

/// The line of the tree that has the function is of this file, and says that.
void check_line(const std::string& tree, std::string_view function, std::string_view reason) {
  const std::string line = line_with(tree, function);
  CAPTURE(tree);
  CAPTURE(function);
  CHECK(has(line, " at " + std::string(kHere)));
  CHECK(has(line, reason));
}

/// What a test plants ends with this.
struct Gate {
  std::promise<void> opened;
  std::shared_future<void> future = opened.get_future().share();
  std::atomic<bool> open{false};
  Gate() = default;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  ~Gate() { release(); }
  void release() {
    if (!open.exchange(true)) opened.set_value();
  }
};

Task<> compute(TcpConnection conn, Gate& gate) {
  (void)co_await conn.read();
  while (!gate.open) continue;
}

Task<> hold(Mutex& mine, Mutex& others, Event& has_mine, Event& other_has) {
  const auto one = co_await mine.lock();
  has_mine.set();
  co_await other_has.wait();
  const auto two = co_await others.lock();
}

Task<> wait_for_nobody(Channel<int>& channel) { (void)co_await channel.receive(); }

Task<> use_pool(BlockingPool& pool, Gate& gate) {
  auto job = [future = gate.future] { future.wait(); };
  co_await pool.run(job);
}

Task<> starve(BlockingPool& pool) {
  auto job = [] {};
  co_await pool.run(job);
}

Task<> keep_chunks(TcpConnection conn, std::vector<Chunk>& kept) {
  while (Chunk chunk = co_await conn.read()) kept.push_back(std::move(chunk));
}

/// Sends the first chunk behind so much that it does not go, and reads no more.
Task<> send_first_back(TcpConnection conn, Event& never) {
  Chunk chunk = co_await conn.read();
  co_await conn.send(std::string(std::size_t{32} << 20, 'x'));
  co_await conn.send(std::move(chunk));
  co_await never.wait();
}

Task<> fill(TcpConnection conn) {
  for (;;) co_await conn.send(std::string(std::size_t{1} << 16, 'x'));
}

Task<> wait_named(Event& never) {
  task_name("outer\n" + std::string(200, 'x'));  // which is cut
  TaskGroup group;
  group.spawn([&never]() -> Task<> { co_await never.wait(); });
  co_await group.join();
}

Task<> wait_for(Event& never) { co_await never.wait(); }

Task<> spawn_many(std::size_t count, Event& never) {
  TaskGroup group;
  for (std::size_t i = 0; i < count; ++i) group.spawn(wait_for(never));
  co_await group.join();
}

Task<> count_turns(std::atomic<std::uint64_t>& count) {
  for (;;) {
    co_await yield();
    ++count;
  }
}

/// Asks until the answer as JSON has the text.
bool asked_until(const Inspector& inspector, std::string_view path, std::string_view text) {
  return eventually([&] { return has(get(inspector, path, "application/json"), text); });
}

std::size_t occurrences(const std::string& text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) {
    ++count;
  }
  return count;
}

/// Real-time signals that are not at their default.
std::vector<int> used_signals() {
  std::vector<int> used;
  for (int number = SIGRTMIN; number <= SIGRTMAX; ++number) {
    struct sigaction now{};
    REQUIRE(::sigaction(number, nullptr, &now) == 0);
    if (now.sa_handler != SIG_DFL) used.push_back(number);
  }
  return used;
}

bool has_promtool() {
  static const bool has = std::system("command -v promtool > /dev/null 2>&1") == 0;  // NOLINT
  if (!has) MESSAGE("promtool (Debian's prometheus) is not there: it does not see the metrics");
  return has;
}

extern "C" void users_handler(int) {}

/// A signal that the program uses.
struct Used {
  explicit Used(int of) : number(of) {
    struct sigaction action{};
    action.sa_handler = users_handler;
    REQUIRE(::sigaction(number, &action, &before) == 0);
  }
  Used(const Used&) = delete;
  Used& operator=(const Used&) = delete;
  ~Used() { ::sigaction(number, &before, nullptr); }
  int number;
  struct sigaction before{};
};

}  // namespace

TEST_CASE("a handler that computes: its loop is stuck, at which await it began, and its stack") {
  for_each_engine([](Engine engine) {
    const CapturedLog log = CapturedLog::with_stalls();
    const Used used(SIGRTMAX - 9);
    const Inspector inspector({.address = loopback()});
    Gate gate;
    ServerOptions options = server_options(engine);
    options.loop.name = "computing";
    options.loop.stall = 10ms;
    ServerThread serving(std::move(options),
                         [&](TcpConnection conn) { return compute(std::move(conn), gate); });
    Peer peer = serving.connect();
    peer.send("begin");
    std::string tree;
    const auto shown = [&] { return has(tree = get(inspector, "/tasks"), "awaited last in "); };
    if (!kThreadSanitizer) {  // which delivers no signal to what computes
      CHECK(eventually(shown));
      CAPTURE(tree);
      CHECK(has(line_with(tree, "\"computing\""), "STUCK in one turn for "));
      CHECK(has(line_with(tree, "the thread "), "the thread runs"));
      CHECK(has(line_with(tree, "awaited last in "), "compute at " + std::string(kHere)));
      CHECK(has(line_with(tree, "compute ("), "+0x"));
      CHECK(has(tree, "    weir::detail::Scheduler::run_ready ("));
      CHECK(asked_until(inspector, "/tasks", R"("thread":{"state":"runs")"));
      // The log says so as well; with the stack, unless the thread had no time for an answer.
      CHECK(eventually([&] { return log.count("has been in one turn for ") > 0; }));
      // Nothing is left of a question that was answered, as at some time the last one is.
      CHECK(eventually([&] {
        (void)get(inspector, "/tasks");
        return used_signals() == std::vector<int>{used.number};
      }));
    }
    gate.release();
    serving.stop();
  });
}

TEST_CASE("a thread of the library's own, which blocks signals, has a stack to show as well") {
  if (kThreadSanitizer) return;  // as above
  if (kEmulated) {
    MESSAGE("skipped: the emulator tells the handler of a signal nothing of a stack");
    return;
  }
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    Gate gate;
    Inspected inspected(engine);
    inspected.loop().post([&] {
      while (!gate.open) continue;
    });
    std::string tree;
    CHECK(eventually([&] { return has(tree = get(inspector, "/tasks"), "EventLoop::run ("); }));
    CHECK_FALSE(has(tree, "awaited last"));
    gate.release();
    inspected.thread.stop();
  });
}

TEST_CASE(
    "a loop that waits in a call which a signal would end is shown with that call, and goes on") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    std::array<int, 2> pipe{};
    REQUIRE(::pipe2(pipe.data(), O_CLOEXEC) == 0);
    std::atomic<int> result{-2};
    std::promise<void> begins;
    Inspected inspected(engine);
    inspected.loop().post([&] {
      begins.set_value();
      pollfd wanted{pipe[0], POLLIN, 0};
      result = ::poll(&wanted, 1, -1);
    });
    begins.get_future().wait();
    std::string tree;
    CHECK(eventually([&] { return has(tree = get(inspector, "/tasks"), "the thread waits"); }));
    CHECK_FALSE(has(tree, "+0x"));
    CHECK(result == -2);
    REQUIRE(::write(pipe[1], "x", 1) == 1);
    inspected.thread.stop();
    CHECK(result == 1);
    for (const int fd : pipe) ::close(fd);
  });
}

TEST_CASE("who waits for what never comes is named: mutexes, a channel, a pool of threads") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    Mutex a;
    Mutex b;
    Event has_a;
    Event has_b;
    Channel<int> channel(1);
    Gate gate;
    BlockingPool pool({.threads = 1});
    Inspected inspected(engine);
    inspected.loop().spawn(hold(a, b, has_a, has_b));
    inspected.loop().spawn(hold(b, a, has_b, has_a));
    inspected.loop().spawn(wait_for_nobody(channel));
    inspected.loop().spawn(use_pool(pool, gate));
    inspected.loop().spawn(starve(pool));
    (void)tree_with(inspector, "starve at ");  // the last to begin
    const std::string tree = tree_with(inspector, ": Mutex::lock");
    check_line(tree, "hold at ", ": Mutex::lock");
    CHECK(occurrences(tree, ": Mutex::lock") == 2);
    check_line(tree, "wait_for_nobody at ", ": Channel::receive: it is empty");
    check_line(tree, "use_pool at ", ": blocking");
    check_line(tree, "starve at ", ": blocking");
    gate.release();
    inspected.thread.stop();
  });
}

TEST_CASE("a peer that does not read is shown at the mark, with the handler that waits for it") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    ServerOptions options = server_options(engine);
    options.name = "filled";
    ServerThread serving(std::move(options), fill);
    const Peer peer = serving.connect();
    const std::string tree = tree_with(inspector, ": send: above the mark");
    check_line(tree, "fill [filled-127.", ": send: above the mark");
    std::string line;
    CHECK(eventually([&] {  // that the kernel takes no more either
      line = line_with(get(inspector, "/connections", "application/json"), "filled-127.");
      return has(line, R"("pending":)") && !has(line, R"("pending":0)");
    }));
  });
}

TEST_CASE("chunks that a handler keeps are counted as leased, and it is shown where it reads") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    std::vector<Chunk> kept;
    ServerOptions options = server_options(engine);
    options.name = "keeping";
    options.loop.name = "of the keeper";
    ServerThread serving(std::move(options),
                         [&](TcpConnection conn) { return keep_chunks(std::move(conn), kept); });
    Peer peer = serving.connect();
    peer.send(std::string(100, 'x'));
    std::string loops;
    CHECK(eventually([&] {
      loops = line_with(get(inspector, "/loops", "application/json"), "of the keeper");
      return has(loops, R"("buffers_leased":1,)") && has(loops, R"("buffers_kept":1,)");
    }));
    check_line(tree_with(inspector, "keep_chunks ["), "keep_chunks [keeping-127.", ": read");
    serving.stop();
    kept.clear();
  });
}

TEST_CASE("of leased buffers it is told for each connection what nobody reads, or no peer") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    Event never;
    ServerOptions options = server_options(engine);
    options.loop.name = "of the lessee";
    options.loop.buffer_size = 4096;
    options.connection.water_marks.high = std::size_t{64} << 20;
    ServerThread serving(std::move(options), [&](TcpConnection conn) {
      return send_first_back(std::move(conn), never);
    });
    Peer peer = serving.connect();
    peer.send(std::string(4096, 'x'));
    CHECK(asked_until(inspector, "/connections", R"("unread_buffers":0,"pending_buffers":1,)"));
    peer.send("go on");
    CHECK(asked_until(inspector, "/connections", R"("unread_buffers":1,"pending_buffers":1,)"));
    CHECK(asked_until(inspector, "/loops", R"("buffers_leased":2,"buffers_kept":0,)"));
    serving.stop();
  });
}

TEST_CASE("a task that has named itself is shown with that, and what it spawns is not") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    Event never;
    Inspected inspected(engine);
    inspected.loop().spawn(wait_named(never));
    const std::string name = "\"outer?" + std::string(128 - 6, 'x') + '"';
    const std::string tree = tree_with(inspector, ": Event::wait");
    check_line(tree, "wait_named " + name + " at ", ": TaskGroup::join");
    CHECK(occurrences(tree, name) == 1);
    CHECK(asked_until(inspector, "/tasks", "\"name\":" + name));
    inspected.thread.stop();
  });
  CHECK_THROWS_AS(task_name("of nobody"), std::logic_error);
}

TEST_CASE("ten thousand tasks are shown whole, in slices between which the loop turns") {
  for_each_engine([](Engine engine) {
    constexpr std::size_t kMany = 10'000;
    const Inspector inspector({.address = loopback()});
    Event never;
    std::atomic<std::uint64_t> turns{0};
    Inspected inspected(engine);
    inspected.loop().spawn(spawn_many(kMany, never));
    inspected.loop().spawn(count_turns(turns));
    (void)tree_with(inspector, "spawn_many at ");
    std::uint64_t before = 0;
    std::string tree;
    CHECK(eventually([&] {  // unless it does not answer in time
      before = turns;
      tree = get(inspector, "/tasks");
      return !has(tree, "STUCK");
    }));
    CHECK(turns - before >= kMany / 1000);
    CHECK(occurrences(tree, "wait_for at ") == kMany);
    CHECK_FALSE(has(tree, "and more"));
    inspected.thread.stop();
  });
}

TEST_CASE("the tree is whole where tasks come and go between its slices") {
  for_each_engine([](Engine engine) {
    EventLoop loop({.engine = engine});
    const auto look = [&]() -> Task<> {
      Event never;
      TaskGroup stays;
      for (int i = 0; i < 100; ++i) stays.spawn(wait_for(never));
      std::vector<std::unique_ptr<TaskGroup>> leave;
      const auto renew = [&] {
        leave.clear();
        for (int i = 0; i < 5; ++i) {
          leave.push_back(std::make_unique<TaskGroup>());
          for (int j = 0; j < 5; ++j) leave.back()->spawn(wait_for(never));
        }
      };
      renew();
      weir::detail::TaskSurvey survey(loop);
      weir::detail::LoopReport report;
      while (!survey.go_on(report, 7)) {
        co_await yield();
        renew();
      }
      const auto waiting = std::count_if(report.tasks.begin(), report.tasks.end(), [](auto& line) {
        return line.words == std::string_view("Event::wait");
      });
      CHECK(waiting >= 100);
      CHECK(waiting <= 100 + 4 * 25);
      CHECK_FALSE(report.tasks_cut);
    };
    loop.run_until_complete(look());
  });
}

TEST_CASE("a task that began before its loop's first turn waits since then, not since ever") {
  for_each_engine([](Engine engine) {
    auto& machine = weir::detail::process_machine();
    const std::uint32_t begun = machine.clock_ms();
    EventLoop loop({.engine = engine});
    Event never;
    const auto look = [&]() -> Task<> {
      TaskGroup first;
      first.spawn(wait_for(never));
      weir::detail::LoopReport report;
      while (!weir::detail::TaskSurvey(loop).go_on(report, 100)) continue;
      for (const auto& line : report.tasks) CHECK(line.waiting_ms <= machine.clock_ms() - begun);
      co_await yield();
    };
    loop.spawn(wait_for(never));
    loop.run_until_complete(look());
  });
}

TEST_CASE(
    "the metrics have histograms of turns, of late timers and of accepts, as promtool likes it") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    ServerOptions options = server_options(engine);
    options.name = "measured \"so\"";
    options.loop.name = "measured";
    ServerThread serving(std::move(options), echo);
    Peer peer = serving.connect();
    CHECK(echoes(peer));
    std::atomic<bool> slept{false};
    (*serving).loops().front()->spawn([&]() -> Task<> {
      co_await sleep(1ms);
      slept = true;
    });
    CHECK(eventually([&] { return slept.load(); }));
    const bool checked = has_promtool();
    std::string metrics;
    CHECK(eventually([&] {  // unless it does not answer in time
      metrics = get(inspector, "/metrics");
      constexpr std::string_view kUp = "name=\"measured\"} ";  // at first of weir_loop_up
      return metrics.substr(metrics.find(kUp) + kUp.size(), 1) == "1";
    }));
    CAPTURE(metrics);
    const auto count_of = [&](std::string_view name, std::string_view labels) {
      std::string line = metrics.substr(metrics.find(std::string(name) + "_count{"));
      line = line_with(line, labels);
      return line.substr(line.rfind(' ') + 1);
    };
    CHECK(count_of("weir_server_accept_to_handler_seconds", "measured") == "1");
    CHECK(count_of("weir_loop_lag_seconds", "name=\"measured\"") != "0");
    CHECK(count_of("weir_loop_turn_seconds", "name=\"measured\"") != "0");
    CHECK(has(metrics, "# TYPE weir_loop_turn_seconds histogram\n"));
    CHECK(has(metrics, "name=\"measured\",le=\"+Inf\"} "));
    if (!checked) return;
    const Directory directory;
    const std::string file = directory.file("metrics");
    std::ofstream(file) << metrics.substr(metrics.find("\r\n\r\n") + 4);
    CHECK(std::system(("promtool check metrics < " + file).c_str()) == 0);  // NOLINT
  });
}
