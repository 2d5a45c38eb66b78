#include <weir/core/event_loop.h>
#include <weir/core/survey.h>
#include <weir/core/task_words.h>
#include <weir/io/sim/drop.h>
#include <weir/io/sim/run.h>

#include <algorithm>
#include <utility>

namespace weir::sim {
namespace detail {
namespace {

constexpr std::size_t kMostMoments = 10'000;
constexpr std::size_t kMostFailures = 3;
constexpr std::size_t kReadyBatch = 256;

/// The loop's ready queue, coroutine by coroutine.
struct Ready : weir::detail::Scheduler {
  static const weir::detail::Scope* next(const Scheduler& loop) {
    return (loop.*&Ready::next_ready)();
  }
  static bool any(const Scheduler& loop) { return (loop.*&Ready::has_ready)(); }
  static std::size_t resume_one(Scheduler& loop) { return (loop.*&Ready::run_ready)(1); }
};

}  // namespace

Marked* DropPlan::owner_of(const weir::detail::Scope* scope) const noexcept {
  if (scope == nullptr) return nullptr;
  for (Marked* task : marked) {
    if (task->scope != nullptr && task->scope->contains(scope)) return task;
  }
  return nullptr;
}

std::string DropPlan::tell_place(const Marked& task) const {
  constexpr std::size_t kMostLines = 12;
  weir::detail::LoopReport report;
  (void)weir::detail::TaskSurvey(*loop).go_on(report, 1'000'000);
  const auto& lines = report.tasks;
  const auto first = std::find_if(lines.begin(), lines.end(), [&](const auto& line) {
    return line.scope != nullptr && line.scope == task.scope;
  });
  std::string text;
  for (auto line = first; line != lines.end() && (line == first || line->depth > first->depth);
       ++line) {
    if (static_cast<std::size_t>(line - first) == kMostLines) return text + "\n    and more";
    text += "\n    " + std::string(2 * (line->depth - first->depth), ' ') +
            weir::detail::describe(*line);
  }
  return text.empty() ? text : ", where it waited:" + text;
}

bool DropPlan::pass(Marked& task, const char* when) {
  if (dropped || passed++ != moment) return false;
  dropped = true;
  where = "task \"" + task.name + "\" was dropped at its suspension " + std::to_string(suspension) +
          ", " + when;
  World::Impl& world = *World::Impl::current;
  const auto& history = world.network.journal.history(task.host);
  if (!history.empty()) where += ", behind \"" + world.tell(history.back()) + '"';
  where += tell_place(task);
  world.network.journal.note(task.host, "dropped", task.name);
  task.group->cancel();
  return true;
}

std::size_t resume_counting(EventLoop& loop, void* drop_plan) {
  DropPlan& plan = *static_cast<DropPlan*>(drop_plan);
  plan.loop = &loop;
  std::size_t count = 0;
  const auto suspended = [&plan](Marked& task) {
    ++plan.suspension;
    plan.pass(task, "as it began to wait");
  };
  for (std::size_t i = 0; i < plan.marked.size(); ++i) {
    Marked& task = *plan.marked[i];
    if (!std::exchange(task.looked_at, true) && task.scope != nullptr) suspended(task);
  }
  while (count < kReadyBatch && Ready::any(loop)) {
    Marked* task = plan.owner_of(Ready::next(loop));
    if (task != nullptr && plan.pass(*task, "when it was about to go on")) continue;
    const std::size_t resumed = Ready::resume_one(loop);
    count += resumed;
    if (resumed == 0) break;
    const bool lives = std::find(plan.marked.begin(), plan.marked.end(), task) != plan.marked.end();
    if (task != nullptr && lives && task->scope != nullptr) suspended(*task);
  }
  return count;
}

}  // namespace detail

Task<> Host::Impl::run_marked(Impl& host, std::string name, Task<> task) {
  /// Known to the plan for its own life.
  struct Known {
    Known(DropPlan& of, Marked& task) : plan(of), marked(task) { plan.marked.push_back(&marked); }
    Known(const Known&) = delete;
    Known& operator=(const Known&) = delete;
    ~Known() { std::erase(plan.marked, &marked); }
    DropPlan& plan;
    Marked& marked;
  };
  struct Begun {
    explicit Begun(Marked& task) noexcept : marked(task) {
      marked.scope = weir::detail::Scheduler::current().running().scope();
    }
    Begun(const Begun&) = delete;
    Begun& operator=(const Begun&) = delete;
    ~Begun() { marked.scope = nullptr; }
    Marked& marked;
  };
  const auto enter = [](Marked& marked, Task<> own) -> Task<> {
    const Begun begun(marked);
    co_await std::move(own);
  };
  DropPlan& plan = *host.world.drop;
  plan.was_marked = true;
  Marked marked{.name = std::move(name), .host = host.index};
  TaskGroup group;
  marked.group = &group;
  const Known known(plan, marked);
  group.spawn(enter(marked, std::move(task)));
  co_await group.join();
}

Task<> Host::marked(Task<> task, const std::string& name) {
  if (impl_->world.drop == nullptr) return task;
  return Impl::run_marked(*impl_, name, std::move(task));
}

bool World::dropped() const noexcept { return impl_->drop != nullptr && impl_->drop->dropped; }

Exploration drop_everywhere(const WorldOptions& options,
                            const std::function<void(World&)>& scenario) {
  Exploration result;
  const Counting nobody(nullptr);
  const auto only = number_from("WEIR_SIM_DROP");
  for (std::size_t moment = only.value_or(0);; ++moment) {
    DropPlan plan;
    plan.moment = moment;
    Run run;
    run.seed = number_from("WEIR_SIM_SEED").value_or(options.seed);
    run.drop = &plan;
    const RunResult outcome = run(options, scenario);
    ++result.runs;
    result.hash = (result.hash ^ outcome.hash) * 0x9e3779b97f4a7c15;
    if (outcome.failure) result.failures.push_back({run.seed, *outcome.failure});
    if (!plan.was_marked && !outcome.failure) {
      result.failures.push_back(
          {run.seed, "weir: the scenario of drop_everywhere marks no task by Host::spawn_dropped"});
    }
    if (!plan.dropped || only || result.failures.size() >= kMostFailures) return result;
    if (moment + 1 == kMostMoments) {
      result.failures.push_back({run.seed, "weir: after " + std::to_string(plan.suspension) +
                                               " suspensions drop_everywhere sees no end: give the "
                                               "marked task less to do"});
      return result;
    }
  }
}

}  // namespace weir::sim
