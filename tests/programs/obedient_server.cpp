// A server that does what its clients say, a line each, and tells what they ask: for tests that
// change the process itself (limits, signals). obedient_server uring|epoll [THREADS ["closed"]]:
// with so many loops, each with a listener; started without the standard streams.
#include <weir/weir.h>

#include <fcntl.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

using namespace weir;

namespace {

/// Counts the messages about descriptors.
class Sink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  std::atomic<int> episodes{0};

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const std::string_view text(message.payload.data(), message.payload.size());
    if (text.find("out of descriptors") != std::string_view::npos) ++episodes;
  }
  void flush_() override {}
};

void limit_descriptors(rlim_t most) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = most;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

/// Leaves room for so many descriptors: takes all the others.
void leave_room(std::size_t count) {
  std::vector<int> taken;
  for (int fd = 0; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) taken.push_back(fd);
  for (std::size_t i = 0; i < count && i < taken.size(); ++i) ::close(taken[i]);
}

std::string answer(std::string_view line, const TcpServer& server, const Sink& sink) {
  const std::size_t space = line.find(' ');
  const std::string_view word = line.substr(0, space);
  const std::string rest(space == std::string_view::npos ? "" : line.substr(space + 1));
  if (word == "limit") {
    limit_descriptors(std::stoul(rest));
    return "done";
  }
  if (word == "room") {
    leave_room(std::stoul(rest));
    return "done";
  }
  if (word == "standard") {  // streams that are open
    int open = 0;
    for (const int fd : {0, 1, 2}) open += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    return std::to_string(open);
  }
  if (word == "shed") return std::to_string(server.shed());
  if (word == "count") return std::to_string(server.connection_count());
  if (word == "episodes") {
    (void)logging::flush(std::chrono::minutes(1));
    return std::to_string(sink.episodes);
  }
  if (word == "cpu") {  // µs of the process so far
    timespec used{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return std::to_string(used.tv_sec * 1'000'000 + used.tv_nsec / 1000);
  }
  return std::string(line);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const auto sink = std::make_shared<Sink>();
  logging::set_logger(std::make_shared<spdlog::logger>("test", sink));
  const int output = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 10);
  for (const int fd : {0, 1, 2}) {
    if (argc > 3) ::close(fd);
  }
  limit_descriptors(200);  // when an accept is armed the kernel looks at it, and not later
  const std::size_t threads = argc > 2 ? std::stoul(argv[2]) : 1;
  TcpServer server(
      {.address = SocketAddress::parse("127.0.0.1:0"),
       .threads = threads,
       .reuse_port = threads > 1,
       .loop = {.engine = std::string_view(argv[1]) == "epoll" ? Engine::epoll : Engine::uring}});
  server.listen();
  ::dprintf(output, "%s\n", server.address().to_string().c_str());
  server.run([&](TcpConnection conn) -> Task<> {
    for (;;) {
      auto [error, line] = co_await as_tuple(conn.read_until("\n", 256));
      if (error || !line) co_return;
      const std::string_view text = line.view().substr(0, line.size() - 1);
      const std::string reply = answer(text, server, *sink) + '\n';
      auto [failed, none] = co_await as_tuple(conn.send(reply));
      if (failed) co_return;
    }
  });
}
