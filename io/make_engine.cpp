#include <weir/core/engine.h>
#include <weir/core/logging.h>
#include <weir/core/options.h>
#include <weir/io/engines.h>
#include <weir/io/kernel_sockets.h>

#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace weir::detail {
namespace {

void check_range(const char* option, std::size_t value, std::size_t least, std::size_t most) {
  if (value >= least && value <= most) return;
  throw std::invalid_argument("weir: LoopOptions::" + std::string(option) + " is " +
                              std::to_string(value) + "; it must be " + std::to_string(least) +
                              " to " + std::to_string(most));
}

void check(const LoopOptions& options) {
  check_range("ring_entries", options.ring_entries, 4, 4096);
  check_range("buffer_size", options.buffer_size, 64, 1 << 20);
  check_range("buffer_count", options.buffer_count, 1, 32768);
  if (!std::has_single_bit(options.ring_entries)) {
    throw std::invalid_argument("weir: LoopOptions::ring_entries is " +
                                std::to_string(options.ring_entries) +
                                "; it must be a power of two");
  }
  if (options.stall.count() < 0) {
    throw std::invalid_argument("weir: LoopOptions::stall is " +
                                std::to_string(options.stall.count()) +
                                " ms; it must not be negative");
  }
  if (const long count = ::sysconf(_SC_NPROCESSORS_CONF);
      options.cpu < -1 || options.cpu >= count) {
    throw std::invalid_argument("weir: LoopOptions::cpu is " + std::to_string(options.cpu) +
                                "; it must be 0 to " + std::to_string(count - 1) +
                                ", or -1 for any");
  }
}

struct Wish {
  Engine engine;
  const char* by;  // who wishes
};

/// The options' wish, or what WEIR_ENGINE says instead.
Wish wished(const LoopOptions& options) {
  const char* variable = std::getenv("WEIR_ENGINE");  // NOLINT(concurrency-mt-unsafe)
  if (variable == nullptr || *variable == '\0') return {options.engine, "LoopOptions::engine"};
  const std::string_view name(variable);
  if (name == "uring") return {Engine::uring, "WEIR_ENGINE"};
  if (name == "epoll") return {Engine::epoll, "WEIR_ENGINE"};
  if (name == "automatic") return {Engine::automatic, "WEIR_ENGINE"};
  throw std::invalid_argument("weir: WEIR_ENGINE is \"" + std::string(name) +
                              "\"; it must be uring, epoll or automatic");
}

/// What this process has learnt of io_uring's being refused.
class Verdict {
 public:
  /// An engine on io_uring, or the reason why not. A refusal that will not change is remembered.
  EngineOrReason try_uring(const LoopOptions& options) {
    const std::lock_guard lock(mutex_);
    if (error_ != 0) return {nullptr, error_, reason_};
    EngineOrReason made = make_uring_engine(options);
    // Memory that is locked now may be free when the next loop is made.
    if (made.engine == nullptr && made.error != ENOMEM) {
      error_ = made.error;
      reason_ = made.reason;
    }
    return made;
  }

  /// True for the first who asks.
  bool is_news() noexcept { return !told_.exchange(true, std::memory_order_relaxed); }

 private:
  std::mutex mutex_;
  int error_ = 0;
  std::string reason_;
  std::atomic<bool> told_{false};
};

Verdict& verdict() {
  static Verdict instance;
  return instance;
}

/// The first line of a small file of /proc, empty if it is not there.
std::string line_of(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

bool has_seccomp_filter() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Seccomp:")) return line.ends_with('2');
  }
  return false;
}

constexpr const char* kAllowCalls =
    "allow io_uring_setup, io_uring_enter and io_uring_register in its profile (weir's "
    "docs/seccomp.md)";

std::string explain_prohibition() {
  const std::string disabled = line_of("/proc/sys/kernel/io_uring_disabled");
  if (disabled == "2") {
    return "io_uring is switched off on this machine: kernel.io_uring_disabled is 2. Cure: sysctl "
           "-w kernel.io_uring_disabled=0";
  }
  if (disabled == "1" && ::geteuid() != 0) {
    return "io_uring is switched off for users like this one: kernel.io_uring_disabled is 1. Cure: "
           "sysctl -w kernel.io_uring_disabled=0, or join the group of kernel.io_uring_group";
  }
  if (has_seccomp_filter()) {
    return "io_uring is forbidden by a seccomp filter (Docker's and containerd's default has one). "
           "Cure: " +
           std::string(kAllowCalls);
  }
  return "io_uring is forbidden, by a security module, it seems (SELinux, AppArmor). Cure: a "
         "policy "
         "that allows it";
}

}  // namespace

void refuse_engine(int error, const char* what) {
  const bool no_descriptor = error == EMFILE || error == ENFILE;
  throw std::system_error(error, std::generic_category(),
                          no_descriptor ? "weir: no descriptor is left for an event loop; raise "
                                          "RLIMIT_NOFILE (ulimit -n, LimitNOFILE=)"
                                        : what);
}

std::string explain_uring_refusal(int error) {
  switch (error) {
    case ENOSYS:
      if (has_seccomp_filter()) {
        return "io_uring is hidden by a seccomp filter, or this kernel has none. Cure: " +
               std::string(kAllowCalls);
      }
      return "this kernel has no io_uring: it is older than Linux 5.1, or built without it. Cure: "
             "Linux 6.0 or newer with CONFIG_IO_URING";
    case EPERM:
    case EACCES:
      return explain_prohibition();
    case ENOMEM: {
      rlimit limit{};
      ::getrlimit(RLIMIT_MEMLOCK, &limit);
      return "io_uring may not lock enough memory: RLIMIT_MEMLOCK is " +
             std::to_string(limit.rlim_cur >> 10) +
             " KiB, for all processes of this user together. Cure: raise it (ulimit -l, "
             "LimitMEMLOCK=), or make fewer or smaller loops (LoopOptions::ring_entries)";
    }
    case EOPNOTSUPP:
      return "this kernel's io_uring lacks multishot receive. Cure: Linux 6.0 or newer";
    default:
      return "io_uring cannot be set up: " + std::generic_category().message(error);
  }
}

std::unique_ptr<IoEngine> make_engine(const LoopOptions& options) {
  check(options);
  const StandardStreamsTaken taken;
  const Wish wish = wished(options);
  if (wish.engine == Engine::epoll) return make_epoll_engine(options);
  EngineOrReason uring = verdict().try_uring(options);
  if (uring.engine != nullptr) return std::move(uring.engine);
  if (wish.engine == Engine::uring) {
    throw std::system_error(uring.error, std::generic_category(),
                            "weir: " + std::string(wish.by) + " asks for io_uring, but " +
                                uring.reason + "; or let weir use epoll");
  }
  std::unique_ptr<IoEngine> epoll = make_epoll_engine(options);
  if (verdict().is_news()) {
    logging::write(logging::Level::info, "using epoll, since " + uring.reason);
  }
  return epoll;
}

EngineChoice choose_engine(const LoopOptions& options) {
  check(options);
  const Wish wish = wished(options);
  const std::string asked = std::string(wish.by) + " asks for it";
  if (wish.engine == Engine::epoll) return {"epoll", asked};
  const EngineOrReason uring = verdict().try_uring(options);
  if (uring.engine != nullptr) {
    return {std::string(uring.engine->name()),
            wish.engine == Engine::uring ? asked : "this kernel allows it and has what weir needs"};
  }
  if (wish.engine == Engine::uring)
    return {"", std::string(wish.by) + " asks for io_uring, but " + uring.reason};
  return {"epoll", uring.reason};
}

}  // namespace weir::detail
