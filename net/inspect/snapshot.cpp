#include <weir/core/event_loop.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/channel.h>
#include <weir/coro/timeout.h>
#include <weir/net/connection.h>
#include <weir/net/inspect/servers.h>
#include <weir/net/inspect/snapshot.h>
#include <weir/net/server/share.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

namespace weir::detail {
namespace {

constexpr auto kPatienceWithLoops = 100ms;
constexpr std::size_t kMostLoops = 4096;

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
  report.connections.push_back({self.identity().id(), self.identity().name(), name_of(state()),
                                inbox_.unread(), inbox_.high(), receiver_.is_held(),
                                outbox_.pending(), marks.high, marks.low, outbox_.gone(),
                                transform_ != nullptr, inbox_.reader_scope()});
}

void Share::describe(LoopReport& report) const {
  for (Connection* one = roster_.front(); one != nullptr; one = roster_.after(*one)) {
    one->describe(report);
  }
}

/// One that is on its way to a loop, and then gone. From any thread.
struct Surveyor::Question {
  /// Has it answered to another. False if it is being answered.
  bool redirect(const std::shared_ptr<Answers>& answers, Wanted what) {
    const std::lock_guard lock(mutex);
    if (to == nullptr) return false;
    to = answers;
    wanted = what;
    return true;
  }
  /// On the loop's thread.
  void answer(EventLoop& loop, std::uint64_t number) {
    std::shared_ptr<Answers> answers;
    Wanted what;
    {
      const std::lock_guard lock(mutex);
      answers = std::exchange(to, nullptr);
      what = wanted;
    }
    LoopReport answer;
    answer.number = number;
    loop.describe(answer, what);
    (void)answers->try_send(std::move(answer));
  }

  std::mutex mutex;
  std::shared_ptr<Answers> to;
  Wanted wanted;
};

Task<Snapshot> Surveyor::look(Wanted wanted, bool servers) {
  Snapshot snapshot;
  const auto turn = co_await turn_.lock();
  co_await ask_loops(snapshot, wanted);
  if (servers) snapshot.servers = AllServers::instance().metrics();
  co_return snapshot;
}

Task<> Surveyor::ask_loops(Snapshot& snapshot, Wanted wanted) {
  const auto answers = std::make_shared<Answers>(kMostLoops);
  std::vector<LoopReport>& loops = snapshot.loops;
  AllLoops::instance().for_each([&](EventLoop& loop, std::uint64_t number) {
    LoopReport& report = loops.emplace_back();
    report.number = number;
    report.name = loop.name();
    report.engine = loop.engine_name();
    loop.describe_from_outside(report);
    if (report.state == LoopReport::State::stands) return;
    std::weak_ptr<Question>& asked = asked_[number];
    if (const auto earlier = asked.lock(); earlier && earlier->redirect(answers, wanted)) return;
    auto question = std::make_shared<Question>();
    question->to = answers;
    question->wanted = wanted;
    asked = question;
    loop.post([question = std::move(question), number, &loop] { question->answer(loop, number); });
  });
  auto open = std::count_if(loops.begin(), loops.end(), [](const LoopReport& report) {
    return report.state == LoopReport::State::stuck;
  });
  EventLoop& own = EventLoop::current();
  const TimePoint end = own.deadline_in(kPatienceWithLoops);
  while (open > 0) {
    auto [error, answer] = co_await as_tuple(timeout(end - own.now(), answers->receive()));
    if (error || !answer) break;
    --open;
    const auto report = std::find_if(loops.begin(), loops.end(), [&](const LoopReport& loop) {
      return loop.number == answer->number;
    });
    last_[report->number] = answer->metrics;
    report->state = answer->state;
    report->metrics = answer->metrics;
    report->tasks = std::move(answer->tasks);
    report->tasks_cut = answer->tasks_cut;
    report->connections = std::move(answer->connections);
  }
  for (LoopReport& report : loops) {
    if (report.state == LoopReport::State::answered) continue;
    if (const auto last = last_.find(report.number); last != last_.end()) {
      report.metrics = last->second;
    }
  }
  std::erase_if(asked_, [](const auto& entry) { return entry.second.expired(); });
  std::erase_if(last_, [&](const auto& entry) {
    return std::none_of(loops.begin(), loops.end(),
                        [&](const LoopReport& report) { return report.number == entry.first; });
  });
}

}  // namespace weir::detail
