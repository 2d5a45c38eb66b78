#include "net.h"

#include <weir/io/kernel_sockets.h>

#include <doctest/doctest.h>
#include <linux/tcp.h>  // <netinet/tcp.h> knows less
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <system_error>
#include <thread>

#include "process.h"
#include "simulation.h"

namespace weir::test {
namespace {

[[noreturn]] void fail(std::int64_t error, const char* what) {
  throw std::system_error(static_cast<int>(-error), std::generic_category(),
                          std::string("peer: ") + what);
}

/// Gives the result of a system call, or throws its error.
std::int64_t checked(std::int64_t result, const char* what) {
  if (result < 0) fail(result, what);
  return result;
}

void shrink_buffers(Sockets& sockets, int fd, int bytes) {
  if (bytes == 0) return;
  checked(sockets.set(fd, Sockets::Option::receive_buffer, bytes), "set a buffer");
  checked(sockets.set(fd, Sockets::Option::send_buffer, bytes), "set a buffer");
}

/// The machine that the tests run on.
class RealMachine final : public TestMachine {
 public:
  [[nodiscard]] Sockets& sockets() noexcept override { return kernel_sockets(); }

  int connect(const SocketAddress& address, int buffer_bytes) override {
    const int fd = ::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    try {
      shrink_buffers(sockets(), fd, buffer_bytes);
    } catch (const std::system_error& error) {
      ::close(fd);
      return -error.code().value();
    }
    const RawAddress& raw = address.raw();
    int error = 0;
    if (::connect(fd, reinterpret_cast<const sockaddr*>(raw.bytes), raw.size) != 0) error = errno;
    if (error == EINTR) {  // by work of a ring of this thread; it goes on
      error = wait_for(fd, POLLOUT) ? option_of(fd, SOL_SOCKET, SO_ERROR) : ETIMEDOUT;
    }
    if (error == 0) return fd;
    ::close(fd);
    return -error;
  }

  std::int64_t send(int fd, std::string_view bytes, bool waits) override {
    return transfer(fd, POLLOUT, waits, [&] {
      return ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    });
  }

  std::int64_t receive(int fd, std::span<char> into, bool waits) override {
    return transfer(fd, POLLIN, waits,
                    [&] { return ::recv(fd, into.data(), into.size(), MSG_DONTWAIT); });
  }

  [[nodiscard]] std::uint32_t look_at(int fd) override {
    pollfd held{.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP, .revents = 0};
    return ::poll(&held, 1, 0) < 0 ? 0 : static_cast<std::uint32_t>(held.revents);
  }

  [[nodiscard]] std::uint64_t arrived(int fd) override {
    tcp_info info{};
    socklen_t size = sizeof info;
    if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return 0;
    return info.tcpi_bytes_received;
  }

  std::unique_ptr<Running> start_thread(std::function<void()> function) override {
    struct Thread final : Running {
      explicit Thread(std::function<void()> function) : thread(std::move(function)) {}
      std::jthread thread;
    };
    return std::make_unique<Thread>(std::move(function));
  }
  void yield() override { std::this_thread::yield(); }

  [[nodiscard]] Duration turn() const noexcept override { return Duration::zero(); }

  [[nodiscard]] std::size_t open_descriptors() override {
    return weir::test::open_descriptors().size();
  }

  void deny_descriptors(bool denied) override {
    static rlimit before{};
    if (!denied) {
      ::setrlimit(RLIMIT_NOFILE, &before);
      return;
    }
    ::getrlimit(RLIMIT_NOFILE, &before);
    const int lowest_free = ::dup(STDERR_FILENO);
    ::close(lowest_free);
    rlimit limit = before;
    limit.rlim_cur = static_cast<rlim_t>(lowest_free);
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }

 private:
  /// False if patience is over first.
  static bool wait_for(int fd, short events) {
    pollfd ready{.fd = fd, .events = events, .revents = 0};
    const auto end = std::chrono::steady_clock::now() + kPatience;
    for (;;) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      if (left.count() <= 0) return false;
      const int count = ::poll(&ready, 1, static_cast<int>(left.count()));
      if (count > 0) return true;
      if (count < 0 && errno != EINTR) return true;  // the call will tell
    }
  }

  template <class Call>
  static std::int64_t transfer(int fd, short events, bool waits, Call call) {
    for (;;) {
      const auto count = call();
      if (count >= 0) return count;
      if (errno == EINTR) continue;
      if (errno != EAGAIN || !waits || !wait_for(fd, events)) return -errno;
    }
  }
};

RealMachine& real_machine() {
  static RealMachine machine;
  return machine;
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

void for_each_kernel_engine(std::string_view reason, const std::function<void(Engine)>& body) {
  for_each_engine(body);
  MESSAGE("skipped on the simulation: " << std::string(reason));
}

void on_engine(Engine engine, const std::function<Task<>()>& body, LoopOptions options) {
  options.engine = engine;
  const LookupsEnd lookups_end;
  EventLoop loop(options);
  loop.run_until_complete(bounded(body()));
}

void on_each_kernel_engine(std::string_view reason, const std::function<Task<>()>& body,
                           LoopOptions options) {
  for_each_kernel_engine(reason, [&](Engine engine) { on_engine(engine, body, options); });
}

void on_each_engine(const std::function<Task<>()>& body, LoopOptions options) {
  for_each_engine([&](Engine engine) { on_engine(engine, body, options); });
  on_simulation(body, options);
}

TestMachine& TestMachine::current() {
  TestMachine* simulated = simulated_machine();
  return simulated != nullptr ? *simulated : real_machine();
}

TlsMode*& TlsMode::current() noexcept {
  static TlsMode* mode = nullptr;
  return mode;
}

bool plain_only(std::string_view reason) {
  if (TlsMode::current() == nullptr) return false;
  MESSAGE("skipped over TLS: " << std::string(reason));
  return true;
}

Peer Peer::connect(const SocketAddress& address, int buffer_bytes) {
  const std::int64_t fd = TestMachine::current().connect(address, buffer_bytes);
  return Peer(static_cast<int>(checked(fd, "connect")));
}

Peer Peer::connect_to(const TcpServer& server, int buffer_bytes) {
  Peer peer = connect(server.address(), buffer_bytes);
  if (TlsMode* tls = TlsMode::current()) peer.layer_ = tls->begin(*peer.machine_, peer.fd_);
  return peer;
}

std::int64_t Peer::send_some(std::string_view bytes, bool waits) {
  return layer_ != nullptr ? layer_->send(bytes, waits) : machine_->send(fd_, bytes, waits);
}

std::int64_t Peer::receive_some(std::span<char> into, bool waits) {
  return layer_ != nullptr ? layer_->receive(into, waits) : machine_->receive(fd_, into, waits);
}

void Peer::agree() {
  if (layer_ != nullptr) checked(layer_->agree(true), "agree");
}

Task<Peer> agreed_peer(const TcpServer& server, int buffer_bytes) {
  Peer peer = Peer::connect_to(server, buffer_bytes);
  if (TlsMode::current() != nullptr) {
    const auto agree = [&peer] { peer.agree(); };
    co_await in_thread(agree);
  }
  co_return peer;
}

int Peer::knock(const SocketAddress& address) {
  try {
    Peer peer = connect(address);
    peer.send("x");
    return peer.wait_for_end();
  } catch (const std::system_error& error) {
    return error.code().value();
  }
}

void Peer::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::int64_t sent = checked(send_some(bytes, true), "send");
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

std::size_t Peer::send_now(std::string_view bytes) {
  std::size_t total = 0;
  while (!bytes.empty()) {
    const std::int64_t sent = send_some(bytes, false);
    if (sent == -EAGAIN) break;
    total += static_cast<std::size_t>(checked(sent, "send"));
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return total;
}

std::string Peer::receive(std::size_t most) {
  std::string bytes(most, '\0');
  bytes.resize(static_cast<std::size_t>(checked(receive_some(bytes, true), "recv")));
  return bytes;
}

std::string Peer::receive_now(std::size_t most) {
  std::string bytes(most, '\0');
  const std::int64_t count = receive_some(bytes, false);
  bytes.resize(count == -EAGAIN ? 0 : static_cast<std::size_t>(checked(count, "recv")));
  return bytes;
}

bool Peer::has_ended() {
  char byte = 0;
  return receive_some(std::span(&byte, 1), false) == 0;
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
  if (layer_ != nullptr) checked(layer_->say_end(true), "say the end");
  checked(machine_->sockets().shutdown_send(fd_), "shutdown");
}

void Peer::reset() {
  machine_->sockets().set(fd_, Sockets::Option::reset_on_close, 1);
  layer_.reset();
  close();
}

void Peer::close() noexcept {
  if (fd_ >= 0 && layer_ != nullptr) (void)layer_->say_end(false);
  layer_.reset();
  if (const int fd = std::exchange(fd_, -1); fd >= 0) machine_->sockets().close(fd);
}

SocketAddress Peer::local_address() const {
  RawAddress raw;
  checked(machine_->sockets().local_address(fd_, raw), "getsockname");
  return SocketAddress(raw);
}

SocketAddress loopback() { return SocketAddress::parse("127.0.0.1:0"); }

SocketAddress own_loopback() {
  const auto pid = static_cast<unsigned>(::getpid());
  const auto part = [pid](unsigned shift, unsigned bits) {
    return std::to_string(1 + (pid >> shift & ((1U << bits) - 1)));
  };
  // 127.2.1.1 and above, where a pid has 22 bits at the most.
  return SocketAddress::parse("127." + std::to_string(2 + (pid >> 14 & 0xff) % 250) + '.' +
                              part(7, 7) + '.' + part(0, 7) + ":0");
}

std::pair<int, int> tcp_pair(int buffer_bytes) {
  Sockets& sockets = TestMachine::current().sockets();
  const Socket listener(sockets, static_cast<int>(checked(sockets.open(AF_INET), "socket")));
  shrink_buffers(sockets, listener.fd(), buffer_bytes);
  checked(sockets.bind(listener.fd(), loopback().raw()), "bind");
  checked(sockets.listen(listener.fd(), 1), "listen");
  RawAddress bound;
  checked(sockets.local_address(listener.fd(), bound), "getsockname");
  Peer client = Peer::connect(SocketAddress(bound), buffer_bytes);
  const auto accepted = static_cast<int>(checked(sockets.accept(listener.fd()), "accept"));
  return {accepted, client.release()};
}

Connected connect_pair(ConnectionOptions options, int buffer_bytes) {
  const auto [ours, theirs] = tcp_pair(buffer_bytes);
  TestMachine& machine = TestMachine::current();
  Peer bare(theirs);
  TcpConnection connection(Socket(EventLoop::current().sockets(), ours), options);
  TlsMode* tls = TlsMode::current();
  if (tls == nullptr) return {std::move(connection), std::move(bare)};
  std::unique_ptr<PeerLayer> layer = tls->secure(connection, machine, theirs);
  return {std::move(connection), Peer(machine, bare.release(), std::move(layer))};
}

Linked link_pair(ConnectionOptions a, ConnectionOptions b, int buffer_bytes) {
  const auto [left, right] = tcp_pair(buffer_bytes);
  Sockets& sockets = EventLoop::current().sockets();
  Socket one(sockets, left);
  Socket other(sockets, right);
  Linked linked{TcpConnection(std::move(one), a), TcpConnection(std::move(other), b)};
  if (TlsMode* tls = TlsMode::current()) tls->secure(linked.a, linked.b);
  return linked;
}

namespace {

/// By their numbers: all that `count_threads` counts.
std::set<std::string> own_threads() {
  std::set<std::string> threads;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);  // of one that has ended: nothing
    const bool of_kernel = name.starts_with("iou-");          // io_uring's workers come and go
    if (name.empty() || of_kernel || name == "weir-log" || name == "weir-blocking" ||
        name == "weir-handshake" || name == "weir-watch") {
      continue;
    }
    threads.insert(task.path().filename());
  }
  return threads;
}

}  // namespace

std::size_t count_threads() { return own_threads().size(); }

LookupsEnd::LookupsEnd() {
  // ThreadSanitizer has a thread of its own, from when the first other one is made.
  [[maybe_unused]] static const bool made = [] {
    if (kThreadSanitizer) std::thread([] {}).join();
    return true;
  }();
  before_ = own_threads();
}

LookupsEnd::~LookupsEnd() {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  const auto any_since = [this] {
    const auto now = own_threads();
    return !std::includes(before_.begin(), before_.end(), now.begin(), now.end());
  };
  while (any_since() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
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
  const Duration time = TestMachine::current().turn();
  for (int i = 0; i < count; ++i) {
    if (TlsMode* tls = TlsMode::current()) tls->go_on();
    if (time > Duration::zero()) co_await sleep(time);
    const auto turned = std::make_shared<Event>();
    loop.post([turned] { turned->set(); });
    co_await turned->wait();
  }
}

Task<> completed(std::uint64_t since, std::uint64_t count) {
  const auto enough = [=] { return completions() >= since + count; };
  co_await turn_until(enough);
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
