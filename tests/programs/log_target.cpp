// A server whose standard error is bad, and what else a log can meet in a process:
// log_target HOW uring|epoll, with HOW one of
//   unread  stderr is a full pipe that nobody reads; dead: its reader has gone;
//   closed  descriptors 0 to 2 are closed from the start;
//   threads tells the number of threads before and after a line, with no descriptor left, and
//           whether one is named as the log's; fork: parent and child say a line;
//   last    says a line at the very end; stuck: as `last`, into a pipe that nobody reads;
//   assert  fails an assertion, into a pipe that nobody reads; assert_in_loop: in a task of a loop;
//   busy_fork  forks while a user's logger is never idle: how many children have a log.
// What is asked of it is answered on the connection, what the tests want to know on stdout.
#include <weir/core/assert.h>
#include <weir/weir.h>

#include <dirent.h>
#include <fcntl.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>

#include "../support/process.h"

using namespace weir;

namespace {

constexpr int kAnswers = 50;  // where stdout is kept while 0 to 2 are closed

void break_stderr(bool reader_lives) {
  int ends[2];
  if (::pipe2(ends, O_NONBLOCK) != 0) std::abort();
  if (reader_lives) {
    const std::string page(4096, '.');
    while (::write(ends[1], page.data(), page.size()) > 0) continue;
  } else {
    ::close(ends[0]);
  }
  ::fcntl(ends[1], F_SETFL, 0);
  ::dup2(ends[1], STDERR_FILENO);
  ::close(ends[1]);
}

/// How many there are, or how many of this name; without the kernel's, which come and go.
int threads(std::string_view name = {}) {
  DIR* directory = ::opendir("/proc/self/task");
  int count = 0;
  while (const dirent* entry = ::readdir(directory)) {
    if (entry->d_name[0] == '.') continue;
    std::ifstream file("/proc/self/task/" + std::string(entry->d_name) + "/comm");
    std::string own;
    std::getline(file, own);
    const bool of_kernel = own.starts_with("iou-");
    count += (name.empty() && !of_kernel) || own == name ? 1 : 0;
  }
  ::closedir(directory);
  return count;
}

void say(std::string_view text) { logging::write(logging::Level::warning, text); }

void fork_and_say() {
  say("before the fork");
#ifdef __SANITIZE_ADDRESS__  // GCC's: in a child its allocator is as another thread had it
  logging::flush(std::chrono::minutes(1));
  while (!test::other_threads_sleep()) std::this_thread::yield();
#endif
  const pid_t child = ::fork();
  if (child == 0) {
    say("from the child");
    std::exit(0);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  std::printf("child: %d\n", status);
  say("from the parent");
}

void fork_while_busy() {
  struct Slow final : spdlog::sinks::base_sink<std::mutex> {
    void sink_it_(const spdlog::details::log_msg& /*message*/) override {
      const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(300);
      while (std::chrono::steady_clock::now() < end) std::this_thread::yield();
    }
    void flush_() override {}
  };
  logging::set_logger(std::make_shared<spdlog::logger>("slow", std::make_shared<Slow>()));
  std::jthread busy([](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      say("one of many");
      std::this_thread::yield();
    }
  });
  int right = 0;
  for (int i = 0; i < 20; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      say("from the child");
      ::_exit(logging::flush(std::chrono::minutes(1)) ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    right += status == 0 ? 1 : 0;
  }
  std::printf("%d children of 20\n", right);
}

int serve(Engine engine, int answers) {
  TcpServer server({.address = SocketAddress::parse("127.0.0.1:0"),
                    .drain_timeout = std::chrono::milliseconds(100),
                    .loop = {.engine = engine}});
  server.listen();
  ::dprintf(answers, "%s\n", server.address().to_string().c_str());
  server.run([](TcpConnection conn) -> Task<> {
    while (Chunk data = co_await conn.read()) {
      if (data.view() == "throw") throw std::runtime_error("as the peer said");
      if (data.view() == "close") ::close(STDERR_FILENO);  // the next client's, if weir lets it
      co_await conn.send(std::move(data));
    }
  });
  ::dprintf(answers, "ended\n");
  return 0;
}

/// What would fill a page with the events of it alone.
Task<> wait_often_in_a_function_with_a_long_name_as_those_have_that_are_made_of_many_templates() {
  for (int i = 0; i < 40; ++i) co_await yield();
}

Task<> wait_and_fail() {
  Task<> before =
      wait_often_in_a_function_with_a_long_name_as_those_have_that_are_made_of_many_templates();
  co_await std::move(before);
  co_await sleep(std::chrono::milliseconds(1));
  WEIR_ASSERT(1 + 1 == 3);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const std::string_view how = argv[1];
  const Engine engine = std::string_view(argv[2]) == "epoll" ? Engine::epoll : Engine::uring;
  if (how == "closed") {
    ::dup2(STDOUT_FILENO, kAnswers);
    for (int fd = 0; fd <= 2; ++fd) ::close(fd);
    char again[] = "closed_from_start";
    char* arguments[] = {argv[0], again, argv[2], nullptr};
    ::execv("/proc/self/exe", arguments);
    return 3;
  }
  if (how == "closed_from_start") {
    while (::open("/dev/null", O_RDWR) < STDERR_FILENO) continue;
    return serve(engine, kAnswers);
  }
  if (how == "unread" || how == "dead") {
    break_stderr(how == "unread");
    return serve(engine, STDOUT_FILENO);
  }
  if (how == "assert_in_loop") {
    EventLoop loop({.engine = engine});
    loop.run_until_complete(wait_and_fail());
  } else if (how == "threads") {
    EventLoop loop({.engine = engine});
    const int before = threads();
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit none{0, limit.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
    say("a line");
    say("and one more");
    (void)logging::flush(std::chrono::minutes(1));
    ::setrlimit(RLIMIT_NOFILE, &limit);
    std::printf("\n%d %d %d\n", before, threads(), threads("weir-log"));
  } else if (how == "fork") {
    fork_and_say();
  } else if (how == "busy_fork") {
    fork_while_busy();
  } else if (how == "last" || how == "stuck") {
    if (how == "stuck") break_stderr(true);
    say("the last line");
  } else if (how == "assert") {
    break_stderr(true);
    say("the last line");
    WEIR_ASSERT(argc == 0);
  }
  return 0;
}
