#include <weir/io/sim/kernel.h>
#include <weir/io/sim/network.h>
#include <weir/io/sim/process.h>
#include <weir/io/sim/sockets.h>

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <utility>

namespace weir::sim::detail {

Endpoint* SimulatedSockets::find(int fd) const noexcept {
  const Descriptor* descriptor = process_.descriptors.find(fd);
  return descriptor == nullptr ? nullptr : descriptor->endpoint.get();
}

Endpoint* SimulatedSockets::find_live(int fd) const noexcept {
  return process_.dead() ? nullptr : find(fd);
}

int SimulatedSockets::open(int family) {
  if (process_.dead()) return -EBADF;
  if (family != AF_INET && family != AF_INET6) return -EAFNOSUPPORT;  // not modelled
  if (const int lack = process_.lack_of_resources(); lack < 0) return lack;
  auto endpoint =
      std::make_shared<Endpoint>(process_.network(), process_.kernel(), family == AF_INET6);
  process_.network().watch(endpoint);
  return process_.open(std::move(endpoint));
}

int SimulatedSockets::bind(int fd, const RawAddress& address) {
  Endpoint* endpoint = find_live(fd);
  if (endpoint == nullptr) return -EBADF;
  const auto wanted = Address::from(address);
  if (!wanted || wanted->v6 != endpoint->v6) return -EINVAL;
  return process_.kernel().bind(endpoint->shared_from_this(), *wanted);
}

int SimulatedSockets::listen(int fd, int backlog) {
  Endpoint* endpoint = find_live(fd);
  if (endpoint == nullptr) return -EBADF;
  const bool again = endpoint->state == Endpoint::State::listening;  // with another backlog
  if (!again && (endpoint->state != Endpoint::State::fresh || !endpoint->bound)) return -EINVAL;
  if (!again && process_.kernel().is_in_use(*endpoint, endpoint->local)) return -EADDRINUSE;
  endpoint->state = Endpoint::State::listening;
  endpoint->backlog = static_cast<std::size_t>(std::clamp(backlog, 0, 4096));
  process_.network().journal.trace(process_.kernel().host(), "listen", fd, endpoint->local.port);
  return 0;
}

int SimulatedSockets::connect(int fd, const RawAddress& address) {
  Endpoint* endpoint = find_live(fd);
  if (endpoint == nullptr) return -EBADF;
  Kernel& kernel = process_.kernel();
  Network& network = process_.network();
  auto to = Address::from(address);
  if (!to || to->v6 != endpoint->v6) return -EAFNOSUPPORT;
  if (endpoint->state != Endpoint::State::fresh) return -EISCONN;
  if (to->is_any()) to->ip = Address::parse(to->v6 ? "::1" : "127.0.0.1")->ip;
  if (const int result = kernel.choose_local(*endpoint, *to); result < 0) return result;
  endpoint->state = Endpoint::State::connecting;
  endpoint->remote = *to;
  Kernel* machine = kernel.owns(*to) ? &kernel : network.find_machine(*to);
  endpoint->remote_host = machine != nullptr ? machine->host() : kernel.host();
  kernel.add_connection(endpoint->local, endpoint->remote);
  network.journal.trace(kernel.host(), "connect", fd, to->port);
  endpoint->send_syn(machine != nullptr);
  return -EINPROGRESS;
}

int SimulatedSockets::accept(int listener) {
  Endpoint* endpoint = find_live(listener);
  if (endpoint == nullptr) return -EBADF;
  return process_.take_client(*endpoint);
}

int SimulatedSockets::set(int fd, Option option, int value) {
  Endpoint* endpoint = find_live(fd);
  if (endpoint == nullptr) return -EBADF;
  switch (option) {
    case Option::no_delay:
      break;  // nothing is delayed
    case Option::keep_alive:
      endpoint->keep_alive = value != 0;
      break;
    case Option::reuse_address:
      endpoint->reuse_address = value != 0;
      break;
    case Option::reuse_port:
      endpoint->reuse_port = value != 0;
      break;
    case Option::v6_only:
      endpoint->v6_only = value != 0;
      break;
    case Option::user_timeout_ms:
      endpoint->user_timeout = std::chrono::milliseconds(value);
      break;
    case Option::reset_on_close:
      endpoint->reset_on_close = value != 0;
      break;
    case Option::receive_buffer:
      // A window that was granted is not taken back.
      if (endpoint->state == Endpoint::State::fresh ||
          endpoint->state == Endpoint::State::listening) {
        endpoint->receive_capacity = static_cast<std::size_t>(std::max(value, 1024));
      }
      break;
    case Option::send_buffer:
      endpoint->send_capacity = static_cast<std::size_t>(std::max(value, 1024));
      break;
  }
  return 0;
}

int SimulatedSockets::take_error(int fd) {
  Endpoint* endpoint = find_live(fd);
  if (endpoint == nullptr) return -EBADF;
  return std::exchange(endpoint->error, 0);
}

int SimulatedSockets::local_address(int fd, RawAddress& address) {
  Endpoint* endpoint = find(fd);
  if (endpoint == nullptr) return -EBADF;
  address = endpoint->local.raw();
  return 0;
}

int SimulatedSockets::peer_address(int fd, RawAddress& address) {
  Endpoint* endpoint = find(fd);
  if (endpoint == nullptr) return -EBADF;
  if (endpoint->state != Endpoint::State::open || endpoint->is_over()) return -ENOTCONN;
  address = endpoint->remote.raw();
  return 0;
}

int SimulatedSockets::shutdown_send(int fd) {
  Endpoint* endpoint = find_live(fd);
  if (endpoint == nullptr) return -EBADF;
  if (endpoint->state != Endpoint::State::open || endpoint->is_over()) return -ENOTCONN;
  endpoint->shutdown_send();
  return 0;
}

void SimulatedSockets::stop_listening(int fd) noexcept {
  Endpoint* endpoint = find_live(fd);
  if (endpoint == nullptr) return;
  process_.network().journal.trace(process_.kernel().host(), "stop listening", fd,
                                   endpoint->local.port);
  endpoint->stop_listening();
}

int SimulatedSockets::unread_bytes(int fd) {
  Endpoint* endpoint = find(fd);
  if (endpoint == nullptr) return -EBADF;
  return static_cast<int>(endpoint->unread());
}

int SimulatedSockets::unacknowledged_bytes(int fd) {
  Endpoint* endpoint = find(fd);
  if (endpoint == nullptr) return -EBADF;
  return static_cast<int>(endpoint->unacknowledged());
}

int SimulatedSockets::look_at(int /*fd*/, std::uint16_t /*events*/) {
  throw std::logic_error(
      "weir: a simulated host has no descriptors but its connections' and listeners': readable, "
      "writable and ready are for those of the system");
}

void SimulatedSockets::close(int fd) noexcept { process_.close(fd); }

void SimulatedSockets::refill_spare() {
  if (spare_ < 0 && !process_.dead() && !process_.descriptors.is_full())
    spare_ = process_.open(nullptr);
}

void SimulatedSockets::hold_spare() noexcept {
  if (spare_users_++ == 0) refill_spare();
}

void SimulatedSockets::release_spare() noexcept {
  if (--spare_users_ == 0 && spare_ >= 0) close(std::exchange(spare_, -1));
}

int SimulatedSockets::accept_or_shed(int listener) {
  refill_spare();
  int fd = accept(listener);
  if ((fd != -EMFILE && fd != -ENFILE) || spare_ < 0) return fd;
  close(std::exchange(spare_, -1));
  fd = accept(listener);
  if (fd >= 0) close(fd);
  refill_spare();
  return fd >= 0 ? 0 : fd;
}

int SimulatedSockets::keep_accepted(int fd) noexcept { return fd; }  // nobody comes in between

}  // namespace weir::sim::detail
