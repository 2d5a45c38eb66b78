#include <weir/core/on.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/channel.h>
#include <weir/coro/event.h>
#include <weir/coro/task_group.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_any.h>
#include <weir/net/resolver.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace weir {
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

const std::error_category& resolver_category() noexcept {
  static const ResolverCategory category;
  return category;
}

struct Lookup {
  std::vector<SocketAddress> addresses;
  std::error_code error;
};

/// What is looked up; `host` is as in "host:port", without brackets.
struct Query {
  std::string host;
  std::string service;
  bool in_brackets = false;
};

Lookup look_up(const Query& query) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  // An address that the user wrote down holds whatever addresses this machine has.
  hints.ai_flags = query.in_brackets ? AI_NUMERICHOST : AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  const int result = ::getaddrinfo(query.host.c_str(), query.service.c_str(), &hints, &found);
  Lookup lookup;
  if (result != 0) {
    lookup.error = result == EAI_SYSTEM ? std::error_code(errno, std::generic_category())
                                        : std::error_code(result, resolver_category());
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
    lookup.addresses.emplace_back(raw);
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

  void add(Query query, const std::shared_ptr<LookupChannel>& answer) {
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
    Query query;
    std::weak_ptr<LookupChannel> answer;  // gone if nobody waits any more
  };

  void start_thread() {
    // The thread takes no signals: they are the program's.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
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

[[noreturn]] void reject(std::string_view name, const char* why) {
  std::string shown(name.substr(0, 300));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  throw std::invalid_argument("weir: \"" + shown + "\" names no host and port (host:port): " + why);
}

/// getaddrinfo(3) would take "99999" for 34463, and "-1" for 65535.
void check_service(std::string_view name, std::string_view service) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto is_letter = [](char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; };
  if (std::all_of(service.begin(), service.end(), is_digit)) {
    std::uint16_t port = 0;
    const auto parsed = std::from_chars(service.data(), service.data() + service.size(), port);
    if (parsed.ec != std::errc()) reject(name, "the port is above 65535");
    return;
  }
  const bool is_name = std::all_of(service.begin(), service.end(), [&](char c) {
    return is_digit(c) || is_letter(c) || c == '-' || c == '_' || c == '.';
  });
  if (!is_name || std::none_of(service.begin(), service.end(), is_letter)) {
    reject(name, "the port must be a number from 0 to 65535 or a service's name");
  }
}

Query split(const std::string& name) {
  if (name.find('\0') != std::string::npos) reject(name, "there is a NUL in it");
  const std::size_t colon = name.rfind(':');
  if (colon == std::string::npos || colon + 1 == name.size()) reject(name, "the port is missing");
  if (colon == 0) reject(name, "the host is missing");
  Query query{.host = name.substr(0, colon), .service = name.substr(colon + 1)};
  std::string& host = query.host;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    query.in_brackets = true;
  } else if (host.find_first_of(":[]") != std::string::npos) {
    reject(name, "an IPv6 address stands in brackets");
  }
  check_service(name, query.service);
  return query;
}

/// True if it is an address as it stands.
bool needs_no_lookup(const Query& query) {
  if (query.service.find_first_not_of("0123456789") != std::string::npos) return false;
  in_addr ignored;
  return query.in_brackets || ::inet_pton(AF_INET, query.host.c_str(), &ignored) == 1;
}

/// Names that the loop's own machine knows.
std::vector<SocketAddress> look_up_on(Machine& machine, const Query& query,
                                      const std::string& name) {
  std::uint16_t port = 0;
  const char* end = query.service.data() + query.service.size();
  const auto parsed = std::from_chars(query.service.data(), end, port);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    throw std::system_error(std::error_code(EAI_SERVICE, resolver_category()),
                            "weir: cannot resolve \"" + name + "\"");
  }
  std::vector<SocketAddress> addresses;
  for (const RawAddress& raw : machine.look_up(query.host)) {
    addresses.push_back(SocketAddress(raw).with_port(port));
  }
  if (addresses.empty()) {
    throw std::system_error(std::error_code(EAI_NONAME, resolver_category()),
                            "weir: cannot resolve \"" + name + "\"");
  }
  return addresses;
}

/// IPv6 and IPv4 in turn, beginning with the family of the first (RFC 8305, 4).
std::vector<SocketAddress> interleaved(const std::vector<SocketAddress>& addresses) {
  std::vector<SocketAddress> first;
  std::vector<SocketAddress> second;
  for (const SocketAddress& address : addresses) {
    (address.family() == addresses.front().family() ? first : second).push_back(address);
  }
  std::vector<SocketAddress> order;
  for (std::size_t i = 0; i < std::max(first.size(), second.size()); ++i) {
    if (i < first.size()) order.push_back(first[i]);
    if (i < second.size()) order.push_back(second[i]);
  }
  return order;
}

/// What the tries of a race share; it lives in the racing coroutine's frame.
struct Race {
  Socket winner;
  std::exception_ptr failure;
  std::size_t running = 0;
  Event news;  // one of them ended
};

Task<> run_try(Race& race, SocketAddress address) {
  const Connector connector(address, ConnectorOptions{.attempt_timeout = {}});
  try {
    Socket socket = co_await connector.try_once();
    if (!race.winner) race.winner = std::move(socket);
  } catch (...) {
    race.failure = std::current_exception();
  }
  --race.running;
  race.news.set();
}

void check_delay(const char* option, std::chrono::milliseconds value) {
  if (value.count() >= 0) return;
  throw std::invalid_argument("weir: ConnectOptions::" + std::string(option) + " is " +
                              std::to_string(value.count()) + " ms; it must not be negative");
}

Task<TcpConnection> resolve_and_connect(std::string name, ConnectOptions options) {
  std::vector<SocketAddress> addresses = co_await resolve(std::move(name));
  Socket socket = co_await connect_any(std::move(addresses), options.attempt_delay);
  co_return TcpConnection(std::move(socket), options.connection);
}

}  // namespace

Task<std::vector<SocketAddress>> resolve(std::string name) {
  std::vector<SocketAddress> addresses;
  if (name.starts_with("unix:")) {
    addresses.push_back(SocketAddress::parse(name));
    co_return addresses;
  }
  Query query = split(name);
  if (needs_no_lookup(query)) {
    addresses.push_back(SocketAddress::parse(name));
    co_return addresses;
  }
  if (Machine* machine = EventLoop::current().engine().machine()) {
    co_return look_up_on(*machine, query, name);
  }
  const auto answer = std::make_shared<LookupChannel>(1);
  Lookups::instance().add(std::move(query), answer);
  std::optional<Lookup> lookup = co_await answer->receive();
  if (lookup->error) {
    throw std::system_error(lookup->error, "weir: cannot resolve \"" + name + "\"");
  }
  co_return std::move(lookup->addresses);
}

Task<Socket> connect_any(std::vector<SocketAddress> addresses,
                         std::chrono::milliseconds attempt_delay) {
  check_delay("attempt_delay", attempt_delay);
  if (addresses.empty()) {
    throw std::system_error(std::make_error_code(std::errc::address_not_available),
                            "weir: connect: the name has no address");
  }
  addresses = interleaved(addresses);
  Race race;
  TaskGroup tries;
  std::size_t next = 0;
  while (!race.winner) {
    race.news.reset();  // what it told is in `race`
    if (next < addresses.size()) {
      ++race.running;
      tries.spawn(run_try(race, addresses[next++]));
    } else if (race.running == 0) {
      std::rethrow_exception(race.failure);
    }
    if (race.winner || (race.running == 0 && next < addresses.size())) continue;
    if (next < addresses.size()) {
      (void)co_await as_tuple(timeout(attempt_delay, race.news.wait()));
    } else {
      co_await race.news.wait();
    }
  }
  co_return std::move(race.winner);
}

Task<TcpConnection> connect(std::string name, ConnectOptions options) {
  check_delay("attempt_delay", options.attempt_delay);
  check_delay("timeout", options.timeout);
  Stream::check(options.connection);
  if (options.timeout.count() == 0) {
    co_return co_await resolve_and_connect(std::move(name), options);
  }
  co_return co_await timeout(options.timeout, resolve_and_connect(std::move(name), options));
}

}  // namespace weir
