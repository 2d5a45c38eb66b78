// What the load clients share: sockets, the clock, the phases of a run, the figures.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "options.h"
#include "report.h"
#include "server_process.h"
#include "stream_pattern.h"

namespace load_client {

using Clock = std::chrono::steady_clock;

// The run is over and void: the server broke the contract of an echo server, or is gone, or stalls.
// One wrong byte is enough, no figure is worth anything after it.
class RunError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string describe(const char* what, int error);

// A TCP socket towards options.server. A pair of addresses has some 28,000 local ports;
// on the loopback network, where all of 127.0.0.0/8 is ours, a `source` other than 0 takes another
// local address.
int open_socket(const Options& options, unsigned source);

// Hands the rest of a connection to the kernel at once. A mere close() would wait for the ring's
// receive on it.
void close_socket(int fd);

// A descriptor per connection and some for the rest. Only root may raise the hard limit. Throws
// RunError.
void ensure_descriptors(unsigned connections);

class Run {
 public:
  explicit Run(const Options& options);
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Where records are counted, if there are any.
  void count_records(const Records& records) { records_ = &records; }
  // Says why the run is void.
  void abandon(const std::string& error);

  // The connections stand: starts the warm-up, and with it the clock of the run.
  void begin();
  // Ends the measurement, if it has not ended by itself.
  void end();

  bool begun() const { return phase_ != Phase::connecting; }
  bool ended() const { return phase_ == Phase::over; }
  bool measuring() const { return phase_ == Phase::measuring; }

  // Takes one from the budget of requests; false if no more are to be issued.
  bool issue() {
    if (!begun() || ended() || issued_ == request_limit_) return false;
    ++issued_;
    return true;
  }
  // An issued request has come back, right in all bytes.
  void count_request(Clock::time_point sent_at) {
    ++completed_;
    if (measuring()) {
      ++result_.requests;
      result_.latencies.record(now_ - sent_at);
    }
    if (completed_ == request_limit_) end();
  }
  std::uint64_t outstanding() const { return issued_ - completed_; }

  // Throws RunError unless `data` is what `connection` sent from that place of the pattern on.
  void check(std::size_t place, const char* data, std::size_t count, std::size_t connection) {
    if (!pattern_.matches(place, data, count)) fail_wrong_bytes(place, data, count, connection);
    result_.bytes_checked += count;
  }

  const Options& options() const { return options_; }
  const StreamPattern& pattern() const { return pattern_; }
  Clock::time_point now() const { return now_; }  // of this turn
  Result& result() { return result_; }

  // Takes the time of a turn, in which a phase may end.
  void begin_turn() {
    now_ = Clock::now();
    if (now_ >= phase_end_) end_phase();
  }
  Clock::time_point phase_end() const { return phase_end_; }
  // Now and then: throws RunError when the server stalls, shows progress.
  void look();
  // The run came to its end; throws RunError if it was too early.
  void finish();

 private:
  enum class Phase { connecting, warmup, measuring, over };

  [[noreturn]] void fail_wrong_bytes(std::size_t place, const char* data, std::size_t count,
                                     std::size_t connection) const;
  void end_phase();
  void start_measuring();
  void stop_measuring();
  void show_progress();
  void clear_progress();

  const Options& options_;
  StreamPattern pattern_;
  std::optional<ServerProcess> server_;

  Phase phase_ = Phase::connecting;
  Clock::time_point now_ = Clock::now();
  const Clock::time_point started_ = now_;
  Clock::time_point phase_end_ = Clock::time_point::max();
  Clock::time_point measured_from_{};
  Clock::time_point deadline_;

  const std::uint64_t request_limit_;
  std::uint64_t issued_ = 0;
  std::uint64_t completed_ = 0;
  Result result_;
  std::optional<CpuTime> server_cpu_before_;
  CpuTime client_cpu_before_;

  const Records* records_ = nullptr;
  Records records_before_;

  bool shows_progress_;
  std::uint64_t shown_requests_ = 0;
  Clock::time_point shown_at_ = now_;
};

}  // namespace load_client
