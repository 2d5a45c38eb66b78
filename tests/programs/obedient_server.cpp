// A server that does what its clients say, a line each, and tells what they ask: for tests that
// change the process itself (limits, signals). obedient_server uring|epoll [SPARE]: with SPARE
// there is room for so many descriptors more once it listens.
#include <weir/weir.h>

#include <fcntl.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <ctime>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

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

std::string answer(std::string_view line, const TcpServer& server, const Sink& sink) {
  const std::size_t space = line.find(' ');
  const std::string_view word = line.substr(0, space);
  const std::string rest(space == std::string_view::npos ? "" : line.substr(space + 1));
  if (word == "limit") {
    limit_descriptors(std::stoul(rest));
    return "done";
  }
  if (word == "shed") return std::to_string(server.shed());
  if (word == "count") return std::to_string(server.connection_count());
  if (word == "episodes") return std::to_string(sink.episodes);
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
  log::set_logger(std::make_shared<spdlog::logger>("test", sink));
  TcpServer server(
      {.address = SocketAddress::parse("127.0.0.1:0"),
       .loop = {.engine = std::string_view(argv[1]) == "epoll" ? Engine::epoll : Engine::uring}});
  server.listen();
  std::printf("%s\n", server.address().to_string().c_str());
  std::fflush(stdout);
  if (argc > 2) {
    const int next = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    ::close(next);
    limit_descriptors(static_cast<rlim_t>(next) + std::stoul(argv[2]));
  }
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
