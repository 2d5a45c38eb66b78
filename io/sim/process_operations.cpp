#include <weir/core/assert.h>
#include <weir/io/sanitizer.h>
#include <weir/io/sim/engine.h>
#include <weir/io/sim/kernel.h>
#include <weir/io/sim/network.h>
#include <weir/io/sim/process.h>

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <utility>

namespace weir::sim::detail {
namespace {

constexpr std::uint32_t kAlways = POLLERR | POLLHUP;

std::uint32_t events_of(const Descriptor& descriptor) noexcept {
  if (descriptor.endpoint != nullptr) return descriptor.endpoint->events();
  return descriptor.came != 0 ? POLLIN : 0;
}

}  // namespace

void Process::attach(Descriptor& descriptor, Operation& operation, SimulatedEngine& engine) {
  const Slot slot{&operation, &engine};
  const auto put = [&](Slot& place) {
    WEIR_ASSERT(!place);  // one at a time
    place = slot;
  };
  switch (operation.kind) {
    case OperationKind::accept:
      put(descriptor.accept);
      break;
    case OperationKind::receive:
    case OperationKind::receive_into:
      put(descriptor.receive);
      break;
    case OperationKind::send:
    case OperationKind::send_now:
      put(descriptor.send);
      break;
    case OperationKind::poll:
      descriptor.polls.push_back(slot);
      break;
    case OperationKind::read_file:
      break;
  }
}

bool Process::detach(Descriptor& descriptor, const Operation& operation) noexcept {
  for (Slot* slot : {&descriptor.accept, &descriptor.receive, &descriptor.send}) {
    if (slot->operation != &operation) continue;
    *slot = {};
    return true;
  }
  return std::erase_if(descriptor.polls,
                       [&](const Slot& slot) { return slot.operation == &operation; }) > 0;
}

std::vector<Operation*> Process::waiting_of(const SimulatedEngine& engine) const {
  std::vector<Operation*> found;
  const auto look = [&](const Slot& slot) {
    if (slot && slot.engine == &engine) found.push_back(slot.operation);
  };
  for (const auto& descriptor : descriptors.all()) {
    if (descriptor == nullptr) continue;
    look(descriptor->accept);
    look(descriptor->receive);
    look(descriptor->send);
    for (const Slot& slot : descriptor->polls) look(slot);
  }
  return found;
}

void Process::progress(Descriptor& descriptor) {
  if (dead_) return;
  if (descriptor.accept) try_accept(descriptor);
  if (descriptor.receive) try_receive(descriptor);
  if (descriptor.send) try_send(descriptor);
  if (!descriptor.polls.empty()) try_polls(descriptor);
}

void Process::try_accept(Descriptor& descriptor) {
  const Slot slot = descriptor.accept;
  for (;;) {
    const int fd = descriptor.endpoint == nullptr ? -ENOTSOCK : take_client(*descriptor.endpoint);
    if (fd == -EAGAIN) return;
    const bool more = fd >= 0 && !network_.chance.hit(Fault::queue_overflow, kernel_.host());
    if (!more) descriptor.accept = {};
    slot.engine->complete(*slot.operation, descriptor, fd, more);
    if (!more) return;
  }
}

void Process::try_receive(Descriptor& descriptor) {
  const Slot slot = descriptor.receive;
  const auto finish = [&](int result) {
    descriptor.receive = {};
    slot.engine->complete(*slot.operation, descriptor, result, false);
  };
  // It may end the connection, and our hold on it.
  const std::shared_ptr<Endpoint> endpoint = descriptor.endpoint;
  if (endpoint == nullptr) {
    finish(-ENOTSOCK);
    return;
  }
  while (descriptor.receive) {
    const bool broken = endpoint->state == Endpoint::State::broken;
    if (endpoint->state != Endpoint::State::open && !broken) {
      finish(-ENOTCONN);
      return;
    }
    if (endpoint->unread() == 0) {
      const int end = endpoint->end_of_input();
      if (end != -EAGAIN) finish(end);
      return;
    }
    const std::size_t host = kernel_.host();
    const bool reset = network_.chance.hit(Fault::reset, host);
    const bool no_memory = network_.chance.hit(Fault::no_memory, host);
    const bool interrupted = network_.chance.hit(Fault::interrupted, host);
    const bool cut_short = network_.chance.hit(Fault::short_receive, host);
    if (reset && !broken && !endpoint->is_over()) {
      endpoint->reset_both();
    } else if (no_memory || interrupted) {
      finish(no_memory ? -ENOMEM : -EINTR);
    } else if (!receive_piece(descriptor, *endpoint, cut_short)) {
      return;
    }
  }
}

/// False if the receive waits for a buffer.
bool Process::receive_piece(Descriptor& descriptor, Endpoint& endpoint, bool cut_short) {
  const Slot slot = descriptor.receive;
  Operation& operation = *slot.operation;
  const std::size_t host = kernel_.host();
  const bool many = operation.kind == OperationKind::receive;
  const std::size_t most = many ? slot.engine->pool().buffer_size() : operation.into.size;
  std::size_t count = std::min(endpoint.unread(), most);
  const std::size_t part = 1 + network_.chance.extent(Fault::short_receive, host, cut_short, count);
  if (cut_short) count = part;
  if (!many) {
    check_lent(operation.into.data, operation.into.size);
    endpoint.read(operation.into.data, count);
    descriptor.receive = {};
    slot.engine->complete(operation, descriptor, static_cast<int>(count), false);
    return true;
  }
  if (network_.chance.hit(Fault::no_buffers, host) || !slot.engine->pool().has_free()) {
    slot.engine->starve(operation, descriptor);
    return false;
  }
  const std::uint32_t buffer = slot.engine->pool().take();
  endpoint.read(slot.engine->pool().data_of(buffer), count);
  const bool more = !network_.chance.hit(Fault::queue_overflow, host);
  if (!more) descriptor.receive = {};
  slot.engine->complete(operation, descriptor, static_cast<int>(count), more, buffer);
  return true;
}

void Process::try_send(Descriptor& descriptor) {
  const Slot slot = descriptor.send;
  const Operation& operation = *slot.operation;
  const std::size_t host = kernel_.host();
  const auto finish = [&](int result) {
    descriptor.send = {};
    slot.engine->complete(*slot.operation, descriptor, result, false);
  };
  const std::shared_ptr<Endpoint> endpoint = descriptor.endpoint;
  if (endpoint == nullptr) {
    finish(-ENOTSOCK);
    return;
  }
  if (endpoint->state == Endpoint::State::connecting) return;
  if (endpoint->state == Endpoint::State::broken) {
    const int why = std::exchange(endpoint->error, 0);
    finish(why != 0 ? -why : -EPIPE);
    return;
  }
  if (endpoint->state != Endpoint::State::open || endpoint->fin_queued) {
    finish(-EPIPE);
    return;
  }
  const std::size_t room = endpoint->room_for_send();
  if (room == 0) {
    if (operation.kind == OperationKind::send_now) finish(-EAGAIN);
    return;
  }
  const bool reset = network_.chance.hit(Fault::reset, host);
  const bool no_memory = network_.chance.hit(Fault::no_memory, host);
  const bool interrupted = network_.chance.hit(Fault::interrupted, host);
  const bool cut_short = network_.chance.hit(Fault::short_send, host);
  if (reset) {
    endpoint->reset_both();  // which comes back here, for the error
    return;
  }
  if (no_memory || interrupted) {
    finish(no_memory ? -ENOMEM : -EINTR);
    return;
  }
  const std::span<const Slice> slices(operation.gather.slices, operation.gather.count);
  std::size_t total = 0;
  for (const Slice& slice : slices) total += slice.size;
  std::size_t left = std::min(total, room);
  const std::size_t part = 1 + network_.chance.extent(Fault::short_send, host, cut_short, left);
  if (cut_short && left > 0) left = part;
  const auto taken = static_cast<int>(left);
  for (const Slice& slice : slices) {
    const std::size_t count = std::min(slice.size, left);
    check_lent(slice.data, slice.size);
    endpoint->write(static_cast<const std::byte*>(slice.data), count);
    left -= count;
  }
  finish(taken);
  endpoint->pump();
}

void Process::try_polls(Descriptor& descriptor) {
  const std::uint32_t held = events_of(descriptor);
  if (held == 0) return;
  std::vector<Slot> waiting;
  waiting.swap(descriptor.polls);
  for (const Slot& slot : waiting) {
    const std::uint32_t ready = held & (slot.operation->events | kAlways);
    if (ready == 0) {
      descriptor.polls.push_back(slot);
      continue;
    }
    slot.engine->complete(*slot.operation, descriptor, static_cast<int>(ready), false);
  }
}

}  // namespace weir::sim::detail
