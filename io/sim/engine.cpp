#include <weir/io/sanitizer.h>
#include <weir/io/sim/engine.h>
#include <weir/io/sim/kernel.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace weir::sim::detail {
namespace {

using namespace std::chrono_literals;

/// What a turn of a loop costs: a task that only yields does not stop the clock.
constexpr auto kTurn = 1us;
/// A receive that found no buffer by chance looks again after this.
constexpr auto kBufferPause = 1ms;
/// How long an operation may go on at the most after a cancel that came too late.
constexpr std::uint64_t kLostCancel = 3'000'000;  // ns

/// As it stands in the history and in the trace hash.
const char* name_of(OperationKind kind) noexcept {
  switch (kind) {
    case OperationKind::accept:
      return "accept gave";
    case OperationKind::receive:
      return "receive gave";
    case OperationKind::receive_into:
      return "receive into gave";
    case OperationKind::send:
    case OperationKind::send_now:
      return "send gave";
    case OperationKind::poll:
      return "poll gave";
    case OperationKind::read_file:
      return "read file gave";
  }
  return "";
}

}  // namespace

void SimulatedPool::release(Buffer& buffer) noexcept {
  if (put_back(buffer)) engine_->buffer_came_back();
}

SimulatedEngine::SimulatedEngine(Network& network, Process& process, Driver& driver,
                                 const LoopOptions& options)
    : EngineBase(new SimulatedPool(*this, options.buffer_size, options.buffer_count)),
      network_(network),
      process_(process),
      driver_(driver) {}

SimulatedEngine::~SimulatedEngine() {
  WEIR_ASSERT(in_flight_ == 0);
  network_.leases_left += pool_->leased();
}

void SimulatedEngine::attach() {
  if (may_block_) return;
  throw std::logic_error(
      "weir: a simulated loop is run by its World (run_for, run_until), by nobody else");
}

void SimulatedEngine::abandon() noexcept {
  given_up_ = true;
  hand_over();
}

void SimulatedEngine::start(Operation& operation) noexcept {
  operation.state = Operation::State::waiting;
  ++counters_.submitted;
  waiting_.push_back(operation);
}

void SimulatedEngine::stop(Operation& operation) noexcept {
  ++counters_.cancelled;
  if (operation.state == Operation::State::waiting) {
    operation.link.unlink();
    queue(operation, nullptr, -ECANCELED, false, kNoBuffer);
  } else {
    cancels_.push_back(&operation);
  }
}

void SimulatedEngine::buffer_came_back() noexcept {
  if (!starved_.empty()) wake();
}

/// What was submitted and cancelled since the last time, in that order.
void SimulatedEngine::hand_over() {
  while (Operation* operation = waiting_.pop_front()) begin(*operation);
  std::vector<Operation*> cancels;
  cancels.swap(cancels_);
  for (Operation* operation : cancels) {
    if (operation->state == Operation::State::ended) continue;
    const std::size_t host = process_.kernel().host();
    if (!given_up_ && network_.chance.hit(Fault::lost_cancel, host)) {
      cancels_.push_back(operation);  // until the next time
      const std::uint64_t late =
          network_.chance.extent(Fault::lost_cancel, host, true, kLostCancel);
      driver_.want_turn(*this, after(network_.now(), Duration(late)));
    } else {
      cancel_now(*operation);
    }
  }
  if (!given_up_) return;
  for (Operation* operation : process_.waiting_of(*this)) cancel_now(*operation);
}

void SimulatedEngine::cancel_now(Operation& operation) {
  Descriptor* descriptor = process_.descriptors.find(operation.fd);
  if (descriptor == nullptr || !process_.detach(*descriptor, operation)) return;
  queue(operation, descriptor, -ECANCELED, false, kNoBuffer);
}

void SimulatedEngine::begin(Operation& operation) {
  operation.state = Operation::State::submitted;
  if (given_up_ || process_.dead()) {
    queue(operation, nullptr, -ECANCELED, false, kNoBuffer);
    return;
  }
  if (operation.kind == OperationKind::read_file) {
    read_file(operation);
    return;
  }
  Descriptor* descriptor = process_.descriptors.find(operation.fd);
  if (descriptor == nullptr) {
    queue(operation, nullptr, -EBADF, false, kNoBuffer);
    return;
  }
  process_.attach(*descriptor, operation, *this);
  process_.progress(*descriptor);
}

/// Files are the process's own: they are not simulated.
void SimulatedEngine::read_file(Operation& operation) {
  const Operation::FilePart& part = *operation.file;
  const auto count = ::pread(operation.fd, part.data, part.size, static_cast<off_t>(part.offset));
  queue(operation, nullptr, count < 0 ? -errno : static_cast<int>(count), false, kNoBuffer);
}

void SimulatedEngine::queue(Operation& operation, Descriptor* descriptor, int result, bool more,
                            std::uint32_t buffer) {
  WEIR_ASSERT(operation.in_flight() && operation.state != Operation::State::ended);
  if (!more) {
    operation.state = Operation::State::ended;
    std::erase(starved_, &operation);
  }
  const std::size_t host = process_.kernel().host();
  const bool late = network_.chance.hit(Fault::late_completion, host);
  const std::uint64_t lateness =
      network_.chance.extent(Fault::late_completion, host, late,
                             static_cast<std::uint64_t>(network_.chance.faults().lateness.count()));
  Ended ended{.due = network_.now(),
              .tie = network_.chance.order(host),
              .operation = &operation,
              .result = result,
              .more = more,
              .buffer = buffer};
  if (late && !given_up_) ended.due = after(ended.due, Duration(lateness));
  if (descriptor != nullptr) {
    // One descriptor's completions stay in order.
    if (ended.due <= descriptor->last_due) {
      ended.due = descriptor->last_due;
      ended.tie = descriptor->last_tie + 1;
    }
    descriptor->last_due = ended.due;
    descriptor->last_tie = ended.tie;
  }
  on_their_way_.push_back(ended);
  std::push_heap(on_their_way_.begin(), on_their_way_.end());
  driver_.want_turn(*this, ended.due);
}

std::size_t SimulatedEngine::deliver_due() {
  std::size_t count = 0;
  while (!on_their_way_.empty() && (given_up_ || on_their_way_.front().due <= network_.now())) {
    std::pop_heap(on_their_way_.begin(), on_their_way_.end());
    const Ended ended = on_their_way_.back();
    on_their_way_.pop_back();
    Operation& operation = *ended.operation;
    // A file's descriptor is a real one, and may differ from run to run.
    const int fd = operation.kind == OperationKind::read_file ? -1 : operation.fd;
    network_.journal.trace(process_.kernel().host(), name_of(operation.kind), fd, ended.result);
    Buffer* buffer = nullptr;
    if (ended.buffer != kNoBuffer) {
      buffer = &pool_->lend_or_copy(ended.buffer, static_cast<std::size_t>(ended.result));
    }
    ++counters_.completed;
    ++count;
    if (ended.more) {
      deliver(operation, ended.result, buffer);
    } else {
      std::erase(cancels_, &operation);
      finish(operation, ended.result, buffer);
    }
  }
  return count;
}

void SimulatedEngine::exchange(TimePoint deadline) {
  ++counters_.waits;
  hand_over();
  feed_starved();
  std::size_t delivered = deliver_due();
  while (may_block_ && !given_up_ && delivered == 0 && !woken_ && waiting_.empty() &&
         network_.now() < deadline) {
    if (process_.dead()) {
      abandon();
    } else {
      driver_.want_turn(*this, deadline);
      if (!network_.step()) throw std::logic_error("weir: the simulated world has come to an end");
      hand_over();
      feed_starved();
    }
    delivered += deliver_due();
  }
  if (given_up_ && delivered == 0 && deadline != TimePoint::max()) {
    process_.pass(deadline);
  }
  const TimePoint now = network_.now();
  const bool busy = deadline == TimePoint::min() || delivered > 0 || !waiting_.empty() || woken_;
  woken_ = false;
  if (busy) {
    driver_.want_turn(*this, after(now, kTurn));
  } else if (deadline != TimePoint::max()) {
    driver_.want_turn(*this, deadline);
  }
  if (!on_their_way_.empty()) driver_.want_turn(*this, on_their_way_.front().due);
}

void SimulatedEngine::wake() noexcept {
  ++counters_.wakes;
  woken_ = true;
  driver_.want_turn(*this, network_.now());
}

void SimulatedEngine::starve(Operation& operation, Descriptor& descriptor) noexcept {
  (void)descriptor;
  if (operation.state == Operation::State::starved) return;
  ++counters_.starved;
  operation.state = Operation::State::starved;
  starved_.push_back(&operation);
  driver_.want_turn(*this, after(network_.now(), kBufferPause));
}

void SimulatedEngine::feed_starved() {
  std::vector<Operation*> hungry;
  hungry.swap(starved_);
  for (Operation* operation : hungry) {
    operation->state = Operation::State::submitted;
    if (Descriptor* descriptor = process_.descriptors.find(operation->fd))
      process_.progress(*descriptor);
  }
}

}  // namespace weir::sim::detail
