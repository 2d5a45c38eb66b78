#include <weir/io/kernel_sockets.h>

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>

namespace weir::detail {
namespace {

static_assert(sizeof(RawAddress::bytes) >= sizeof(sockaddr_un));

int checked(int result) noexcept { return result < 0 ? -errno : result; }

const sockaddr* raw(const RawAddress& address) noexcept {
  return reinterpret_cast<const sockaddr*>(address.bytes);
}

int set_int(int fd, int level, int name, int value) noexcept {
  return checked(::setsockopt(fd, level, name, &value, sizeof value));
}

int ask(int fd, unsigned long what) noexcept {
  int answer = 0;
  const int result = checked(::ioctl(fd, what, &answer));
  return result < 0 ? result : answer;
}

}  // namespace

int KernelSockets::open(int family) {
  return above_standard(checked(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
}

int KernelSockets::bind(int fd, const RawAddress& address) {
  return checked(::bind(fd, raw(address), address.size));
}

int KernelSockets::listen(int fd, int backlog) { return checked(::listen(fd, backlog)); }

int KernelSockets::connect(int fd, const RawAddress& address) {
  return checked(::connect(fd, raw(address), address.size));
}

int KernelSockets::accept(int listener) {
  return above_standard(
      checked(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)));
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

int KernelSockets::unread_bytes(int fd) { return ask(fd, FIONREAD); }

int KernelSockets::unacknowledged_bytes(int fd) { return ask(fd, SIOCOUTQ); }

void KernelSockets::close(int fd) noexcept { ::close(fd); }

int KernelSockets::look_at(int fd, std::uint16_t events) {
  pollfd asked{fd, static_cast<short>(events), 0};
  const int result = fd < 0 ? -EBADF : checked(::poll(&asked, 1, 0));
  if (result < 0) return result == -EINTR ? 0 : result;
  return (asked.revents & POLLNVAL) != 0 ? -EBADF : static_cast<std::uint16_t>(asked.revents);
}

int above_standard(int fd) noexcept {
  if (fd < 0 || fd > STDERR_FILENO) return fd;
  const int moved = checked(::fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  ::close(fd);
  return moved;
}

StandardStreamsTaken::StandardStreamsTaken() noexcept {
  for (bool& taken : taken_) {
    const int fd = static_cast<int>(&taken - taken_);
    if (::fcntl(fd, F_GETFD) < 0) taken = ::open("/dev/null", O_RDONLY | O_CLOEXEC) == fd;
  }
}

StandardStreamsTaken::~StandardStreamsTaken() {
  for (const bool& taken : taken_) {
    if (taken) ::close(static_cast<int>(&taken - taken_));
  }
}

KernelSockets& kernel_sockets() noexcept {
  static KernelSockets instance;
  return instance;
}

}  // namespace weir::detail
