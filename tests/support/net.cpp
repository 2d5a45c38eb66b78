#include "net.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace weir::test {
namespace {

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), std::string("peer: ") + what);
}

void set_int(int fd, int level, int name, int value) {
  if (::setsockopt(fd, level, name, &value, sizeof value) != 0) fail("setsockopt");
}

void shrink_buffers(int fd, int bytes) {
  if (bytes == 0) return;
  set_int(fd, SOL_SOCKET, SO_RCVBUF, bytes);
  set_int(fd, SOL_SOCKET, SO_SNDBUF, bytes);
}

/// Why an engine cannot be had; empty if it can.
std::string refusal(Engine engine) {
  try {
    const EventLoop probe(LoopOptions{.engine = engine});
    const std::string_view wanted = engine == Engine::uring ? "io_uring" : "epoll";
    if (probe.engine_name() != wanted) {
      return "WEIR_ENGINE asks for " + std::string(probe.engine_name());
    }
    return {};
  } catch (const std::system_error& error) {
    return error.what();
  }
}

Task<> bounded(Task<> task) { co_await timeout(kPatience, std::move(task)); }

}  // namespace

std::string name_of(Engine engine) {
  switch (engine) {
    case Engine::uring:
      return "io_uring";
    case Engine::epoll:
      return "epoll";
    case Engine::automatic:
      break;
  }
  return "automatic";
}

void for_each_engine(const std::function<void(Engine)>& body) {
  static const std::array<std::pair<Engine, std::string>, 2> engines = {
      std::pair(Engine::uring, refusal(Engine::uring)),
      std::pair(Engine::epoll, refusal(Engine::epoll))};
  for (const auto& [engine, reason] : engines) {
    if (!reason.empty()) {
      MESSAGE("skipped on " << name_of(engine) << ": " << reason);
      continue;
    }
    INFO("engine: " << name_of(engine));
    body(engine);
  }
}

void on_engine(Engine engine, const std::function<Task<>()>& body, LoopOptions options) {
  options.engine = engine;
  EventLoop loop(options);
  loop.run_until_complete(bounded(body()));
}

void on_each_engine(const std::function<Task<>()>& body, LoopOptions options) {
  for_each_engine([&](Engine engine) { on_engine(engine, body, options); });
}

Peer::Peer(int fd) : fd_(fd) {
  timeval patience{};
  patience.tv_sec = std::chrono::seconds(kPatience).count();
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

Peer Peer::connect(const SocketAddress& address, int buffer_bytes) {
  const int fd = ::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  Peer peer(fd);
  shrink_buffers(fd, buffer_bytes);
  const RawAddress& raw = address.raw();
  int result = ::connect(fd, reinterpret_cast<const sockaddr*>(raw.bytes), raw.size);
  if (result != 0 && errno == EINTR) {  // by work of a ring of this thread; it goes on
    pollfd writable{.fd = fd, .events = POLLOUT, .revents = 0};
    while (::poll(&writable, 1, -1) < 0 && errno == EINTR) continue;
    errno = option_of(fd, SOL_SOCKET, SO_ERROR);
    result = errno == 0 ? 0 : -1;
  }
  if (result != 0) fail("connect");
  return peer;
}

void Peer::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) fail("send");
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

std::size_t Peer::send_now(std::string_view bytes) {
  std::size_t total = 0;
  while (!bytes.empty()) {
    const auto sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EAGAIN) break;
    if (sent < 0) fail("send");
    bytes.remove_prefix(static_cast<std::size_t>(sent));
    total += static_cast<std::size_t>(sent);
  }
  return total;
}

std::string Peer::receive(std::size_t most) {
  std::string bytes(most, '\0');
  auto count = ::recv(fd_, bytes.data(), most, 0);
  while (count < 0 && errno == EINTR) count = ::recv(fd_, bytes.data(), most, 0);
  if (count < 0) fail("recv");
  bytes.resize(static_cast<std::size_t>(count));
  return bytes;
}

std::string Peer::receive_now(std::size_t most) {
  std::string bytes(most, '\0');
  const auto count = ::recv(fd_, bytes.data(), most, MSG_DONTWAIT);
  if (count < 0 && errno != EAGAIN) fail("recv");
  bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  return bytes;
}

std::string Peer::receive_exactly(std::size_t count) {
  std::string bytes;
  while (bytes.size() < count) {
    std::string more = receive(std::min<std::size_t>(count - bytes.size(), 1 << 20));
    if (more.empty()) break;
    bytes += more;
  }
  return bytes;
}

std::string Peer::receive_all(int* error) {
  std::string bytes;
  if (error != nullptr) *error = 0;
  for (;;) {
    try {
      std::string more = receive(1 << 18);
      if (more.empty()) return bytes;
      bytes += more;
    } catch (const std::system_error& failure) {
      if (error == nullptr) throw;
      *error = failure.code().value();
      return bytes;
    }
  }
}

int Peer::wait_for_end() {
  int error = 0;
  receive_all(&error);
  return error;
}

void Peer::shutdown_send() {
  if (::shutdown(fd_, SHUT_WR) != 0) fail("shutdown");
}

void Peer::reset() {
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close();
}

void Peer::close() noexcept {
  if (const int fd = std::exchange(fd_, -1); fd >= 0) ::close(fd);
}

SocketAddress Peer::local_address() const {
  RawAddress raw;
  raw.size = sizeof raw.bytes;
  ::getsockname(fd_, reinterpret_cast<sockaddr*>(raw.bytes), &raw.size);
  return SocketAddress(raw);
}

SocketAddress loopback() { return SocketAddress::parse("127.0.0.1:0"); }

std::pair<int, int> tcp_pair(int buffer_bytes) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) fail("socket");
  shrink_buffers(listener, buffer_bytes);
  const RawAddress raw = loopback().raw();
  if (::bind(listener, reinterpret_cast<const sockaddr*>(raw.bytes), raw.size) != 0) fail("bind");
  if (::listen(listener, 1) != 0) fail("listen");
  RawAddress bound;
  bound.size = sizeof bound.bytes;
  ::getsockname(listener, reinterpret_cast<sockaddr*>(bound.bytes), &bound.size);
  Peer client = Peer::connect(SocketAddress(bound), buffer_bytes);
  const int accepted = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  if (accepted < 0) fail("accept");
  ::close(listener);
  const int fd = ::dup(client.fd());
  return {accepted, fd};
}

Connected connect_pair(ConnectionOptions options, int buffer_bytes) {
  const auto [ours, theirs] = tcp_pair(buffer_bytes);
  Peer peer(theirs);
  return {TcpConnection(Socket(EventLoop::current().sockets(), ours), options), std::move(peer)};
}

Linked link_pair(ConnectionOptions a, ConnectionOptions b, int buffer_bytes) {
  const auto [left, right] = tcp_pair(buffer_bytes);
  Sockets& sockets = EventLoop::current().sockets();
  Socket one(sockets, left);
  Socket other(sockets, right);
  return {TcpConnection(std::move(one), a), TcpConnection(std::move(other), b)};
}

int option_of(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, level, name, &value, &size) == 0 ? value : -errno;
}

namespace {

/// Eight bytes of a stream, at the place `index`.
std::uint64_t word_of(std::uint64_t seed, std::uint64_t index) noexcept {
  std::uint64_t mixed = (seed + 1) * 0x9e3779b97f4a7c15 + index * 0xd1b54a32d192ed03;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

}  // namespace

std::string pattern(std::size_t size, std::uint64_t seed, std::uint64_t offset) {
  std::string bytes(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const std::uint64_t word = word_of(seed, (offset + done) / 8);
    const std::size_t skip = (offset + done) % 8;
    const std::size_t part = std::min(8 - skip, size - done);
    std::memcpy(bytes.data() + done, reinterpret_cast<const char*>(&word) + skip, part);
    done += part;
  }
  return bytes;
}

std::size_t matching(std::string_view bytes, std::uint64_t seed, std::uint64_t offset) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const std::uint64_t word = word_of(seed, (offset + done) / 8);
    const std::size_t skip = (offset + done) % 8;
    const std::size_t part = std::min(8 - skip, bytes.size() - done);
    if (std::memcmp(bytes.data() + done, reinterpret_cast<const char*>(&word) + skip, part) != 0) {
      return done;
    }
    done += part;
  }
  return done;
}

Task<> turns(int count) {
  EventLoop& loop = EventLoop::current();
  for (int i = 0; i < count; ++i) {
    const auto turned = std::make_shared<Event>();
    loop.post([turned] { turned->set(); });
    co_await turned->wait();
  }
}

Task<> completed(std::uint64_t since, std::uint64_t count) {
  co_await turn_until([=] { return completions() >= since + count; });
}

void before_resuming(std::uint64_t since, std::uint64_t count, std::function<void()> function) {
  EventLoop::current().post([since, count, function = std::move(function)]() mutable {
    if (completions() >= since + count) {
      function();
    } else {
      before_resuming(since, count, std::move(function));
    }
  });
}

}  // namespace weir::test
