#include <weir/core/on.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/error.h>
#include <weir/coro/event.h>
#include <weir/coro/task_group.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_any.h>
#include <weir/net/handshake.h>
#include <weir/net/resolver.h>
#include <weir/net/tls/context.h>

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace weir {
namespace {

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

detail::NameQuery split(const std::string& name) {
  if (name.find('\0') != std::string::npos) reject(name, "there is a NUL in it");
  const std::size_t colon = name.rfind(':');
  if (colon == std::string::npos || colon + 1 == name.size() || name.ends_with(']')) {
    reject(name, "the port is missing");
  }
  if (colon == 0) reject(name, "the host is missing");
  detail::NameQuery query;
  query.name = name;
  query.host = name.substr(0, colon);
  query.service = name.substr(colon + 1);
  std::string& host = query.host;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    query.is_number = true;
  } else if (host.find_first_of(":[]") != std::string::npos) {
    reject(name, "an IPv6 address stands in brackets");
  }
  check_service(name, query.service);
  return query;
}

/// True if it is an address as it stands.
bool needs_no_lookup(const detail::NameQuery& query) {
  if (query.service.find_first_not_of("0123456789") != std::string::npos) return false;
  in_addr ignored;
  return query.is_number || ::inet_pton(AF_INET, query.host.c_str(), &ignored) == 1;
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

/// What a connection begins with.
struct Opening {
  std::string first;                                   // bytes that go before all else
  std::shared_ptr<detail::HandshakeFactory> security;  // nullptr: none
  std::string peer;                                    // whom the server has to prove to be
};

Task<TcpConnection> resolve_and_connect(std::string name, ConnectOptions options, Opening opening) {
  std::vector<SocketAddress> addresses = co_await resolve(std::move(name));
  Socket socket = co_await connect_any(std::move(addresses), options.attempt_delay);
  TcpConnection connection(std::move(socket), options.connection);
  if (!opening.first.empty()) {
    co_await connection.send(std::string_view(opening.first));
    if (opening.security != nullptr) co_await connection.flush();
  }
  if (opening.security != nullptr) {
    co_await detail::secure(connection, std::move(opening.security), std::move(opening.peer));
  }
  co_return connection;
}

Task<TcpConnection> connect_in_time(std::string name, ConnectOptions options, Opening opening) {
  check_delay("attempt_delay", options.attempt_delay);
  check_delay("timeout", options.timeout);
  detail::check(options.connection);
  if (opening.security != nullptr && opening.security->accepts()) {
    throw std::invalid_argument("weir: ConnectOptions::tls is a server's context");
  }
  Task<TcpConnection> task = resolve_and_connect(std::move(name), options, std::move(opening));
  if (options.timeout.count() == 0) co_return co_await std::move(task);
  co_return co_await timeout(options.timeout, std::move(task));
}

}  // namespace

Task<std::vector<SocketAddress>> resolve(std::string name) {
  std::vector<SocketAddress> addresses;
  if (name.starts_with("unix:")) {
    addresses.push_back(SocketAddress::parse(name));
    co_return addresses;
  }
  detail::NameQuery query = split(name);
  if (needs_no_lookup(query)) {
    addresses.push_back(SocketAddress::parse(name));
    co_return addresses;
  }
  Task<std::vector<detail::RawAddress>> look_up =
      EventLoop::current().machine().look_up(std::move(query));
  const std::vector<detail::RawAddress> found = co_await std::move(look_up);
  for (const detail::RawAddress& address : found) addresses.emplace_back(address);
  co_return addresses;
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
  Opening opening;
  opening.first = options.proxy_header;
  if (options.tls != nullptr) {
    opening.security = options.tls->factory();
    opening.peer = options.server_name.empty() ? detail::host_of(name) : options.server_name;
  }
  return connect_in_time(std::move(name), options, std::move(opening));
}

}  // namespace weir
