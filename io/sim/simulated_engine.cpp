#include <weir/core/metrics.h>
#include <weir/io/sim/simulated_engine.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace weir::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kFirstBuffers = 16;
/// What a turn of a loop costs: a task that only yields does not stop the clock.
constexpr auto kTurn = 1us;
/// A receive that found no buffer by chance looks again after this.
constexpr auto kBufferPause = 1ms;
/// How long an operation may go on at the most after a cancel that came too late.
constexpr std::uint64_t kLostCancel = 3'000'000;  // ns

}  // namespace

/// Buffers in the order in which they came back.
class SimulatedEngine::Pool final : public ReceivePool {
 public:
  Pool(SimulatedEngine& engine, std::size_t buffer_size, std::size_t most)
      : ReceivePool(buffer_size, most), engine_(&engine) {
    free_.reserve(most);
  }

  [[nodiscard]] bool has_free() noexcept {
    if (!free_.empty()) return true;
    const auto first = static_cast<std::uint32_t>(made());
    const std::size_t added = grow(std::max(kFirstBuffers, made()));
    for (auto id = static_cast<std::uint32_t>(first + added); id > first;) free_.push_back(--id);
    return added > 0;
  }

  /// From now on the kernel's, until it is lent.
  std::uint32_t take() noexcept {
    const std::uint32_t id = free_.back();
    free_.pop_back();
    unpoison(data_of(id), buffer_size());
    return id;
  }

  void give_back(std::uint32_t id) noexcept {
    poison(data_of(id), buffer_size());
    free_.push_back(id);
  }

  void release(Buffer& buffer) noexcept override {
    if (!returned(buffer)) return;
    free_.push_back(buffer.id());
    if (!engine_->starved_.empty()) engine_->wake();
  }

 private:
  ~Pool() override = default;

  SimulatedEngine* engine_;
  std::vector<std::uint32_t> free_;
};

void SimulatedEngine::Retire::operator()(Pool* pool) const noexcept { pool->retire(); }

SimulatedEngine::SimulatedEngine(Network& network, Process& process, Driver& driver,
                                 const LoopOptions& options, std::uint64_t seed)
    : network_(network),
      process_(process),
      driver_(driver),
      pool_(new Pool(*this, options.buffer_size, options.buffer_count)),
      random_(seed) {}

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
  abandoned_ = true;
  hand_over();
}

void SimulatedEngine::submit(Operation& operation) noexcept {
  WEIR_ASSERT(!operation.in_flight());
  operation.cancel_wanted = false;
  operation.state = Operation::State::waiting;
  ++in_flight_;
  ++submissions_;
  waiting_.push_back(operation);
}

void SimulatedEngine::cancel(Operation& operation) noexcept {
  if (!operation.in_flight() || operation.cancel_wanted) return;
  operation.cancel_wanted = true;
  if (operation.state == Operation::State::ended) return;
  ++cancellations_;
  if (operation.state == Operation::State::waiting) {
    operation.unlink();
    queue(operation, nullptr, -ECANCELED, false, kNoBuffer);
  } else {
    cancels_.push_back(&operation);
  }
}

/// What was submitted and cancelled since the last time, in that order.
void SimulatedEngine::hand_over() {
  while (Operation* operation = waiting_.pop_front()) start(*operation);
  std::vector<Operation*> cancels;
  cancels.swap(cancels_);
  for (Operation* operation : cancels) {
    if (operation->state == Operation::State::ended) continue;
    if (!abandoned_ && network_.hit(Fault::lost_cancel, process_.kernel().host())) {
      cancels_.push_back(operation);  // until the next time
      driver_.want_turn(*this,
                        after(network_.now(), Duration(network_.shapes().below(kLostCancel))));
    } else {
      cancel_now(*operation);
    }
  }
  if (!abandoned_) return;
  for (Operation* operation : process_.waiting_of(*this)) cancel_now(*operation);
}

void SimulatedEngine::cancel_now(Operation& operation) {
  Descriptor* descriptor = process_.find(operation.fd);
  if (descriptor == nullptr || !process_.detach(*descriptor, operation)) return;
  queue(operation, descriptor, -ECANCELED, false, kNoBuffer);
}

void SimulatedEngine::start(Operation& operation) {
  operation.state = Operation::State::submitted;
  if (abandoned_ || process_.dead()) {
    queue(operation, nullptr, -ECANCELED, false, kNoBuffer);
    return;
  }
  if (operation.kind == OperationKind::read_file) {
    read_file(operation);
    return;
  }
  Descriptor* descriptor = process_.find(operation.fd);
  if (descriptor == nullptr) {
    queue(operation, nullptr, -EBADF, false, kNoBuffer);
    return;
  }
  process_.attach(*descriptor, operation, *this);
  process_.progress(*descriptor);
}

/// Files are the process's own: they are not simulated.
void SimulatedEngine::read_file(Operation& operation) {
  const auto count =
      ::pread(operation.fd, operation.data, operation.size, static_cast<off_t>(operation.offset));
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
  const bool late = network_.hit(Fault::late_completion, host);
  const std::uint64_t lateness = network_.shapes().below(
      static_cast<std::uint64_t>(network_.options().faults.lateness.count()));
  Ended ended{.due = network_.now(),
              .tie = network_.scheduling().next() >> 1,
              .operation = &operation,
              .result = result,
              .more = more,
              .buffer = buffer};
  if (late && !abandoned_) ended.due = after(ended.due, Duration(lateness));
  if (descriptor != nullptr) {
    // One descriptor's completions stay in order.
    if (ended.due <= descriptor->last_due) {
      ended.due = descriptor->last_due;
      ended.tie = descriptor->last_tie + 1;
    }
    descriptor->last_due = ended.due;
    descriptor->last_tie = ended.tie;
  }
  ended_.push_back(ended);
  std::push_heap(ended_.begin(), ended_.end());
  driver_.want_turn(*this, ended.due);
}

std::size_t SimulatedEngine::deliver() {
  std::size_t count = 0;
  while (!ended_.empty() && (abandoned_ || ended_.front().due <= network_.now())) {
    std::pop_heap(ended_.begin(), ended_.end());
    const Ended ended = ended_.back();
    ended_.pop_back();
    Operation& operation = *ended.operation;
    // A file's descriptor is a real one, and may differ from run to run.
    const int fd = operation.kind == OperationKind::read_file ? -1 : operation.fd;
    network_.trace(process_.kernel().host(), name_of(operation.kind), fd, ended.result);
    Buffer* buffer = nullptr;
    if (ended.buffer != kNoBuffer) {
      buffer = &pool_->lend_or_copy(ended.buffer, static_cast<std::size_t>(ended.result));
    }
    if (!ended.more) {
      --in_flight_;
      operation.state = Operation::State::idle;
      std::erase(cancels_, &operation);
    }
    ++completions_;
    ++count;
    operation.on_complete(operation, {ended.result, ended.more, buffer});
  }
  return count;
}

void SimulatedEngine::wait(TimePoint deadline) {
  ++waits_;
  hand_over();
  feed_starved();
  std::size_t delivered = deliver();
  while (may_block_ && !abandoned_ && delivered == 0 && !woken_ && waiting_.empty() &&
         network_.now() < deadline) {
    if (process_.dead()) {
      abandon();
    } else {
      driver_.want_turn(*this, deadline);
      if (!network_.step()) throw std::logic_error("weir: the simulated world has come to an end");
      hand_over();
      feed_starved();
    }
    delivered += deliver();
  }
  if (abandoned_ && delivered == 0 && deadline != TimePoint::max()) {
    last_hour_ = std::max(last_hour_, deadline);
  }
  const TimePoint now = network_.now();
  const bool busy = deadline == TimePoint::min() || delivered > 0 || !waiting_.empty() || woken_;
  woken_ = false;
  if (busy) {
    driver_.want_turn(*this, after(now, kTurn));
  } else if (deadline != TimePoint::max()) {
    driver_.want_turn(*this, deadline);
  }
  if (!ended_.empty()) driver_.want_turn(*this, ended_.front().due);
}

void SimulatedEngine::wake() noexcept {
  ++wakes_;
  woken_ = true;
  driver_.want_turn(*this, network_.now());
}

std::size_t SimulatedEngine::buffer_size() const noexcept { return pool_->buffer_size(); }
bool SimulatedEngine::has_buffer() noexcept { return pool_->has_free(); }
std::uint32_t SimulatedEngine::take_buffer() noexcept { return pool_->take(); }
std::byte* SimulatedEngine::data_of(std::uint32_t buffer) const noexcept {
  return pool_->data_of(buffer);
}
std::size_t SimulatedEngine::leased() const noexcept { return pool_->leased(); }

void SimulatedEngine::starve(Operation& operation, Descriptor& descriptor) noexcept {
  (void)descriptor;
  if (operation.state == Operation::State::starved) return;
  ++starvations_;
  operation.state = Operation::State::starved;
  starved_.push_back(&operation);
  driver_.want_turn(*this, after(network_.now(), kBufferPause));
}

void SimulatedEngine::feed_starved() {
  std::vector<Operation*> hungry;
  hungry.swap(starved_);
  for (Operation* operation : hungry) {
    operation->state = Operation::State::submitted;
    if (Descriptor* descriptor = process_.find(operation->fd)) process_.progress(*descriptor);
  }
}

void SimulatedEngine::add_metrics(Metrics& metrics) const noexcept {
  metrics.waits += waits_;
  metrics.submitted += submissions_;
  metrics.completed += completions_;
  metrics.cancelled += cancellations_;
  metrics.wakes += wakes_;
  metrics.starved += starvations_;
  metrics.buffers += pool_->made();
  metrics.buffers_leased += pool_->leased();
}

}  // namespace weir::sim
