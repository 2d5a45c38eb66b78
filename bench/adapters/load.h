#pragma once

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <stdexcept>
#include <string>
#include <string_view>

/// What the programs of this directory have in common: `--loop own|weir --server TEXT [--in-flight
/// N]
/// [--seconds S | --requests N]`, and the line of JSON that each ends with.
namespace load {

struct Options {
  std::string loop = "own";
  std::string server;
  std::size_t in_flight = 64;
  double seconds = 1;
  std::size_t requests = 0;  // not 0: so many, without a warm-up, whatever time they take

  Options(int argc, char** argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
      const std::string_view name = argv[i];
      const std::string value = argv[i + 1];
      if (name == "--loop") {
        loop = value;
      } else if (name == "--server") {
        server = value;
      } else if (name == "--in-flight") {
        in_flight = std::stoul(value);
      } else if (name == "--seconds") {
        seconds = std::stod(value);
      } else if (name == "--requests") {
        requests = std::stoul(value);
      } else {
        throw std::invalid_argument("no such option: " + std::string(name));
      }
    }
    if (argc % 2 == 0 || server.empty()) throw std::invalid_argument("--server is missing");
  }
};

/// Counts requests, and says when it is enough.
class Meter {
 public:
  explicit Meter(const Options& options)
      : seconds_(options.seconds), requests_(options.requests), from_(now()) {
    if (requests_ == 0) from_.wall += kWarmUp;  // begins anew then
  }

  /// One is done. False: nobody begins another.
  bool done() {
    ++count_;
    if (requests_ != 0) {
      if (count_ == requests_) end(now());
    } else if (count_ % kLook == 0 && going_) {
      look(now());
    }
    return going_;
  }

  void print() const {
    std::printf("{\"requests\": %zu, \"seconds\": %.6f, \"cpu_seconds\": %.6f}\n", counted_,
                to_.wall - from_.wall, to_.cpu - from_.cpu);
  }

 private:
  static constexpr double kWarmUp = 0.2;
  static constexpr std::size_t kLook = 8;  // a look at the clock for so many requests
  struct Times {
    double wall = 0;
    double cpu = 0;  // of the whole process
  };

  static double read(clockid_t clock) {
    timespec time{};
    clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  static Times now() { return {read(CLOCK_MONOTONIC), read(CLOCK_PROCESS_CPUTIME_ID)}; }

  void look(const Times& time) {
    if (!warm_ && time.wall >= from_.wall) {
      warm_ = true;
      from_ = time;
      count_ = 0;
    } else if (warm_ && time.wall >= from_.wall + seconds_) {
      end(time);
    }
  }
  void end(const Times& time) {
    going_ = false;
    to_ = time;
    counted_ = count_;
  }

  double seconds_;
  std::size_t requests_;
  Times from_;
  Times to_;
  std::size_t count_ = 0;
  std::size_t counted_ = 0;
  bool warm_ = false;
  bool going_ = true;
};

/// An answer is not what it has to be.
inline void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

}  // namespace load
