// SIGQUIT has what an inspector shows written to the log, unless the program wants it for itself.
#include <weir/inspect.h>
#include <weir/net/inspect/log.h>
#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

#include "../support/captured_log.h"
#include "../support/child.h"
#include "../support/directory.h"
#include "../support/inspected.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr std::string_view kEnd = "SIGQUIT: that is all";

std::atomic<int> quits_handled = 0;
extern "C" void handle_quit(int) { ++quits_handled; }

/// What the program makes of SIGQUIT; what it was before comes back. A shell may have it ignored.
class QuitIs {
 public:
  explicit QuitIs(void (*handler)(int)) : before_(std::signal(SIGQUIT, handler)) {}
  QuitIs(const QuitIs&) = delete;
  QuitIs& operator=(const QuitIs&) = delete;
  ~QuitIs() { std::signal(SIGQUIT, before_); }

 private:
  void (*before_)(int);
};

/// In this thread.
class QuitIsBlocked {
 public:
  QuitIsBlocked() {
    sigset_t quit;
    ::sigemptyset(&quit);
    ::sigaddset(&quit, SIGQUIT);
    ::pthread_sigmask(SIG_BLOCK, &quit, &before_);
  }
  QuitIsBlocked(const QuitIsBlocked&) = delete;
  QuitIsBlocked& operator=(const QuitIsBlocked&) = delete;
  ~QuitIsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

bool quit_is(void (*handler)(int)) {
  struct sigaction now{};
  ::sigaction(SIGQUIT, nullptr, &now);
  return now.sa_handler == handler;
}

void send_quit() { ::kill(::getpid(), SIGQUIT); }

weir::detail::Snapshot ten_thousand_tasks() {
  weir::detail::Snapshot snapshot;
  weir::detail::TaskLine line;
  line.where = std::source_location::current();
  snapshot.loops.resize(1);
  snapshot.loops.front().tasks.assign(10'000, line);
  return snapshot;
}

/// A sink that does not come back from its first line until it is released.
class Standing final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  void release() { released_.set_value(); }
  std::vector<std::string> lines;

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    released_future_.wait();
    lines.emplace_back(message.payload.data(), message.payload.size());
  }
  void flush_() override {}

  std::promise<void> released_;
  std::shared_future<void> released_future_ = released_.get_future().share();
};

/// The lines up to the last one.
std::string dump_of(Child& child) {
  std::string dump;
  std::string line;
  do {
    line = child.read_line();
    dump += line + '\n';
  } while (!line.empty() && !line.ends_with(kEnd));
  return dump;
}

/// How a child of this process ends that gets the signal.
int end_of_fork_by(int number) {
  const pid_t process = ::fork();
  if (process == 0) {
    const rlimit nothing{};
    ::setrlimit(RLIMIT_CORE, &nothing);
    ::raise(number);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(process, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

}  // namespace

TEST_CASE("SIGQUIT writes loops, connections and tasks to the log, each time, with a loop stuck") {
  const Directory directory;
  const QuitIs usual(SIG_DFL);  // which the child inherits
  Child child("/usr/bin/env",
              {"WEIR_INSPECT=unix:" + directory.file("socket"), WEIR_TEST_PROGRAMS_DIR "/planted"},
              Child::Input::written);
  REQUIRE(child.read_line() == "planted");
  for (int i = 0; i < 2; ++i) {
    std::string dump;
    CHECK(eventually([&] {  // unless the loop does not answer in time
      child.signal(SIGQUIT);
      return has(dump = dump_of(child), "Mutex::lock");
    }));
    CAPTURE(dump);
    CHECK(has(line_with(dump, "Mutex::lock"), "SIGQUIT:       wait_for_both at "));
    CHECK(has(line_with(dump, "Mutex::lock"), "tests/programs/planted.cpp:"));
    CHECK(has(line_with(dump, "loop 3 \"busy\""), ": STUCK in one turn for "));
    CHECK(has(line_with(dump, "teller-127."), "connected"));
    CHECK(has(line_with(dump, "buffers_leased"), "SIGQUIT: number"));
    CHECK(has(line_with(dump, "SIGQUIT: /tasks"), "[warning]"));
    CHECK(has(line_with(dump, "SIGQUIT: loop 1 \"main\": its last "), "events, the newest last"));
  }
  child.close_input();
  CHECK(child.wait() == 0);
}

TEST_CASE("of several inspectors one answers SIGQUIT, and with the last one the default is back") {
  const QuitIs usual(SIG_DFL);
  const CapturedLog log;
  std::optional<Inspector> first;
  std::optional<Inspector> second;
  first.emplace(InspectorOptions{.address = loopback()});
  second.emplace(InspectorOptions{.address = loopback()});
  send_quit();
  CHECK(eventually([&] { return log.count(kEnd) > 0; }));
  second.reset();
  send_quit();
  CHECK(eventually([&] { return log.count(kEnd) > 1; }));
  CHECK(log.count(kEnd) == 2);
  if (!kThreadSanitizer) CHECK(end_of_fork_by(SIGQUIT) == SIGQUIT);  // it has no inspector
  first.reset();
  CHECK(quit_is(SIG_DFL));
}

TEST_CASE("the inspector's thread takes a SIGQUIT that all others block") {
  if (kThreadSanitizer) return;  // which delivers none to a thread in a system call of its own
  const QuitIs usual(SIG_DFL);
  const CapturedLog log;
  const QuitIsBlocked here;
  const Inspector inspector({.address = loopback()});
  for (long i = 1; i <= 3; ++i) {
    send_quit();
    CHECK(eventually([&] { return log.count(kEnd) == i; }));
  }
}

TEST_CASE("what the program makes of SIGQUIT itself stays, set before the inspector or after") {
  const CapturedLog log;
  quits_handled = 0;
  for (const bool is_before : {true, false}) {
    const QuitIs usual(is_before ? handle_quit : SIG_DFL);
    std::optional<Inspector> inspector;
    inspector.emplace(InspectorOptions{.address = loopback()});
    if (!is_before) std::signal(SIGQUIT, handle_quit);
    send_quit();
    CHECK(eventually([&] { return quits_handled > 0; }));
    {
      const Signals held(SIGQUIT);  // and is there again behind these
      CHECK_FALSE(quit_is(handle_quit));
    }
    CHECK(quit_is(handle_quit));
    inspector.reset();
    CHECK(quit_is(handle_quit));
    CHECK(quits_handled.exchange(0) == 1);
  }
  const QuitIs ignored(SIG_IGN);
  const Inspector inspector({.address = loopback()});
  CHECK(quit_is(SIG_IGN));
  CHECK(log.count("SIGQUIT") == 0);
}

TEST_CASE("a handler that came after the inspector and has gone does not come back with Signals") {
  const QuitIs usual(SIG_DFL);
  const CapturedLog log;
  std::optional<Inspector> inspector;
  inspector.emplace(InspectorOptions{.address = loopback()});
  {
    const QuitIs handled(handle_quit);
    const Signals held(SIGQUIT);
  }
  send_quit();
  CHECK(eventually([&] { return log.count(kEnd) == 1; }));
  {
    const Signals held(SIGQUIT);
  }
  CHECK_FALSE(quit_is(handle_quit));
  inspector.reset();
  CHECK(quit_is(SIG_DFL));
}

TEST_CASE("a program that puts an ended inspector's handler back has SIGQUIT as it is by default") {
  if (kThreadSanitizer) return;  // which lets no fork have signals
  const QuitIs usual(SIG_DFL);
  struct sigaction saved{};
  {
    const Inspector inspector({.address = loopback()});
    ::sigaction(SIGQUIT, nullptr, &saved);
  }
  ::sigaction(SIGQUIT, &saved, nullptr);
  CHECK(end_of_fork_by(SIGQUIT) == SIGQUIT);
}

TEST_CASE("SIGQUIT is told to the program's Signals alone while there are any, made when ever") {
  const QuitIs usual(SIG_DFL);
  const CapturedLog log;
  for (const bool are_before : {true, false}) {
    std::optional<Signals> signals;
    std::optional<Inspector> inspector;
    if (are_before) signals.emplace(SIGQUIT);
    inspector.emplace(InspectorOptions{.address = loopback()});
    if (!are_before) signals.emplace(SIGQUIT);
    send_quit();
    const auto receive = [&]() -> Task<> { CHECK(co_await signals->next() == SIGQUIT); };
    run(receive());
    const long before = log.count(kEnd);
    CHECK(before == (are_before ? 0 : 1));
    signals.reset();
    send_quit();
    CHECK(eventually([&] { return log.count(kEnd) > before; }));
    inspector.reset();
    CHECK(quit_is(SIG_DFL));
  }
  CHECK(log.count(kEnd) == 2);
}

TEST_CASE(
    "ten thousand tasks overrun no queue of the log: what is above some thousand is counted") {
  const CapturedLog log;
  weir::detail::log_snapshot(ten_thousand_tasks());
  CHECK(log.count("ten_thousand_tasks at tests/net/inspector_signal.cpp:") == 4095);
  CHECK(log.count("SIGQUIT: … and 5905 lines more, which /tasks shows") == 1);
  CHECK(log.count(kEnd) == 1);
  CHECK(log.count("are lost") == 0);
}

TEST_CASE("a logger that takes nothing is given up, and no line of others is lost for it") {
  const auto sink = std::make_shared<Standing>();
  logging::set_logger(std::make_shared<spdlog::logger>("weir", sink));
  logging::write(logging::Level::info, "of others");
  weir::detail::log_snapshot(ten_thousand_tasks());
  sink->release();
  CHECK(logging::flush(std::chrono::minutes(2)));
  logging::set_logger(nullptr);
  CHECK(sink->lines.front() == "of others");
  CHECK(sink->lines.back() == "SIGQUIT: the rest is left out: the logger takes no more");
}

TEST_CASE("an inspector of a simulated world takes no signal of the process") {
  const QuitIs usual(SIG_DFL);
  sim::World world({.seed = 1});
  bool was_default = false;
  const auto look = [&]() -> Task<> {
    const Inspector inspector({.address = SocketAddress::parse("10.0.0.1:7000")});
    was_default = quit_is(SIG_DFL);
    co_return;
  };
  world.add_host("10.0.0.1").run(look);
  world.run_for(1min);
  CHECK(was_default);
}
