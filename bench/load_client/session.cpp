#include "session.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <limits>

namespace load_client {
namespace {

using namespace std::chrono_literals;

constexpr unsigned kSubmissionEntries = 1024;
constexpr unsigned kCompletionEntries = 16384;
constexpr std::size_t kBufferBytes = 4 << 20;  // few enough to stay in the caches
constexpr auto kTickPeriod = 100ms;
constexpr auto kProgressPeriod = 300ms;
constexpr auto kGrace = 10s;                   // for connecting, and for the last echoes
constexpr unsigned kConnectsPerSecond = 2000;  // at the very least

std::size_t buffer_size(const Options& options) {
  return std::clamp<std::size_t>(std::bit_ceil(options.size * options.depth), 4096, 262144);
}

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

Session::Session(const Options& options)
    : options_(options),
      buffers_(static_cast<unsigned>(
                   std::clamp<std::size_t>(kBufferBytes / buffer_size(options), 32, 1024)),
               buffer_size(options)),
      ring_(kSubmissionEntries, kCompletionEntries),
      pattern_(options.size * options.depth),
      deadline_(started_ + kGrace + std::chrono::seconds(options.connections / kConnectsPerSecond)),
      request_limit_(options.requests != 0 ? options.requests
                                           : std::numeric_limits<std::uint64_t>::max()),
      shows_progress_(options.progress && isatty(STDERR_FILENO) == 1) {
  buffers_.register_with(ring_);
  if (options.server_pid != 0) server_.emplace(options.server_pid);
}

void Session::begin() {
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

void Session::end_phase() {
  if (phase_ == Phase::warmup) {
    start_measuring();
  } else if (phase_ == Phase::measuring) {
    end();
  }
}

void Session::end() {
  if (phase_ == Phase::measuring) stop_measuring();
  phase_ = Phase::over;
  phase_end_ = Clock::time_point::max();
  clear_progress();
}

void Session::finish() {
  end();
  if (options_.requests != 0 && completed_ < request_limit_) {
    throw RunError("time is up after " + std::to_string(completed_) + " of " +
                   std::to_string(request_limit_) + " requests");
  }
}

void Session::abandon(const std::string& error) {
  clear_progress();
  result_.error = error;
}

void Session::start_measuring() {
  phase_ = Phase::measuring;
  phase_end_ = now_ + options_.duration;
  if (server_) server_cpu_before_ = server_->cpu_time();
  client_cpu_before_ = own_cpu_time();
  measured_from_ = Clock::now();
}

void Session::stop_measuring() {
  result_.measured = Clock::now() - measured_from_;
  result_.client_cpu = own_cpu_time() - client_cpu_before_;
  if (options_.mode == Mode::churn) {
    result_.connects = result_.requests;
    result_.connecting = result_.measured;
  }
  if (!server_) return;
  result_.server_cpu = server_->cpu_time() - *server_cpu_before_;
  result_.server_memory = server_->memory();
}

void Session::arm_tick() {
  static __kernel_timespec period{.tv_sec = 0,
                                  .tv_nsec = std::chrono::nanoseconds(kTickPeriod).count()};
  io_uring_sqe* entry = ring_.next_entry();
  io_uring_prep_timeout(entry, &period, 0, 0);
  entry->user_data = kTick;
}

void Session::tick() {
  arm_tick();
  if (now_ > deadline_) {
    if (!begun()) throw RunError("time is up, and not all connections stand: the server stalls");
    throw RunError("time is up, and " + std::to_string(outstanding()) +
                   " requests have not come back: the server stalls");
  }
  if (shows_progress_ && now_ - shown_at_ >= kProgressPeriod) show_progress();
}

void Session::show_progress() {
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

void Session::clear_progress() {
  if (shows_progress_) std::fputs("\r\033[K", stderr);
  shows_progress_ = false;
}

void Session::fail_wrong_bytes(std::size_t place, const char* data, std::size_t count,
                               std::size_t connection) const {
  std::size_t wrong = 0;
  while (wrong < count && pattern_.matches(StreamPattern::advance(place, wrong), data + wrong, 1)) {
    ++wrong;
  }
  throw RunError("wrong byte on connection " + std::to_string(connection) + ", " +
                 std::to_string(result_.bytes_checked + wrong) + " bytes into the run");
}

}  // namespace load_client
