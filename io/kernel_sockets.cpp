#include <weir/io/kernel_sockets.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <utility>
#include <vector>

namespace weir {
namespace {

static_assert(sizeof(RawAddress::bytes) >= sizeof(sockaddr_un));

int checked(int result) noexcept { return result < 0 ? -errno : result; }

const sockaddr* raw(const RawAddress& address) noexcept {
  return reinterpret_cast<const sockaddr*>(address.bytes);
}

int set_int(int fd, int level, int name, int value) noexcept {
  return checked(::setsockopt(fd, level, name, &value, sizeof value));
}

/// How many signal descriptors of this thread want each signal, and which were blocked before.
struct SignalUse {
  unsigned users = 0;
  bool blocked_before = false;
};
thread_local std::array<SignalUse, NSIG> signal_uses;
/// Which signals each signal descriptor of this thread wants.
thread_local std::vector<std::pair<int, std::vector<int>>> signal_descriptors;

/// A signal for the process may be delivered to a thread that does not block it, and do there what
/// its disposition says. While somebody waits for it, that is to pass it on to the waiting thread.
struct Forwarding {
  std::atomic<pthread_t> to{};     // the last of `waiting`
  std::vector<pthread_t> waiting;  // threads; guarded by `forwarding_mutex`, as is the rest
  struct sigaction before{};
};
std::array<Forwarding, NSIG> forwardings;
std::mutex forwarding_mutex;
static_assert(std::atomic<pthread_t>::is_always_lock_free);

extern "C" void weir_forward_signal(int number) {
  const int saved = errno;
  (void)::pthread_kill(forwardings[static_cast<std::size_t>(number)].to.load(), number);
  errno = saved;
}

void begin_forwarding(int number) {
  const std::lock_guard lock(forwarding_mutex);
  Forwarding& forwarding = forwardings[static_cast<std::size_t>(number)];
  forwarding.waiting.push_back(::pthread_self());
  forwarding.to = ::pthread_self();
  if (forwarding.waiting.size() > 1) return;
  struct sigaction action{};
  action.sa_handler = weir_forward_signal;
  action.sa_flags = SA_RESTART;
  (void)::sigaction(number, &action, &forwarding.before);
}

void end_forwarding(int number) {
  const std::lock_guard lock(forwarding_mutex);
  Forwarding& forwarding = forwardings[static_cast<std::size_t>(number)];
  std::erase(forwarding.waiting, ::pthread_self());
  if (forwarding.waiting.empty()) {
    (void)::sigaction(number, &forwarding.before, nullptr);
  } else {
    forwarding.to = forwarding.waiting.back();
  }
}

}  // namespace

int KernelSockets::open(int family) {
  return checked(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

int KernelSockets::bind(int fd, const RawAddress& address) {
  return checked(::bind(fd, raw(address), address.size));
}

int KernelSockets::listen(int fd, int backlog) { return checked(::listen(fd, backlog)); }

int KernelSockets::connect(int fd, const RawAddress& address) {
  return checked(::connect(fd, raw(address), address.size));
}

int KernelSockets::accept(int listener) {
  return checked(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

int KernelSockets::set(int fd, Option option, int value) {
  switch (option) {
    case Option::no_delay:
      return set_int(fd, IPPROTO_TCP, TCP_NODELAY, value);
    case Option::keep_alive: {
      const int result = set_int(fd, SOL_SOCKET, SO_KEEPALIVE, value);
      if (result < 0 || value == 0) return result;
      // The system's default first probe comes after two hours.
      if (const int idle = set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60); idle < 0) return idle;
      if (const int gap = set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10); gap < 0) return gap;
      return set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 6);
    }
    case Option::reuse_address:
      return set_int(fd, SOL_SOCKET, SO_REUSEADDR, value);
    case Option::reuse_port:
      return set_int(fd, SOL_SOCKET, SO_REUSEPORT, value);
    case Option::v6_only:
      return set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, value);
    case Option::user_timeout_ms:
      return set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, value);
    case Option::reset_on_close: {
      const linger reset{.l_onoff = value, .l_linger = 0};
      return checked(::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset));
    }
    case Option::receive_buffer:
      return set_int(fd, SOL_SOCKET, SO_RCVBUF, value);
    case Option::send_buffer:
      return set_int(fd, SOL_SOCKET, SO_SNDBUF, value);
  }
  return -EINVAL;
}

int KernelSockets::take_error(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  const int result = checked(::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size));
  return result < 0 ? result : error;
}

int KernelSockets::local_address(int fd, RawAddress& address) {
  address.size = sizeof address.bytes;
  return checked(::getsockname(fd, reinterpret_cast<sockaddr*>(address.bytes), &address.size));
}

int KernelSockets::peer_address(int fd, RawAddress& address) {
  address.size = sizeof address.bytes;
  return checked(::getpeername(fd, reinterpret_cast<sockaddr*>(address.bytes), &address.size));
}

int KernelSockets::shutdown_send(int fd) { return checked(::shutdown(fd, SHUT_WR)); }

void KernelSockets::stop_listening(int fd) noexcept { (void)::shutdown(fd, SHUT_RD); }

int KernelSockets::unread_bytes(int fd) {
  int unread = 0;
  const int result = checked(::ioctl(fd, FIONREAD, &unread));
  return result < 0 ? result : unread;
}

void KernelSockets::close(int fd) noexcept { ::close(fd); }

int KernelSockets::open_spare() { return checked(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

int KernelSockets::open_signals(std::span<const int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : signals) {
    if (::sigaddset(&set, number) != 0) return -EINVAL;
  }
  const int fd = checked(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  if (fd < 0) return fd;
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &set, &before);
  for (const int number : signals) {
    SignalUse& use = signal_uses[static_cast<std::size_t>(number)];
    if (use.users++ > 0) continue;
    use.blocked_before = ::sigismember(&before, number) == 1;
    begin_forwarding(number);
  }
  signal_descriptors.emplace_back(fd, std::vector<int>(signals.begin(), signals.end()));
  return fd;
}

int KernelSockets::take_signal(int fd) {
  signalfd_siginfo info{};
  const auto size = ::read(fd, &info, sizeof info);
  return size == sizeof info ? static_cast<int>(info.ssi_signo) : -EAGAIN;
}

void KernelSockets::close_signals(int fd) noexcept {
  ::close(fd);
  const auto found = std::find_if(signal_descriptors.begin(), signal_descriptors.end(),
                                  [fd](const auto& entry) { return entry.first == fd; });
  if (found == signal_descriptors.end()) return;
  sigset_t unblock;
  sigemptyset(&unblock);
  for (const int number : found->second) {
    SignalUse& use = signal_uses[static_cast<std::size_t>(number)];
    if (--use.users > 0) continue;
    end_forwarding(number);
    if (!use.blocked_before) ::sigaddset(&unblock, number);
  }
  signal_descriptors.erase(found);
  pthread_sigmask(SIG_UNBLOCK, &unblock, nullptr);
}

void KernelSockets::raise_signal(int number) noexcept { (void)::raise(number); }

KernelSockets& kernel_sockets() noexcept {
  static KernelSockets instance;
  return instance;
}

TimePoint kernel_now() noexcept { return std::chrono::steady_clock::now(); }

RandomSource::RandomSource() noexcept : state_(0) {
  if (::getrandom(&state_, sizeof state_, GRND_NONBLOCK) != sizeof state_) {
    state_ = static_cast<std::uint64_t>(kernel_now().time_since_epoch().count());
  }
}

std::uint64_t RandomSource::next() noexcept {
  std::uint64_t mixed = (state_ += 0x9e3779b97f4a7c15);
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

}  // namespace weir
