#include <weir/core/assert.h>
#include <weir/io/sim/kernel.h>
#include <weir/io/sim/network.h>
#include <weir/io/sim/process.h>

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <stdexcept>
#include <utility>

namespace weir::sim::detail {
namespace {

/// Numbers far from the process's own descriptors, so that a mix-up is an EBADF.
constexpr int kFirstDescriptor = 1 << 20;

}  // namespace

int Process::new_descriptor(std::shared_ptr<Endpoint> endpoint) {
  std::size_t index = 0;
  while (index < descriptors_.size() && descriptors_[index] != nullptr) ++index;
  if (index == descriptors_.size()) descriptors_.emplace_back();
  descriptors_[index] = std::make_unique<Descriptor>();
  Descriptor& descriptor = *descriptors_[index];
  descriptor.fd = kFirstDescriptor + static_cast<int>(index);
  if (endpoint != nullptr) {
    endpoint->descriptor = &descriptor;
    endpoint->process = this;
    descriptor.endpoint = std::move(endpoint);
  }
  ++open_;
  return descriptor.fd;
}

TimePoint Process::now() const noexcept { return std::max(network_.now(), last_hour_); }

Descriptor* Process::find(int fd) const noexcept {
  const auto index = static_cast<std::size_t>(static_cast<std::int64_t>(fd) - kFirstDescriptor);
  if (fd < kFirstDescriptor || index >= descriptors_.size()) return nullptr;
  return descriptors_[index].get();
}

int Process::lack_of_resources() {
  if (is_full()) return -EMFILE;
  const std::size_t host = kernel_.host();
  const bool no_descriptor = network_.hit(Fault::no_descriptor, host);
  const bool system_full = network_.hit(Fault::system_full, host);
  const bool no_memory = network_.hit(Fault::no_memory, host);
  if (no_descriptor) return -EMFILE;
  if (system_full) return -ENFILE;
  return no_memory ? -ENOMEM : 0;
}

int Process::open(int family) {
  if (dead_) return -EBADF;
  if (family != AF_INET && family != AF_INET6) return -EAFNOSUPPORT;  // not modelled
  if (const int lack = lack_of_resources(); lack < 0) return lack;
  auto endpoint = std::make_shared<Endpoint>(network_, kernel_, family == AF_INET6);
  network_.watch(endpoint);
  return new_descriptor(std::move(endpoint));
}

int Process::bind(int fd, const RawAddress& address) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  const auto wanted = Address::from(address);
  if (!wanted || wanted->v6 != descriptor->endpoint->v6) return -EINVAL;
  return kernel_.bind(descriptor->endpoint, *wanted);
}

int Process::listen(int fd, int backlog) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  Endpoint& endpoint = *descriptor->endpoint;
  const bool again = endpoint.state == Endpoint::State::listening;  // with another backlog
  if (!again && (endpoint.state != Endpoint::State::fresh || !endpoint.bound)) return -EINVAL;
  if (!again && kernel_.is_in_use(endpoint, endpoint.local)) return -EADDRINUSE;
  endpoint.state = Endpoint::State::listening;
  endpoint.backlog = static_cast<std::size_t>(std::clamp(backlog, 0, 4096));
  network_.trace(kernel_.host(), "listen", fd, endpoint.local.port);
  return 0;
}

int Process::connect(int fd, const RawAddress& address) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  auto to = Address::from(address);
  Endpoint& endpoint = *descriptor->endpoint;
  if (!to || to->v6 != endpoint.v6) return -EAFNOSUPPORT;
  if (endpoint.state != Endpoint::State::fresh) return -EISCONN;
  if (to->is_any()) to->ip = Address::parse(to->v6 ? "::1" : "127.0.0.1")->ip;
  if (const int result = kernel_.choose_local(endpoint, *to); result < 0) return result;
  endpoint.state = Endpoint::State::connecting;
  endpoint.remote = *to;
  Kernel* machine = kernel_.owns(*to) ? &kernel_ : network_.find_machine(*to);
  endpoint.remote_host = machine != nullptr ? machine->host() : kernel_.host();
  kernel_.add_connection(endpoint.local, endpoint.remote);
  network_.trace(kernel_.host(), "connect", fd, to->port);
  endpoint.send_syn(machine != nullptr);
  return -EINPROGRESS;
}

/// The first of the backlog as a descriptor, or -errno.
int Process::take_client(Endpoint& listener) {
  if (listener.state != Endpoint::State::listening) return -EINVAL;
  if (is_full()) return -EMFILE;
  if (listener.waiting.empty()) return -EAGAIN;
  const bool aborted = network_.hit(Fault::connection_aborted, kernel_.host());
  const bool no_buffers = network_.hit(Fault::no_buffers, kernel_.host());
  const bool interrupted = network_.hit(Fault::interrupted, kernel_.host());
  if (const int lack = lack_of_resources(); lack < 0) return lack;
  if (no_buffers) return -ENOBUFS;
  if (interrupted) return -EINTR;
  std::shared_ptr<Endpoint> client = std::move(listener.waiting.front());
  listener.waiting.pop_front();
  if (aborted) {
    client->close(true);
    return -ECONNABORTED;
  }
  const int fd = new_descriptor(std::move(client));
  network_.trace(kernel_.host(), "accepted", fd, listener.local.port);
  return fd;
}

int Process::accept(int listener) {
  Descriptor* descriptor = find(listener);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  return take_client(*descriptor->endpoint);
}

int Process::set(int fd, Option option, int value) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  Endpoint& endpoint = *descriptor->endpoint;
  switch (option) {
    case Option::no_delay:
      break;  // nothing is delayed
    case Option::keep_alive:
      endpoint.keep_alive = value != 0;
      break;
    case Option::reuse_address:
      endpoint.reuse_address = value != 0;
      break;
    case Option::reuse_port:
      endpoint.reuse_port = value != 0;
      break;
    case Option::v6_only:
      endpoint.v6_only = value != 0;
      break;
    case Option::user_timeout_ms:
      endpoint.user_timeout = std::chrono::milliseconds(value);
      break;
    case Option::reset_on_close:
      endpoint.reset_on_close = value != 0;
      break;
    case Option::receive_buffer:
      // A window that was granted is not taken back.
      if (endpoint.state == Endpoint::State::fresh ||
          endpoint.state == Endpoint::State::listening) {
        endpoint.receive_capacity = static_cast<std::size_t>(std::max(value, 1024));
      }
      break;
    case Option::send_buffer:
      endpoint.send_capacity = static_cast<std::size_t>(std::max(value, 1024));
      break;
  }
  return 0;
}

int Process::take_error(int fd) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  return std::exchange(descriptor->endpoint->error, 0);
}

int Process::local_address(int fd, RawAddress& address) {
  Descriptor* descriptor = find(fd);
  if (descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  address = descriptor->endpoint->local.raw();
  return 0;
}

int Process::peer_address(int fd, RawAddress& address) {
  Descriptor* descriptor = find(fd);
  if (descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  if (descriptor->endpoint->state != Endpoint::State::open) return -ENOTCONN;
  address = descriptor->endpoint->remote.raw();
  return 0;
}

int Process::shutdown_send(int fd) {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  if (descriptor->endpoint->state != Endpoint::State::open) return -ENOTCONN;
  descriptor->endpoint->shutdown_send();
  return 0;
}

void Process::stop_listening(int fd) noexcept {
  Descriptor* descriptor = find(fd);
  if (dead_ || descriptor == nullptr || descriptor->endpoint == nullptr) return;
  network_.trace(kernel_.host(), "stop listening", fd, descriptor->endpoint->local.port);
  descriptor->endpoint->stop_listening();
}

int Process::unread_bytes(int fd) {
  Descriptor* descriptor = find(fd);
  if (descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  return static_cast<int>(descriptor->endpoint->unread());
}

int Process::unacknowledged_bytes(int fd) {
  Descriptor* descriptor = find(fd);
  if (descriptor == nullptr || descriptor->endpoint == nullptr) return -EBADF;
  return static_cast<int>(descriptor->endpoint->unacknowledged());
}

int Process::look_at(int /*fd*/, std::uint16_t /*events*/) {
  throw std::logic_error(
      "weir: a simulated host has no descriptors but its connections' and listeners': readable, "
      "writable and ready are for those of the system");
}

void Process::close(int fd) noexcept {
  Descriptor* descriptor = find(fd);
  WEIR_ASSERT(descriptor != nullptr);   // closed twice
  WEIR_ASSERT(!descriptor->awaited());  // an operation still needs it
  const std::shared_ptr<Endpoint> endpoint = std::move(descriptor->endpoint);
  descriptors_[static_cast<std::size_t>(fd - kFirstDescriptor)].reset();
  --open_;
  if (dead_) return;
  network_.trace(kernel_.host(), "close", fd, 0);
  if (endpoint != nullptr) endpoint->close(false);
}

void Process::refill_spare() {
  if (spare_ < 0 && !dead_ && !is_full()) spare_ = new_descriptor(nullptr);
}

void Process::hold_spare() noexcept {
  if (spare_users_++ == 0) refill_spare();
}

void Process::release_spare() noexcept {
  if (--spare_users_ == 0 && spare_ >= 0) close(std::exchange(spare_, -1));
}

int Process::accept_or_shed(int listener) {
  refill_spare();
  int fd = accept(listener);
  if ((fd != -EMFILE && fd != -ENFILE) || spare_ < 0) return fd;
  close(std::exchange(spare_, -1));
  fd = accept(listener);
  if (fd >= 0) close(fd);
  refill_spare();
  return fd >= 0 ? 0 : fd;
}

int Process::keep_accepted(int fd) noexcept { return fd; }  // nobody comes in between

int Process::hold(int fd, std::uint64_t signals) {
  constexpr auto kNever = (1ULL << (SIGKILL - 1)) | (1ULL << (SIGSTOP - 1));
  if (dead_) return -EBADF;
  if ((signals & kNever) != 0) return -EINVAL;
  if (fd < 0) {
    if (is_full()) return -EMFILE;
    fd = new_descriptor(nullptr);
  }
  Descriptor* descriptor = find(fd);
  if (descriptor == nullptr) return -EBADF;
  descriptor->signals = signals;
  return fd;
}

std::uint64_t Process::take(int fd) {
  Descriptor* descriptor = find(fd);
  return descriptor == nullptr ? 0 : std::exchange(descriptor->came, 0);
}

void Process::let_go(int fd) noexcept { close(fd); }

void Process::raise(int number) noexcept { (void)deliver_signal(number); }

bool Process::deliver_signal(int number) {
  const std::uint64_t bit = 1ULL << (number - 1);
  bool held = false;
  for (std::size_t i = 0; !dead_ && i < descriptors_.size(); ++i) {
    Descriptor* descriptor = descriptors_[i].get();
    if (descriptor == nullptr || (descriptor->signals & bit) == 0) continue;
    held = true;
    descriptor->came |= bit;
    progress(*descriptor);
  }
  return held;
}

void Process::die(bool with_machine) {
  if (std::exchange(dead_, true)) return;
  for (const auto& descriptor : descriptors_) {
    if (descriptor == nullptr || descriptor->endpoint == nullptr) continue;
    Endpoint& endpoint = *descriptor->endpoint;
    if (with_machine) {
      endpoint.vanish();
    } else {
      endpoint.close(false);
    }
    endpoint.descriptor = nullptr;
    endpoint.process = nullptr;
  }
}

std::string Process::describe_open() const {
  std::string text;
  for (const auto& descriptor : descriptors_) {
    if (descriptor == nullptr) continue;
    text += text.empty() ? "" : ", ";
    text += std::to_string(descriptor->fd);
    if (const Endpoint* endpoint = descriptor->endpoint.get()) {
      text += " (" + endpoint->local.text() + " to " + endpoint->remote.text() + ")";
    }
  }
  return text;
}

std::string Process::describe_waiting() const {
  std::string text;
  const auto add = [&text](const char* what, const Descriptor& descriptor) {
    text += text.empty() ? "" : ", ";
    text += what;
    if (const Endpoint* endpoint = descriptor.endpoint.get()) {
      text += " at " + endpoint->local.text();
      if (endpoint->remote.port != 0) text += " from " + endpoint->remote.text();
    }
  };
  for (const auto& descriptor : descriptors_) {
    if (descriptor == nullptr) continue;
    if (descriptor->accept) add("accept", *descriptor);
    if (descriptor->receive) add("receive", *descriptor);
    if (descriptor->send) add("send", *descriptor);
    if (!descriptor->polls.empty()) {
      add(descriptor->signals == 0 ? "readiness" : "a signal", *descriptor);
    }
  }
  return text;
}

}  // namespace weir::sim::detail
