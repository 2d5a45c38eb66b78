#include <weir/core/blocking.h>
#include <weir/core/sleep.h>
#include <weir/coro/timeout.h>
#include <weir/net/connection_access.h>
#include <weir/net/handshake.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

namespace weir::detail {
namespace {

/// Under way on one loop. Each takes some 40 KB.
constexpr std::size_t kMostUnderWay = 1024;

/// Of a turn, for steps: less than one takes that works with a private key.
constexpr auto kTimeOfTurn = std::chrono::microseconds(200);
/// Where the clock stands still.
constexpr unsigned kMostOfTurn = 16;

/// A step that takes longer is made elsewhere if others would have to wait for it: to go there and
/// back costs some 50 us.
constexpr auto kLongStep = std::chrono::microseconds(500);
/// Somebody is served for so long after he was.
constexpr auto kServed = std::chrono::seconds(1);

/// Where the processors are busy with other programs those that wait for a handshake would wait
/// long: their steps are made here for so long after that was noticed.
constexpr auto kStaysHere = std::chrono::seconds(2);

/// Threads of their own: whoever uses `blocking` may use those for long. They give way to the loops
/// where there are not processors enough for both. Each loop has one errand at a time. Never
/// destroyed: a loop may go on while the process ends.
WorkQueue& errands() {
  static const auto* const queue = new std::shared_ptr<WorkQueue>(std::make_shared<WorkQueue>(
      std::max<std::size_t>(1, std::thread::hardware_concurrency()), 1000, "weir-handshake", 5));
  static const struct Finish {
    ~Finish() { (*queue)->finish(); }
  } at_exit;
  (void)at_exit;
  return **queue;
}

/// How much of a processor something takes on this thread: not more than there is time for, and
/// none where the clock stands still.
class Stopwatch {
 public:
  explicit Stopwatch(Machine& machine) noexcept : machine_(machine) {}
  [[nodiscard]] Duration taken() const noexcept {
    return std::min(machine_.now() - began_, of_thread() - of_thread_);
  }

 private:
  static Duration of_thread() noexcept {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);  // lint: allow(unrepeatable)
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  }

  Machine& machine_;
  const TimePoint began_ = machine_.now();
  const Duration of_thread_ = of_thread();
};

/// Runs it on another thread, or, where there is none, here.
Task<> run_elsewhere(std::shared_ptr<Errand> errand, HandshakeGate& gate) {
  struct Run {
    std::shared_ptr<Errand> errand;
    Duration operator()() const noexcept {
      const Stopwatch watch(current_machine());
      errand->run();
      return watch.taken();
    }
  };
  std::optional<Duration> taken;
  try {
    Run run{errand};
    const TimePoint began = current_machine().now();
    taken = co_await BlockingAwaiter<Run>(errands().shared_from_this(), std::move(run));
    gate.note_errand(*taken, current_machine().now() - began);
  } catch (...) {  // no thread, or no memory
  }
  if (!taken) gate.note(Run{errand}());
}

Task<> shake_hands(Connection& connection, Handshake& handshake, HandshakeGate* gate) {
  while (!handshake.done()) {
    if (handshake.has_work()) {
      Semaphore::Permit permit;
      if (gate != nullptr) permit = co_await gate->enter();
      Machine& machine = connection.loop().machine();
      if (gate != nullptr && gate->sends_away(machine.now())) {
        if (auto errand = handshake.errand()) co_await run_elsewhere(std::move(errand), *gate);
      }
      const TimePoint began = machine.now();
      const Stopwatch watch(machine);
      const std::size_t before = connection.inbox().unread();
      const Failure failure = handshake.work(connection.inbox());
      connection.identity().count_received(connection.inbox().unread() - before);
      connection.transforming().worked(failure);
      if (failure == 0) connection.receiver().update();
      // What was queued meanwhile goes, also where the handshake's last word was the peer's.
      if (handshake.done() && connection.outbox().pending() > 0) connection.transmitter().start();
      if (gate != nullptr) {
        gate->note(watch.taken());
        gate->leave(std::move(permit), began);
      }
      // Once it is done what comes behind it is for whoever uses the connection to hear of.
      if (failure != 0 && !handshake.done()) handshake.throw_failure();
    } else {
      handshake.news.reset();
      co_await handshake.news.wait();
    }
  }
}

}  // namespace

Task<Semaphore::Permit> HandshakeGate::enter() {
  Semaphore::Permit permit = co_await step_.acquire(1);
  co_await yield();  // those go first who became ready during the last step
  co_return permit;
}

bool HandshakeGate::sends_away(TimePoint now) noexcept {
  if (served_ == nullptr) return false;
  if (std::exchange(seen_, *served_) != *served_) changed_ = now;
  return longest_ >= kLongStep && now >= stays_until_ && changed_ && now - *changed_ < kServed;
}

/// Those with a private key and those without take turns.
void HandshakeGate::note(Duration taken) noexcept { longest_ = std::max(taken, longest_ * 7 / 8); }

void HandshakeGate::note_errand(Duration taken, Duration waited) noexcept {
  note(taken);
  if (waited > 3 * taken + 5ms) stays_until_ = loop_.machine().now() + kStaysHere;
}

void HandshakeGate::leave(Semaphore::Permit permit, TimePoint began) {
  taken_ += loop_.machine().now() - began;
  if (++made_ >= kMostOfTurn || taken_ >= kTimeOfTurn) kept_ = std::move(permit);
  loop_.at_turn_end(*this);
}

void HandshakeGate::end_turn() noexcept {
  taken_ = {};
  made_ = 0;
  kept_.release();
  loop_.engine().wake();  // whoever may go on now is to be seen to before the loop sleeps
}

HandshakeGate::UnderWay::UnderWay(HandshakeGate& gate, Connection& connection)
    : gate_(gate), connection_(connection) {
  gate.under_way_.push_back(*this);
  if (++gate.count_ <= kMostUnderWay) return;
  --gate.count_;
  gate.under_way_.pop_front()->connection_.ending().cut(kClosedHere, true);
}

HandshakeGate::UnderWay::~UnderWay() {
  if (link.linked()) --gate_.count_;
  link.unlink();
}

Task<> agree(Connection& connection, std::unique_ptr<Handshake> made,
             std::chrono::milliseconds limit, HandshakeGate* gate) {
  Handshake& handshake = *made;
  connection.transforming().begin(std::move(made));
  // Whoever is dropped here leaves a connection that nobody can understand.
  struct CutOff {
    Connection* connection;
    ~CutOff() {
      if (connection != nullptr) connection->ending().cut(kClosedHere, true);
    }
  } cut_off{&connection};
  try {
    Task<> task = shake_hands(connection, handshake, gate);
    if (limit.count() > 0) {
      co_await timeout(limit, std::move(task));
    } else {
      co_await std::move(task);
    }
  } catch (const std::system_error& error) {
    // What was said about it is to arrive.
    if (error.code() != errc::deadline) cut_off.connection = nullptr;
    throw;
  }
  cut_off.connection = nullptr;
}

Task<> secure(TcpConnection& connection, std::shared_ptr<HandshakeFactory> factory,
              std::string peer, HandshakeGate* gate) {
  Connection* of = ConnectionAccess::of(connection);
  if (of == nullptr) throw std::logic_error("weir: TLS: the connection is not connected");
  if (of->transform() != nullptr) {
    throw std::logic_error("weir: TLS: the connection is transformed already");
  }
  if (of->inbox().has_reader()) {
    throw std::logic_error("weir: TLS: somebody reads from the connection");
  }
  std::unique_ptr<Handshake> made = factory->make(peer);
  co_await agree(*of, std::move(made), factory->handshake_timeout(), gate);
}

std::string_view host_of(std::string_view name) noexcept {
  if (name.starts_with("unix:")) return {};
  name = name.substr(0, name.rfind(':'));
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  return name;
}

}  // namespace weir::detail
