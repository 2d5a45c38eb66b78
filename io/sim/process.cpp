#include <weir/core/assert.h>
#include <weir/io/sim/kernel.h>
#include <weir/io/sim/network.h>
#include <weir/io/sim/process.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace weir::sim::detail {

TimePoint Process::now() const noexcept { return std::max(network_.now(), last_hour_); }

int Process::open(std::shared_ptr<Endpoint> endpoint) {
  Descriptor& descriptor = descriptors.add();
  if (endpoint != nullptr) {
    endpoint->descriptor = &descriptor;
    endpoint->process = this;
    descriptor.endpoint = std::move(endpoint);
  }
  return descriptor.fd;
}

void Process::close(int fd) noexcept {
  Descriptor* descriptor = descriptors.find(fd);
  WEIR_ASSERT(descriptor != nullptr);  // closed twice
  const std::shared_ptr<Endpoint> endpoint = std::move(descriptor->endpoint);
  descriptors.remove(fd);
  if (dead_) return;
  network_.journal.trace(kernel_.host(), "close", fd, 0);
  if (endpoint != nullptr) endpoint->close(false);
}

int Process::lack_of_resources() {
  if (descriptors.is_full()) return -EMFILE;
  const std::size_t host = kernel_.host();
  const bool no_descriptor = network_.chance.hit(Fault::no_descriptor, host);
  const bool system_full = network_.chance.hit(Fault::system_full, host);
  const bool no_memory = network_.chance.hit(Fault::no_memory, host);
  if (no_descriptor) return -EMFILE;
  if (system_full) return -ENFILE;
  return no_memory ? -ENOMEM : 0;
}

/// The first of the backlog as a descriptor, or -errno.
int Process::take_client(Endpoint& listener) {
  if (listener.state != Endpoint::State::listening) return -EINVAL;
  if (descriptors.is_full()) return -EMFILE;
  if (listener.waiting.empty()) return -EAGAIN;
  const bool aborted = network_.chance.hit(Fault::connection_aborted, kernel_.host());
  const bool no_buffers = network_.chance.hit(Fault::no_buffers, kernel_.host());
  const bool interrupted = network_.chance.hit(Fault::interrupted, kernel_.host());
  if (const int lack = lack_of_resources(); lack < 0) return lack;
  if (no_buffers) return -ENOBUFS;
  if (interrupted) return -EINTR;
  std::shared_ptr<Endpoint> client = std::move(listener.waiting.front());
  listener.waiting.pop_front();
  if (aborted) {
    client->close(true);
    return -ECONNABORTED;
  }
  const int fd = open(std::move(client));
  network_.journal.trace(kernel_.host(), "accepted", fd, listener.local.port);
  return fd;
}

void Process::die(bool with_machine) {
  if (std::exchange(dead_, true)) return;
  for (const auto& descriptor : descriptors.all()) {
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

}  // namespace weir::sim::detail
