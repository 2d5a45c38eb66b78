#include "run.h"

#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <limits>

namespace load_client {
namespace {

using namespace std::chrono_literals;

constexpr auto kProgressPeriod = 300ms;
constexpr auto kGrace = 10s;                   // for connecting, and for the last echoes
constexpr unsigned kConnectsPerSecond = 2000;  // at the very least

CpuTime own_cpu_time() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  CpuTime result;
  result.total = std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  return result;
}

}  // namespace

std::string describe(const char* what, int error) {
  return std::string(what) + ": " + std::strerror(error);
}

int open_socket(const Options& options, unsigned source) {
  const int fd = socket(options.server.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw RunError(describe("socket", errno));
  if (source == 0 || options.server.family() != AF_INET) return fd;

  const auto& server = reinterpret_cast<const sockaddr_in&>(options.server.storage);
  if (ntohl(server.sin_addr.s_addr) >> 24 != 127) return fd;
  // Bind to the address only; connect() then looks for a port that is free towards this server.
  const int on = 1;
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  sockaddr_in local{};
  local.sin_family = AF_INET;
  local.sin_addr.s_addr = htonl(INADDR_LOOPBACK + source);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&local), sizeof local) < 0) {
    const int error = errno;
    close(fd);
    throw RunError(describe("bind to a further loopback address", error));
  }
  return fd;
}

void close_socket(int fd) {
  shutdown(fd, SHUT_RDWR);
  close(fd);
}

void ensure_descriptors(unsigned connections) {
  const rlim_t needed = connections + 64;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= needed) return;
  limit.rlim_cur = needed;
  if (limit.rlim_max < needed) limit.rlim_max = needed;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    throw RunError("the limit of open files is too low for " + std::to_string(connections) +
                   " connections (ulimit -n)");
  }
}

Run::Run(const Options& options)
    : options_(options),
      pattern_(options.size * options.depth),
      deadline_(started_ + kGrace + std::chrono::seconds(options.connections / kConnectsPerSecond) +
                (options.requests != 0 ? options.duration : 0ns)),
      request_limit_(options.requests != 0 ? options.requests
                                           : std::numeric_limits<std::uint64_t>::max()),
      shows_progress_(options.progress && isatty(STDERR_FILENO) == 1) {
  if (options.server_pid != 0) server_.emplace(options.server_pid);
}

void Run::begin() {
  now_ = Clock::now();
  result_.connecting = now_ - started_;
  deadline_ = now_ + options_.warmup + options_.duration + kGrace;
  shown_at_ = now_;
  if (options_.warmup > 0ns) {
    phase_ = Phase::warmup;
    phase_end_ = now_ + options_.warmup;
  } else {
    start_measuring();
  }
}

void Run::end_phase() {
  if (phase_ == Phase::warmup) {
    start_measuring();
  } else if (phase_ == Phase::measuring) {
    end();
  }
}

void Run::end() {
  if (phase_ == Phase::measuring) stop_measuring();
  phase_ = Phase::over;
  phase_end_ = Clock::time_point::max();
  clear_progress();
}

void Run::finish() {
  end();
  if (options_.requests != 0 && completed_ < request_limit_) {
    throw RunError("time is up after " + std::to_string(completed_) + " of " +
                   std::to_string(request_limit_) + " requests");
  }
}

void Run::abandon(const std::string& error) {
  clear_progress();
  result_.error = error;
}

void Run::start_measuring() {
  phase_ = Phase::measuring;
  phase_end_ = now_ + options_.duration;
  if (server_) server_cpu_before_ = server_->cpu_time();
  client_cpu_before_ = own_cpu_time();
  if (records_ != nullptr) records_before_ = *records_;
  measured_from_ = Clock::now();
}

void Run::stop_measuring() {
  result_.measured = Clock::now() - measured_from_;
  result_.client_cpu = own_cpu_time() - client_cpu_before_;
  if (options_.mode == Mode::churn) {
    result_.connects = result_.requests;
    result_.connecting = result_.measured;
  }
  if (records_ != nullptr) {
    result_.records = {.sent = records_->sent - records_before_.sent,
                       .received = records_->received - records_before_.received};
  }
  if (!server_) return;
  result_.server_cpu = server_->cpu_time() - *server_cpu_before_;
  result_.server_memory = server_->memory();
}

void Run::look() {
  if (now_ > deadline_) {
    if (!begun()) throw RunError("time is up, and not all connections stand: the server stalls");
    throw RunError("time is up, and " + std::to_string(outstanding()) +
                   " requests have not come back: the server stalls");
  }
  if (shows_progress_ && now_ - shown_at_ >= kProgressPeriod) show_progress();
}

void Run::show_progress() {
  const double seconds = std::chrono::duration<double>(now_ - shown_at_).count();
  const double rate = static_cast<double>(completed_ - shown_requests_) / seconds;
  shown_at_ = now_;
  shown_requests_ = completed_;
  const char* phase = !begun()      ? "connecting"
                      : measuring() ? "measuring"
                      : ended()     ? "ending"
                                    : "warming up";
  std::fprintf(stderr, "\r%5.1f s  %-10s  %9.0f requests/s  %" PRIu64 " requests\033[K",
               std::chrono::duration<double>(now_ - started_).count(), phase, rate, completed_);
}

void Run::clear_progress() {
  if (shows_progress_) std::fputs("\r\033[K", stderr);
  shows_progress_ = false;
}

void Run::fail_wrong_bytes(std::size_t place, const char* data, std::size_t count,
                           std::size_t connection) const {
  std::size_t wrong = 0;
  while (wrong < count && pattern_.matches(StreamPattern::advance(place, wrong), data + wrong, 1)) {
    ++wrong;
  }
  throw RunError("wrong byte on connection " + std::to_string(connection) + ", " +
                 std::to_string(result_.bytes_checked + wrong) + " bytes into the run");
}

}  // namespace load_client
