#include <weir/core/log_line.h>
#include <weir/core/logging.h>

#include <doctest/doctest.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "../support/allocations.h"
#include "../support/captured_log.h"
#include "../support/child.h"
#include "../support/net_server.h"

namespace weir::test {
namespace {

/// As a user's program, with nothing of it qualified.
namespace of_a_user {
using namespace weir;
double magnitude(double x) { return log(x); }
}  // namespace of_a_user

TEST_CASE("a program that uses the namespace weir can take a logarithm") {
  CHECK(of_a_user::magnitude(1.0) == 0.0);
}

using logging::Level;

/// Takes lines while it is open, and says of each on which thread and for which time it came.
class Gate final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  struct Line {
    std::string text;
    std::thread::id thread;
    std::chrono::system_clock::time_point time;
  };

  void set_open(bool open) {
    const std::lock_guard lock(state_);
    open_ = open;
    changed_.notify_all();
  }
  void wait_for_a_line_at_the_gate() {
    std::unique_lock lock(state_);
    changed_.wait(lock, [this] { return waiting_; });
  }
  std::vector<Line> lines() {
    const std::lock_guard lock(state_);
    return lines_;
  }
  int flushes() {
    const std::lock_guard lock(state_);
    return flushes_;
  }

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    std::unique_lock lock(state_);
    waiting_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
    waiting_ = false;
    lines_.push_back({std::string(message.payload.data(), message.payload.size()),
                      std::this_thread::get_id(), message.time});
  }
  void flush_() override {
    const std::lock_guard lock(state_);
    ++flushes_;
  }

  std::mutex state_;
  std::condition_variable changed_;
  bool open_ = true;
  bool waiting_ = false;
  int flushes_ = 0;
  std::vector<Line> lines_;
};

/// The log's lines go to a gate while this lives.
struct Gated {
  Gated() { logging::set_logger(std::make_shared<spdlog::logger>("gated", gate)); }
  Gated(const Gated&) = delete;
  Gated& operator=(const Gated&) = delete;
  ~Gated() {
    gate->set_open(true);
    logging::set_logger(nullptr);
  }

  std::shared_ptr<Gate> gate = std::make_shared<Gate>();
};

TEST_CASE("a user's logger is called from a thread of the log's, with the time of the writing") {
  const Gated log;
  log.gate->set_open(false);
  logging::write(Level::error, "first");
  log.gate->wait_for_a_line_at_the_gate();
  logging::write(Level::warning, "second");
  const auto written = std::chrono::system_clock::now();
  log.gate->set_open(true);
  REQUIRE(logging::flush(kPatience));
  const auto lines = log.gate->lines();
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].text == "first");
  CHECK(lines[1].text == "second");
  CHECK(lines[1].time <= written);
  CHECK(lines[0].thread != std::this_thread::get_id());
  CHECK(lines[0].thread == lines[1].thread);
  CHECK(log.gate->flushes() >= 1);
}

TEST_CASE("the queue of the log is bounded: the oldest lines are lost, and their number is said") {
  const Gated log;
  log.gate->set_open(false);
  logging::write(Level::info, "held");
  log.gate->wait_for_a_line_at_the_gate();
  constexpr int kLines = 2000;
  const std::string rest(1000, '.');
  for (int i = 0; i < kLines; ++i) logging::write(Level::info, std::to_string(i) + rest);
  CHECK_FALSE(logging::flush(1ms));
  log.gate->set_open(true);
  REQUIRE(logging::flush(kPatience));
  const auto lines = log.gate->lines();
  REQUIRE(lines.size() > 200);
  CHECK(lines.size() < 300);
  CHECK(lines.front().text == "held");
  const int kept = static_cast<int>(lines.size()) - 2;
  CHECK(lines[1].text.find(std::to_string(kLines - kept) + " lines of the log") == 0);
  for (int i = 0; i < kept; ++i) {
    CHECK(lines[static_cast<std::size_t>(i + 2)].text == std::to_string(kLines - kept + i) + rest);
  }
}

TEST_CASE("lines of any length come through the queue's end whole, up to 8 KiB") {
  const Gated log;
  std::vector<std::string> written;
  for (std::size_t i = 0; i < 300; ++i) {
    written.emplace_back(i * 37, static_cast<char>('a' + i % 26));
    logging::write(Level::info, written.back());
    if (i % 7 == 0) REQUIRE(logging::flush(kPatience));
  }
  REQUIRE(logging::flush(kPatience));
  const auto lines = log.gate->lines();
  REQUIRE(lines.size() == written.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    CHECK(lines[i].text == written[i].substr(0, 8192));
  }
}

TEST_CASE("a logger gets what was written before the next one is set, and nothing after") {
  const auto first = std::make_shared<Gate>();
  const auto second = std::make_shared<Gate>();
  logging::set_logger(std::make_shared<spdlog::logger>("first", first));
  for (int i = 0; i < 100; ++i) logging::write(Level::info, "to the first");
  logging::set_logger(std::make_shared<spdlog::logger>("second", second));
  CHECK(first->lines().size() == 100);
  CHECK(first->flushes() >= 1);
  CHECK(first.use_count() == 1);
  logging::write(Level::info, "to the second");
  logging::set_logger(nullptr);
  CHECK_FALSE(logging::enabled(Level::error));
  logging::write(Level::error, "to nobody");
  CHECK(second->lines().size() == 1);
  CHECK(first->lines().size() == 100);
}

TEST_CASE("the level is asked where a line is written") {
  const auto gate = std::make_shared<Gate>();
  const auto logger = std::make_shared<spdlog::logger>("quiet", gate);
  logger->set_level(spdlog::level::warn);
  logging::set_logger(logger);
  CHECK_FALSE(logging::enabled(Level::info));
  CHECK(logging::enabled(Level::warning));
  logging::write(Level::info, "quiet");
  logging::write(Level::error, "loud");
  logging::set_logger(nullptr);
  CHECK(gate->lines().size() == 1);
}

TEST_CASE("a logger may write lines and set loggers itself, and throw") {
  class Sink final : public spdlog::sinks::base_sink<std::mutex> {
   public:
    std::atomic<int> lines{0};

   private:
    void sink_it_(const spdlog::details::log_msg&) override {
      if (++lines == 1) {
        logging::write(Level::info, "from the sink");
        CHECK_FALSE(logging::flush(kPatience));
      }
      throw 5;  // NOLINT(hicpp-exception-baseclass)
    }
    void flush_() override { throw std::runtime_error("no flush"); }
  };
  const auto sink = std::make_shared<Sink>();
  auto logger = std::make_shared<spdlog::logger>("odd", sink);
  logger->set_error_handler([](const std::string&) {});
  logging::set_logger(std::move(logger));
  logging::write(Level::info, "from the test");
  CHECK(logging::flush(kPatience));
  CHECK(logging::flush(kPatience));
  CHECK(sink->lines == 2);
  logging::set_logger(nullptr);
}

TEST_CASE("what a peer can cause is written a few times a second, and how many more is said") {
  const CapturedLog log;
  static constinit weir::detail::LogLimit limit("things of a test");
  const auto write_all = [] {
    for (int i = 0; i < 1000; ++i) {
      if (limit.admits(Level::info)) logging::write(Level::info, "a thing");
    }
  };
  write_all();
  const long written = log.count("a thing");
  CHECK(written >= 5);
  CHECK(written < 1000);
  long left_out = 0;
  for (const std::string& line : log.lines()) {
    if (line.find("lines more: things of a test") == std::string::npos) continue;
    left_out += std::stol(line.substr(std::string_view("left out ").size()));
  }
  CHECK(written + left_out == 1000);

  SUBCASE("without another one to say it with") {
    const Gated gated;
    write_all();
    CHECK(eventually([&] {  // a second later, by itself
      const auto lines = gated.gate->lines();
      return !lines.empty() && lines.back().text.find("left out") == 0;
    }));
  }
  SUBCASE("a new logger begins anew") {
    const CapturedLog again;
    write_all();
    CHECK(again.count("a thing") >= 5);
  }
}

TEST_CASE("what goes on being left out while that is said holds up no other line") {
  static constinit weir::detail::LogLimit limit("things without end");
  class Sink final : public spdlog::sinks::base_sink<std::mutex> {
   public:
    std::atomic<int> said{0};

   private:
    void sink_it_(const spdlog::details::log_msg& message) override {
      const std::string_view text(message.payload.data(), message.payload.size());
      if (text.find("things without end") == std::string_view::npos || ++said > 1000) return;
      for (int i = 0; i < 10; ++i) (void)limit.admits(Level::info);
    }
    void flush_() override {}
  };
  const auto sink = std::make_shared<Sink>();
  logging::set_logger(std::make_shared<spdlog::logger>("flooded", sink));
  for (int i = 0; i < 10; ++i) (void)limit.admits(Level::info);
  CHECK(logging::flush(kPatience));
  CHECK(sink->said >= 1);
  CHECK(sink->said < 10);
  logging::set_logger(nullptr);
}

TEST_CASE("a flush waits for as long as it was told, however long that is") {
  const Gated gated;
  gated.gate->set_open(false);
  logging::write(Level::info, "at the gate");
  gated.gate->wait_for_a_line_at_the_gate();
  std::atomic<int> flushed{0};
  std::thread first([&] { flushed += logging::flush(std::chrono::milliseconds::max()) ? 1 : 0; });
  std::thread second([&] { flushed += logging::flush(std::chrono::hours::max()) ? 1 : 0; });
  CHECK_FALSE(logging::flush(20ms));
  gated.gate->set_open(true);
  first.join();
  second.join();
  CHECK(flushed == 2);
}

TEST_CASE("a line and its failure need no memory") {
  const Gated log;
  {
    const FailingAllocations none(0);
    static constinit weir::detail::LogLimit limit("things without memory");
    if (limit.admits(Level::error)) {
      logging::write(Level::error, weir::detail::LogLine() << "number " << -17 << " of " << 3UL);
    }
    CHECK(none.failed() == 0);
  }
  REQUIRE(logging::flush(kPatience));
  REQUIRE(log.gate->lines().size() == 1);
  CHECK(log.gate->lines()[0].text == "number -17 of 3");
}

TEST_CASE("a line cannot be forged by what stands in it, and is cut where it is too long") {
  weir::detail::LogLine line;
  line << "a\nb\r\x7f" << std::string(5000, 'x');
  const std::string_view text = line;
  CHECK(text.find("a\\x0ab\\x0d\\x7fxxx") == 0);
  CHECK(text.size() == 1024);
}

Child log_target(const char* how, Engine engine = Engine::automatic) {
  return Child(WEIR_TEST_PROGRAMS_DIR "/log_target",
               {how, engine == Engine::epoll ? "epoll" : "uring"});
}

/// Each connection is served, with `count` others before it that are reset.
void reset_and_ask(const SocketAddress& address, int count) {
  for (int i = 0; i < count; ++i) {
    Peer peer = Peer::connect(address);
    peer.send("throw");
    if (i % 2 == 0) {
      peer.reset();
    } else {
      CHECK(peer.receive_all().empty());
    }
  }
  Peer peer = Peer::connect(address);
  peer.send("hello");
  CHECK(peer.receive_exactly(5) == "hello");
}

TEST_CASE("a pipe for stderr that nobody reads, or whose reader is dead, does not stop a server") {
  for_each_engine([](Engine engine) {
    for (const char* how : {"unread", "dead"}) {
      CAPTURE(how);
      Child server = log_target(how, engine);
      reset_and_ask(SocketAddress::parse(server.read_line()), 3000);
      server.signal(SIGTERM);
      CHECK(server.read_line() == "ended");
      CHECK(server.wait() == 0);
    }
  });
}

TEST_CASE("with no stderr no line of the log goes to a client that took its number") {
  for_each_engine([](Engine engine) {
    Child server = log_target("closed", engine);
    const auto address = SocketAddress::parse(server.read_line());
    Peer closer = Peer::connect(address);
    closer.send("close");
    CHECK(closer.receive_exactly(5) == "close");
    Peer first = Peer::connect(address);
    first.send("hello");
    CHECK(first.receive_exactly(5) == "hello");
    reset_and_ask(address, 10);
    first.shutdown_send();
    CHECK(first.receive_all().empty());
    server.signal(SIGTERM);
    CHECK(server.read_line() == "ended");
    CHECK(server.wait() == 0);
  });
}

TEST_CASE(
    "the thread of the log starts with the first line, and has its name without a descriptor") {
  if (kSanitized && !kThreadSanitizer) {
    MESSAGE("skipped: the sanitizer needs a pipe to check what it is told of a thread");
    return;
  }
  Child program = log_target("threads", Engine::epoll);
  const std::string all = program.read_all();
  INFO(all);
  const char* counts = kThreadSanitizer ? " 1\n" : "\n1 2 1\n";  // it has a thread of its own
  CHECK(all.find(counts) != std::string::npos);
  CHECK(all.find("and one more") != std::string::npos);
  CHECK(program.wait() == 0);
}

TEST_CASE("a forked child has a log of its own") {
  if (kThreadSanitizer) {
    MESSAGE("skipped: the sanitizer starts no thread in a forked child");
    return;
  }
  Child program = log_target("fork");
  const std::string all = program.read_all();
  INFO(all);
  for (const char* line : {"before the fork", "from the child", "from the parent", "child: 0"}) {
    CAPTURE(line);
    const auto found = all.find(line);
    CHECK(found != std::string::npos);
    CHECK(all.find(line, found + 1) == std::string::npos);
  }
  CHECK(program.wait() == 0);
}

TEST_CASE("a child that is forked while a user's logger is busy has a log of its own") {
  if (kThreadSanitizer) {
    MESSAGE("skipped: the sanitizer starts no thread in a forked child");
    return;
  }
  Child program = log_target("busy_fork");
  CHECK(program.read_all() == "20 children of 20\n");
  CHECK(program.wait() == 0);
}

TEST_CASE(
    "the last line before an exit comes out, and a pipe that nobody reads does not hold it up") {
  Child program = log_target("last");
  CHECK(program.read_all().find("the last line") != std::string::npos);
  CHECK(program.wait() == 0);
  CHECK(log_target("stuck").wait() == 0);
}

TEST_CASE("an assertion that fails ends the process, whatever its stderr is") {
  CHECK(log_target("assert").wait() == -SIGABRT);
}

TEST_CASE("an assertion that fails in a loop's task tells what came last on that loop") {
  for_each_engine([](Engine engine) {
    Child program = log_target("assert_in_loop", engine);
    const std::string all = program.read_all();
    CAPTURE(all);
    const std::size_t fails = all.find("weir: assertion failed: 1 + 1 == 3 (");
    const std::size_t resumed = all.find(" resumed in wait_and_fail at ");
    CHECK(fails != std::string::npos);
    CHECK(resumed != std::string::npos);
    CHECK(fails < resumed);
    CHECK(program.wait() == -SIGABRT);
  });
}

}  // namespace
}  // namespace weir::test
