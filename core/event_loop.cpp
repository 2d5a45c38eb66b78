#include <weir/core/buffer.h>
#include <weir/core/event_loop.h>
#include <weir/core/flight_words.h>
#include <weir/core/log_line.h>
#include <weir/core/survey.h>
#include <weir/coro/probes.h>

#include <unistd.h>

#include <algorithm>
#include <exception>
#include <new>
#include <stdexcept>
#include <utility>

namespace weir {
namespace {

/// Coroutines resumed in one turn before the engine is looked at again: enough to pay for the
/// system call, few enough that a task that never waits starves nobody.
constexpr std::size_t kReadyBatch = 256;
/// In a host's loop, after which no further turn is begun: there is always more to do.
constexpr auto kHostWaits = std::chrono::milliseconds(1);
/// Milliseconds, from which the flight recorder tells of a turn.
constexpr std::uint32_t kLongTurn = 100;

}  // namespace

EventLoop::EventLoop(LoopOptions options)
    : EventLoop(options, detail::current_machine(),
                detail::current_machine().make_engine(options)) {
  if (engine_->name() == "simulation") return;
  auto& all = detail::AllLoops::instance();
  all.add(entry_.emplace(*this, all.next_number()));
}

EventLoop::EventLoop(LoopOptions options, detail::Machine& machine,
                     std::unique_ptr<detail::IoEngine> engine)
    : options_(options),
      name_(options.name),
      machine_(machine),
      engine_(std::move(engine)),
      mailbox_(std::make_shared<detail::Mailbox>(*engine_)),
      now_(machine_.now()),
      timers_(now_),
      watch_(detail::to_duration(options.stall), name_) {
  options_.name = name_;
  set_clock_ms(machine_.clock_ms());  // tasks may begin before the first turn
  tasks_.emplace(*this, &unjoined_);
}

EventLoop::~EventLoop() {
  if (entry_) detail::AllLoops::instance().remove(*entry_);
  hosted_.reset();
  {
    std::unique_lock lock(calls_mutex_);
    wait_for_visitor(lock);
    visitor_ = std::this_thread::get_id();
  }
  try {
    engine_->attach();
  } catch (const std::logic_error&) {
    engine_->abandon();
  } catch (...) {
    engine_->abandon();
    report_failure(std::current_exception(), "the end of an event loop");
  }
  const Entered entered(*this);
  ending_ = true;
  if (of_parent_) mailbox_->close();  // what was posted is the parent's to do
  tasks_.reset();
  detail::List<detail::LoopResource> ending;
  ending.splice_back(resources_);
  while (detail::LoopResource* resource = ending.pop_front()) {
    resources_.push_back(*resource);
    resource->end_with_loop();
  }
  while (!has_ended()) {
    try {
      (void)mailbox_->take_stop_request();  // it would keep us from sleeping
      turn();
    } catch (...) {
      report_failure(std::current_exception(), "the end of an event loop");
      engine_->abandon();
    }
  }
  mailbox_->close();
  answer_calls();
}

detail::Machine& detail::current_machine() noexcept {
  EventLoop* loop = EventLoop::current_or_null();
  return loop != nullptr ? loop->machine() : process_machine();
}

EventLoop& EventLoop::current() { return static_cast<EventLoop&>(detail::Scheduler::current()); }

EventLoop::Running::Running(EventLoop& loop) : loop_(loop) {
  {
    std::unique_lock lock(loop.calls_mutex_);
    loop.wait_for_visitor(lock);
    if (loop.running_.exchange(true, std::memory_order_acq_rel)) {
      throw std::logic_error("weir: this event loop is running already");
    }
  }
  detail::prepare_thread_caches();  // while there is memory
  entered_.emplace(loop);
  run_.emplace(loop);
  loop.set_clock_ms(loop.machine_.clock_ms());
  loop.thread_.store(::gettid(), std::memory_order_relaxed);
  if (loop.entry_) detail::inspect_if_asked();
  try {
    loop.engine_->attach();
    loop.machine_.begin_run(loop.watch_, loop.options_.cpu);
    begun_ = true;
    loop.watch_.begin(loop.metrics_.turns + 1);  // what runs before the first turn counts as its
  } catch (...) {
    end();
    throw;
  }
}

void EventLoop::Running::end() {
  loop_.watch_.end();
  if (begun_) loop_.machine_.end_run(loop_.watch_);
  for (;;) {
    loop_.answer_calls();
    const std::lock_guard lock(loop_.calls_mutex_);
    if (!loop_.calls_.empty()) continue;
    loop_.engine_->detach();
    entered_.reset();
    run_.reset();
    loop_.running_.store(false, std::memory_order_release);
    return;
  }
}

/// Those that wait now: who calls again as soon as it is answered leaves others their turn.
void EventLoop::answer_calls() noexcept {
  const Call* last = nullptr;
  for (;;) {
    Call* call = nullptr;
    {
      const std::lock_guard lock(calls_mutex_);
      if (last == nullptr) last = calls_.back();
      call = calls_.pop_front();
    }
    if (call == nullptr) return;
    const bool is_last = call == last;  // as long as it is there
    call->answer();
    if (is_last) return;
  }
}

void EventLoop::wait_for_visitor(std::unique_lock<std::mutex>& lock) {
  calls_changed_.wait(lock, [this] { return !has_other_visitor(); });
}

void EventLoop::become_parents() noexcept {
  of_parent_ = true;
  // Whoever had them is not there.
  new (&calls_mutex_) std::mutex;
  new (&calls_changed_) std::condition_variable;
  new (&calls_) detail::List<Call>;  // they lie on the stacks of who called
  renew_lock();
  mailbox_->become_parents();
  if (in_loop_thread()) {
    mailbox_->knock();  // it neither sleeps nor serves any more, but says whose it is
    return;
  }
  running_.store(false, std::memory_order_relaxed);
  visitor_ = {};
}

bool EventLoop::has_other_visitor() const noexcept {
  return visitor_ != std::thread::id() && visitor_ != std::this_thread::get_id();
}

EventLoop::Access EventLoop::begin_visit() noexcept {
  if (in_loop_thread()) return Access::inside;
  if (runs_elsewhere() || has_other_visitor()) return Access::none;
  if (visitor_ != std::thread::id()) return Access::inside;
  visitor_ = std::this_thread::get_id();
  return Access::visit;
}

void EventLoop::end_visit(Access access) noexcept {
  if (access != Access::visit) return;
  const Entered entered(*this);
  for (;;) {
    answer_calls();
    const std::lock_guard lock(calls_mutex_);
    if (!calls_.empty()) continue;
    visitor_ = {};
    calls_changed_.notify_all();
    return;
  }
}

EventLoop::Visit::Visit(EventLoop& loop)
    : loop_(loop), access_([&loop] {
        const std::lock_guard lock(loop.calls_mutex_);
        return loop.begin_visit();
      }()) {}

EventLoop::Visit::~Visit() { loop_.end_visit(access_); }

EventLoop::Call::Call(EventLoop& loop, void (*function)(void*), void* context)
    : loop_(loop),
      function_(function),
      context_(context),
      caller_(current_or_null()),
      mutex_(caller_ != nullptr ? caller_->calls_mutex_ : own_mutex_),
      changed_(caller_ != nullptr ? caller_->calls_changed_ : own_changed_) {
  const std::lock_guard lock(loop.calls_mutex_);
  access_ = loop.begin_visit();
  if (access_ != Access::none) return;
  loop.calls_.push_back(*this);
  loop.calls_changed_.notify_all();
  loop.mailbox_->knock();
}

void EventLoop::Call::finish() {
  if (access_ == Access::none) {
    wait();  // by its end the loop may be gone
    if (failure_ != nullptr) std::rethrow_exception(std::move(failure_));
    return;
  }
  struct Leave {
    Call& call;
    ~Leave() {
      // Whoever else runs it is to look at what was made ready.
      if (call.caller_ != &call.loop_) call.loop_.mailbox_->knock();
      call.loop_.end_visit(call.access_);
    }
  } const leave{*this};
  const Entered entered(loop_);
  function_(context_);
}

void EventLoop::Call::answer() noexcept {
  try {
    function_(context_);
  } catch (...) {
    failure_ = std::current_exception();
  }
  const std::lock_guard lock(mutex_);  // whoever waits can go when we are out of it
  answered_ = true;
  changed_.notify_all();
}

void EventLoop::Call::wait() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock,
                  [this] { return answered_ || (caller_ != nullptr && !caller_->calls_.empty()); });
    if (answered_) return;
    lock.unlock();
    caller_->answer_calls();
    lock.lock();
  }
}

void EventLoop::run() {
  const Running running(*this);
  while (!mailbox_->take_stop_request()) turn();
}

/// What was submitted or cancelled in a turn is handed over, and looked at, by the next one, which
/// makes the engine ready to be woken again, too.
std::uint64_t EventLoop::operations_moved() const noexcept {
  const Metrics now = metrics();
  return now.submitted + now.completed + now.cancelled + now.wakes;
}

int EventLoop::poll_fd() {
  if (hosted_ == nullptr) {
    const int fd = engine_->poll_fd(TimePoint::min());
    if (fd < 0) {
      throw std::system_error(-fd, std::generic_category(),
                              "weir: a descriptor to poll in place of an event loop on " +
                                  std::string(engine_->name()));
    }
    hosted_ = std::make_unique<Hosted>(*this, fd);
    watch_.end();  // until the host calls
  }
  return hosted_->fd;
}

bool EventLoop::run_ready() {
  if (hosted_ == nullptr || !in_loop_thread()) {
    throw std::logic_error("weir: run_ready is for the thread that has called poll_fd");
  }
  constexpr bool kOnlyLook = true;
  const TimePoint end = machine_.now() + kHostWaits;
  bool quiet = false;
  bool stopped = false;
  do {
    (void)engine_->poll_fd(TimePoint::min());
    const std::uint64_t before = operations_moved();
    turn(&kOnlyLook);
    quiet = operations_moved() == before && !has_ready() && turn_end_.empty() &&
            mailbox_->fall_asleep();
    stopped = mailbox_->take_stop_request();
  } while (!quiet && !stopped && machine_.now() < end);
  (void)engine_->poll_fd(quiet ? timers_.next() : TimePoint::min());
  return !stopped;
}

bool EventLoop::finish_run() noexcept {
  bool busy = false;
  for (detail::LoopResource* resource = resources_.front(); resource != nullptr;) {
    detail::LoopResource* next = resources_.after(*resource);
    busy = resource->finish_with_run() || busy;
    resource = next;
  }
  return busy;
}

void EventLoop::stop() { mailbox_->request_stop(); }

TimePoint EventLoop::now() noexcept {
  if (!now_known_) {
    now_ = machine_.now();
    now_known_ = true;
  }
  return now_;
}

TimePoint EventLoop::deadline_in(Duration delay) noexcept {
  now_ = machine_.now();
  now_known_ = true;
  return detail::after(now_, delay);
}

[[gnu::always_inline]] inline void EventLoop::begin_turn() {
  mailbox_->wake_up();
  set_clock_ms(machine_.clock_ms());
  watch_.begin(++metrics_.turns);
  const bool knocked = mailbox_->take_knock();  // first: what was posted before it runs before it
  metrics_.posted += mailbox_->run(*this);
  if (knocked) {
    if (of_parent_ && !ending_) engine_->attach();  // throws
    answer_calls();
    if (!of_parent_) take_woken();  // the last of them may be half in their list
  }
}

[[gnu::always_inline]] inline void EventLoop::end_turn(const bool* done) {
  const bool reads_clock = !timers_.empty();  // there is one read more then, of a cheap one
  if (reads_clock) metrics_.timers_fired += timers_.expire(now());
  while (detail::TurnEnd* work = turn_end_.pop_front()) work->end_turn();
  if (reads_clock) {
    const std::uint32_t taken = machine_.clock_ms() - clock_ms();
    turn_ms_taken_.add(taken, taken);
    metrics_.last_turn_ms = taken;
    if (taken > metrics_.longest_turn_ms) metrics_.longest_turn_ms = taken;
    if (taken >= kLongTurn) {
      flight.note(detail::FlightRecorder::Kind::stalled, taken);
      WEIR_PROBE1(stalled, taken);
    }
  }
  watch_.end();
  if (is_over(done) || has_ready() || !mailbox_->fall_asleep()) {
    if (of_parent_ && !ending_) [[unlikely]] {
      engine_->attach();  // throws
    }
    engine_->wait(TimePoint::min());
  } else {
    engine_->wait(timers_.next());
  }
  now_known_ = false;
}

void EventLoop::turn(const bool* done) {
  begin_turn();
  metrics_.resumed += Scheduler::run_ready(kReadyBatch);
  end_turn(done);
}

void EventLoop::turn_once_by(Resume resume, void* context) {
  const Entered entered(*this);
  (void)mailbox_->take_stop_request();
  begin_turn();
  metrics_.resumed += resume(*this, context);
  end_turn(nullptr);
}

/// Asked after the last step of a turn, in which whatever it waits for may have left.
bool EventLoop::is_over(const bool* done) noexcept {
  if (done != nullptr) return *done;
  return (ending_ && has_ended()) || (finishing_ && !finish_run());
}

Metrics EventLoop::metrics() const noexcept {
  Metrics metrics = metrics_;
  engine_->add_metrics(metrics);
  metrics.stalls = watch_.stalls();
  metrics.timers = timers_.size();
  return metrics;
}

/// Of the receive buffers that are out and with none of the connections, where they were read.
static void describe_kept(const detail::IoEngine& engine, detail::LoopReport& report) {
  std::sort(report.in_connections.begin(), report.in_connections.end());
  struct Kept {
    const std::vector<const detail::Buffer*>& in_connections;
    std::vector<std::uint64_t> read_at;
  } kept{report.in_connections, {}};
  engine.for_each_lease(&kept, [](void* context, const detail::Buffer& buffer) {
    auto& of = *static_cast<Kept*>(context);
    if (std::binary_search(of.in_connections.begin(), of.in_connections.end(), &buffer)) return;
    of.read_at.push_back(buffer.read_at());
  });
  report.in_connections.clear();
  std::sort(kept.read_at.begin(), kept.read_at.end());
  // Promises that are not the library's begin with anything: what is no place of any is one line.
  detail::KeptLine unknown{detail::KeptLine::kUnknown, {}, 0};
  for (auto at = kept.read_at.begin(); at != kept.read_at.end();) {
    const auto next = std::upper_bound(at, kept.read_at.end(), *at);
    const auto buffers = static_cast<std::size_t>(next - at);
    const auto where = *at == 0 ? std::nullopt : detail::place_at(*at);
    if (*at == 0 || where) {
      report.kept.push_back({*at, where.value_or(std::source_location()), buffers});
    } else {
      unknown.buffers += buffers;
    }
    at = next;
  }
  if (unknown.buffers > 0) report.kept.push_back(unknown);
  std::sort(report.kept.begin(), report.kept.end(),
            [](const auto& one, const auto& another) { return one.buffers > another.buffers; });
}

void EventLoop::describe(detail::LoopReport& report, bool with_connections) const {
  report.engine = engine_->name();
  report.metrics = metrics();
  report.state = detail::LoopReport::State::answered;
  report.turn_ms_taken = turn_ms_taken_;
  report.lag = timers_.lag();
  if (!with_connections) return;
  for (detail::LoopResource* resource = resources_.front(); resource != nullptr;
       resource = resources_.after(*resource)) {
    resource->describe(report);
  }
  describe_kept(*engine_, report);
}

void EventLoop::write_handled(detail::LogLine& to) const noexcept {
  const detail::Scope* scope = running().scope();
  if (scope == nullptr) return;
  for (detail::LoopResource* resource = resources_.front(); resource != nullptr;
       resource = resources_.after(*resource)) {
    if (resource->write_handled(to, *scope)) return;
  }
}

void EventLoop::describe_from_outside(detail::LoopReport& report) const noexcept {
  using State = detail::LoopReport::State;
  report.thread = thread_.load(std::memory_order_relaxed);
  report.state = running_.load(std::memory_order_relaxed) ? State::stuck : State::stands;
  report.clock_ms = machine_.clock_ms();
  report.turn_ms = report.clock_ms - clock_ms();
}

void EventLoop::report_failure(std::exception_ptr failure, const char* where) noexcept {
  static constinit detail::LogLimit limit("exceptions that nobody caught");
  if (!limit.admits(logging::Level::error)) return;
  const auto what = detail::LogLine() << "exception left " << where;
  detail::write_failure(logging::Level::error, what, failure);
}

}  // namespace weir
