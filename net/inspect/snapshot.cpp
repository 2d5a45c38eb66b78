#include <weir/core/all_loops.h>
#include <weir/core/event_loop.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/channel.h>
#include <weir/coro/timeout.h>
#include <weir/net/connection.h>
#include <weir/net/inspect/servers.h>
#include <weir/net/inspect/snapshot.h>
#include <weir/net/server/core.h>
#include <weir/net/server/share.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <utility>

namespace weir::detail {
namespace {

constexpr auto kPatienceWithLoops = 100ms;
constexpr int kMostPatience = 20;  // as often, with those that go on
constexpr std::size_t kMostLoops = 4096;
/// A tenth of a millisecond or so of a loop's turn.
constexpr std::size_t kLinesInTurn = 512;

/// Of a loop's connections, of whose sockets the kernel is asked: a microsecond each.
constexpr std::size_t kMostAsked = 1000;

using Answers = Channel<LoopReport>;

const char* name_of(ConnectionState state) noexcept {
  switch (state) {
    case ConnectionState::connecting:
      return "connecting";
    case ConnectionState::connected:
      return "connected";
    case ConnectionState::disconnecting:
      return "disconnecting";
    case ConnectionState::disconnected:
      break;
  }
  return "disconnected";
}

}  // namespace

void Connection::describe(LoopReport& report) const {
  auto& self = const_cast<Connection&>(*this);  // what is shown does not change what it is
  const WaterMarks marks = outbox_.marks();
  const bool asks = report.connections.size() < kMostAsked;
  report.connections.push_back(
      {self.identity().id(), self.identity().name(), name_of(state()), inbox_.unread(),
       inbox_.high(), receiver_.is_held(), outbox_.pending(), marks.high, marks.low, outbox_.gone(),
       loop_.clock_ms() - opened_ms_, transform() != nullptr,
       self.inbox_.leases(report.in_connections),
       self.outbox_.queue().leases(report.in_connections),
       asks ? loop_.machine().look_at_socket(fd()) : std::nullopt, inbox_.reader_scope(), nullptr});
}

namespace {

/// What all that are asked have in common.
struct Inquiry {
  Answers answers{kMostLoops};
  std::atomic<std::uint64_t> steps{0};
};

/// Of one loop; lives there, in what is posted to it.
class Looking {
 public:
  Looking(std::shared_ptr<Inquiry> inquiry, EventLoop& loop, std::uint64_t number, Wanted wanted)
      : inquiry_(std::move(inquiry)), loop_(loop), wanted_(wanted) {
    answer_.number = number;
  }

  /// Some of it; the rest in later turns, as long as anybody waits for it.
  static void go_on(std::unique_ptr<Looking> self) {
    if (self->inquiry_.use_count() == 1) return;
    Inquiry& inquiry = *self->inquiry_;
    inquiry.steps.fetch_add(1, std::memory_order_relaxed);
    if (self->wanted_.tasks && !self->survey_.go_on(self->answer_, kLinesInTurn)) {
      EventLoop& loop = self->loop_;
      loop.post(Next(std::move(self)));
      return;
    }
    self->loop_.describe(self->answer_, self->wanted_.connections);
    (void)inquiry.answers.try_send(std::move(self->answer_));
  }

 private:
  struct Next {
    explicit Next(std::unique_ptr<Looking> of) noexcept : self(std::move(of)) {}
    void operator()() { go_on(std::move(self)); }
    std::unique_ptr<Looking> self;
  };

  std::shared_ptr<Inquiry> inquiry_;
  EventLoop& loop_;
  const Wanted wanted_;
  LoopReport answer_;
  TaskSurvey survey_{loop_};
};

}  // namespace

void Surveyor::take(LoopReport& report, LoopReport&& answer) {
  last_[report.number] = {answer.metrics, answer.turn_ms_taken, answer.lag};
  report.state = answer.state;
  report.metrics = answer.metrics;
  report.turn_ms_taken = answer.turn_ms_taken;
  report.lag = answer.lag;
  report.tasks = std::move(answer.tasks);
  report.tasks_cut = answer.tasks_cut;
  report.connections = std::move(answer.connections);
  report.kept = std::move(answer.kept);
}

void Surveyor::complete(std::vector<LoopReport>& loops) {
  for (LoopReport& report : loops) {
    if (report.state == LoopReport::State::answered) continue;
    if (const auto last = last_.find(report.number); last != last_.end()) {
      report.metrics = last->second.metrics;
      report.turn_ms_taken = last->second.turn_ms_taken;
      report.lag = last->second.lag;
    }
    if (report.state == LoopReport::State::stuck) {
      report.view = process_machine().look_at_thread(report.thread);
    }
  }
  std::erase_if(asked_, [](const auto& entry) { return entry.second.expired(); });
  std::erase_if(last_, [&](const auto& entry) {
    return std::none_of(loops.begin(), loops.end(),
                        [&](const LoopReport& report) { return report.number == entry.first; });
  });
}

/// One that is on its way to a loop, and then gone. From any thread.
struct Surveyor::Question {
  /// Has it answered to another. False if it is being answered.
  bool redirect(const std::shared_ptr<Inquiry>& inquiry, Wanted what) {
    const std::lock_guard lock(mutex);
    if (to == nullptr) return false;
    to = inquiry;
    wanted = what;
    return true;
  }
  /// On the loop's thread.
  void answer(EventLoop& loop, std::uint64_t number) {
    std::unique_lock lock(mutex);
    auto looking = std::make_unique<Looking>(std::exchange(to, nullptr), loop, number, wanted);
    lock.unlock();
    Looking::go_on(std::move(looking));
  }

  std::mutex mutex;
  std::shared_ptr<Inquiry> to;
  Wanted wanted;
};

Task<Snapshot> Surveyor::look(Wanted wanted, bool servers) {
  Snapshot snapshot;
  const auto turn = co_await turn_.lock();
  co_await ask_loops(snapshot.loops, wanted);
  if (servers) snapshot.servers = AllServers::instance().look();
  co_return snapshot;
}

Task<> Surveyor::ask_loops(std::vector<LoopReport>& loops, Wanted wanted) {
  const auto inquiry = std::make_shared<Inquiry>();
  AllLoops::instance().for_each([&](EventLoop& loop, std::uint64_t number) {
    LoopReport& report = loops.emplace_back();
    report.number = number;
    report.name = loop.name();
    report.engine = loop.engine_name();
    loop.describe_from_outside(report);
    if (wanted.events) {  // of one that is stuck, too
      report.events.resize(FlightRecorder::kEvents);
      report.events.resize(loop.flight.take_last(report.events));
    }
    if (report.state == LoopReport::State::stands) return;
    std::weak_ptr<Question>& asked = asked_[number];
    if (const auto earlier = asked.lock(); earlier && earlier->redirect(inquiry, wanted)) return;
    auto question = std::make_shared<Question>();
    question->to = inquiry;
    question->wanted = wanted;
    asked = question;
    loop.post([question = std::move(question), number, &loop] { question->answer(loop, number); });
  });
  auto open = std::count_if(loops.begin(), loops.end(), [](const LoopReport& report) {
    return report.state == LoopReport::State::stuck;
  });
  EventLoop& own = EventLoop::current();
  TimePoint end = own.deadline_in(kPatienceWithLoops);
  std::uint64_t steps = 0;
  for (int patience = kMostPatience; open > 0;) {
    auto [error, answer] = co_await as_tuple(timeout(end - own.now(), inquiry->answers.receive()));
    if (error || !answer) {
      const std::uint64_t before = std::exchange(steps, inquiry->steps.load());
      if (steps == before || --patience == 0) break;
      end = own.deadline_in(kPatienceWithLoops);
      continue;
    }
    --open;
    steps = inquiry->steps.load();
    const auto report = std::find_if(loops.begin(), loops.end(), [&](const LoopReport& loop) {
      return loop.number == answer->number;
    });
    take(*report, std::move(*answer));
  }
  complete(loops);
}

}  // namespace weir::detail
