// job_server --port N --results FILE [--address A] [--threads T] [--engine auto|uring|epoll]
//            [--workers N] [--most N]
//
// Jobs by line, done in the background: "1000" asks for the number of primes below it. "+7" says
// that it was accepted as job 7, "-BUSY" that too many wait. Results go to the file, whether the
// client is there or not. SIGTERM ends it when all is done that was accepted, a second signal at
// once.
#include <weir/weir.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "common/arguments.h"

using namespace weir;

namespace {

constexpr std::uint64_t kLargest = 10'000'000;

std::size_t count_primes(std::size_t below) {
  std::vector<bool> composite(below);
  std::size_t count = 0;
  for (std::size_t n = 2; n < below; ++n) {
    if (composite[n]) continue;
    ++count;
    for (std::size_t multiple = n * n; multiple < below; multiple += n) composite[multiple] = true;
  }
  return count;
}

/// Accepts jobs from any loop, and has them done by workers on one.
class Jobs {
 public:
  Jobs(const std::string& path, std::size_t most) : waiting_(most) {
    std::FILE* file = std::fopen(path.c_str(), "ae");
    if (file == nullptr) throw std::system_error(errno, std::generic_category(), path);
    results_.reset(file, &std::fclose);
  }

  /// The job's number; nothing where too many wait. What is accepted is done.
  std::optional<std::uint64_t> submit(std::size_t below) {
    const std::uint64_t number = ++last_;
    ++left_;
    if (waiting_.try_send({number, below})) return number;
    --left_;
    return std::nullopt;
  }
  /// No further ones: workers end when the others are done.
  void close() { waiting_.close(); }
  [[nodiscard]] std::size_t left() const { return left_; }

  Task<> work() {
    while (auto job = co_await waiting_.receive()) {
      // Dropped while it runs it goes on: it holds what it needs.
      auto work = [job = *job, results = results_] { do_one(job, *results); };
      try {
        co_await blocking(std::move(work));
        --left_;
      } catch (const std::exception& error) {  // the next job is another one
        logging::write(logging::Level::error, std::string("a result is lost: ") + error.what());
      }
    }
  }

 private:
  struct Job {
    std::uint64_t number;
    std::size_t below;
  };

  /// In a thread: it takes its time, and so may the disk.
  static void do_one(const Job& job, std::FILE& results) {
    const std::size_t count = count_primes(job.below);
    if (std::fprintf(&results, "%llu: %zu primes below %zu\n",
                     static_cast<unsigned long long>(job.number), count, job.below) < 0 ||
        std::fflush(&results) != 0) {
      throw std::system_error(errno, std::generic_category(), "results");
    }
  }

  Channel<Job> waiting_;
  std::shared_ptr<std::FILE> results_;
  std::atomic<std::uint64_t> last_ = 0;
  std::atomic<std::size_t> left_ = 0;
};

std::optional<std::size_t> number_in(std::string_view line) {
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  std::size_t number = 0;
  const char* end = line.data() + line.size();
  const auto [stop, error] = std::from_chars(line.data(), end, number);
  if (error != std::errc() || stop != end || number > kLargest) return std::nullopt;
  return number;
}

Task<> take_jobs(TcpConnection conn, Jobs& jobs) {
  for (;;) {
    auto next = co_await when_any(conn.draining(), as_tuple(conn.read_until("\n", 64)));
    if (next.index() == 0) co_return;
    auto& [error, line] = std::get<1>(next);
    if (error || !line) co_return;
    if (const auto below = number_in(line.view()); !below) {
      co_await conn.send("-ERR a number, 10000000 at the most\r\n");
    } else if (const auto number = jobs.submit(*below); number) {
      co_await conn.send('+' + std::to_string(*number) + "\r\n");
    } else {
      co_await conn.send("-BUSY\r\n");
    }
  }
}

/// What was accepted by the time that nobody can submit any more, to its end.
Task<> finish(TcpServer& server, Jobs& jobs, TaskGroup& workers) {
  co_await server.drain(std::chrono::seconds(10));
  jobs.close();
  co_await workers.join();
}

Task<> serve_jobs(TcpServer& server, std::size_t count, Jobs& jobs) {
  Signals signals(SIGINT, SIGTERM);
  TaskGroup workers;
  for (std::size_t i = 0; i < count; ++i) workers.spawn(jobs.work());
  std::printf("listening on %s\n", server.address().to_string().c_str());
  std::fflush(stdout);
  (void)co_await signals.next();
  (void)co_await when_any(finish(server, jobs, workers), signals.next());
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv, {{"results", ""}, {"workers", "4"}, {"most", "1000"}});
  const ServerOptions options = arguments.server_options("jobs");
  const std::size_t workers = std::max<std::size_t>(arguments.number("workers"), 1);
  Jobs jobs(arguments.text("results"), arguments.number("most"));
  EventLoop loop(options.loop);
  TcpServer server(loop, options);
  server.start([&jobs](TcpConnection conn) { return take_jobs(std::move(conn), jobs); });
  loop.run_until_complete(serve_jobs(server, workers, jobs));
  if (jobs.left() > 0) throw std::runtime_error(std::to_string(jobs.left()) + " jobs are not done");
} catch (const std::exception& error) {
  std::fprintf(stderr, "job_server: %s\n", error.what());
  return 1;
}
