#include <weir/core/processor.h>
#include <weir/coro/channel.h>
#include <weir/coro/error.h>
#include <weir/io/kernel_names.h>

#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace weir::detail {
namespace {

constexpr std::size_t kMostAddresses = 64;
/// Look-ups at the same time in the process: each has a thread, and a dead name server holds it
/// for many seconds. The others wait.
constexpr std::size_t kMostLookups = 64;
constexpr std::size_t kMostWaiting = 10'000;

class ResolverCategory final : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "resolver"; }
  [[nodiscard]] std::string message(int code) const override { return ::gai_strerror(code); }
};

/// What keeps a file from being opened, or 0: glibc says that there is no such name where it could
/// not read its files.
int lack_of_descriptors() noexcept {
  const int fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    ::close(fd);
    return 0;
  }
  return errno == EMFILE || errno == ENFILE ? errno : 0;
}

std::error_code code_of_lookup(int result) {
  const int number = errno;  // EAI_SYSTEM's, but for what modules of nsswitch.conf make of it
  if (const int lack = lack_of_descriptors(); lack != 0) return {lack, std::generic_category()};
  switch (result) {
    case EAI_SYSTEM:
      return {number, std::generic_category()};
    case EAI_NONAME:
#ifdef EAI_NODATA
    case EAI_NODATA:
#endif
      return errc::not_found;
    case EAI_AGAIN:
      return errc::try_again;
    default:
      return {result, resolver_category()};
  }
}

struct Lookup {
  std::vector<RawAddress> addresses;
  std::error_code error;
};

Lookup look_up(const NameQuery& query) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  // An address that the user wrote down holds whatever addresses this machine has.
  hints.ai_flags = query.is_number ? AI_NUMERICHOST : AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  const int result = ::getaddrinfo(query.host.c_str(), query.service.c_str(), &hints, &found);
  Lookup lookup;
  if (result != 0) {
    lookup.error = code_of_lookup(result);
    return lookup;
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> list(found, &::freeaddrinfo);
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_addrlen > sizeof(RawAddress::bytes) ||
        lookup.addresses.size() == kMostAddresses) {
      continue;
    }
    RawAddress raw;
    const auto* bytes = reinterpret_cast<const unsigned char*>(entry->ai_addr);
    std::copy(bytes, bytes + entry->ai_addrlen, raw.bytes);
    raw.size = entry->ai_addrlen;
    lookup.addresses.push_back(raw);
  }
  return lookup;
}

using LookupChannel = Channel<Lookup>;

/// The process's look-ups and their threads, which end when there is nothing to look up.
class Lookups {
 public:
  /// Never destroyed: its threads are detached, and may outlive `main`.
  static Lookups& instance() {
    static auto* const lookups = new Lookups;
    return *lookups;
  }

  void add(NameQuery query, const std::shared_ptr<LookupChannel>& answer) {
    const std::lock_guard lock(mutex_);
    if (jobs_.size() >= kMostWaiting) {
      throw std::system_error(EAGAIN, std::generic_category(),
                              "weir: " + std::to_string(kMostWaiting) +
                                  " names wait to be resolved already, and not " + query.host);
    }
    jobs_.push_back({std::move(query), answer});
    if (threads_ == kMostLookups) return;
    try {
      start_thread();
      ++threads_;
    } catch (...) {
      if (threads_ > 0) return;  // one of them will do it
      jobs_.pop_back();
      throw;
    }
  }

 private:
  struct Job {
    NameQuery query;
    std::weak_ptr<LookupChannel> answer;  // gone if nobody waits any more
  };

  void start_thread() {
    // The thread takes no signals: they are the program's.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      const Unbound unbound;
      std::thread([this] { work(); }).detach();
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void work() {
    for (;;) {
      Job job;
      {
        const std::lock_guard lock(mutex_);
        if (jobs_.empty()) {
          --threads_;
          return;
        }
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      if (job.answer.expired()) continue;
      Lookup lookup;
      try {
        lookup = look_up(job.query);
      } catch (...) {
        lookup.error = std::make_error_code(std::errc::not_enough_memory);
      }
      if (const auto answer = job.answer.lock()) (void)answer->try_send(std::move(lookup));
    }
  }

  std::mutex mutex_;
  std::deque<Job> jobs_;
  std::size_t threads_ = 0;
};

}  // namespace

const std::error_category& resolver_category() noexcept {
  static const ResolverCategory category;
  return category;
}

Task<std::vector<RawAddress>> kernel_look_up(NameQuery query) {
  const std::string name = query.name;
  const auto answer = std::make_shared<LookupChannel>(1);
  Lookups::instance().add(std::move(query), answer);
  std::optional<Lookup> lookup = co_await answer->receive();
  if (lookup->error) {
    throw std::system_error(lookup->error, "weir: cannot resolve \"" + name + "\"");
  }
  co_return std::move(lookup->addresses);
}

}  // namespace weir::detail
