#include <weir/core/task_words.h>
#include <weir/coro/frame_allocator.h>
#include <weir/io/sim/world_impl.h>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <utility>

namespace weir::sim {
namespace {

std::string in_seconds(Duration time) {
  char text[64];
  std::snprintf(text, sizeof text, "%.9f s", std::chrono::duration<double>(time).count());
  return text;
}

[[noreturn]] void refuse(const char* option, const std::string& value, const char* rule) {
  throw std::invalid_argument(std::string("weir: sim::") + option + " is " + value + "; " + rule);
}

/// What a `Link` and the `Faults` say alike.
template <class Wire>
void check_wire(const Wire& wire, const std::string& name) {
  const auto time = [&](const char* member, std::chrono::nanoseconds value) {
    if (value.count() >= 0) return;
    refuse((name + member).c_str(), std::to_string(value.count()) + " ns",
           "it must not be negative");
  };
  time("::latency", wire.latency);
  time("::jitter", wire.jitter);
  if (!(wire.loss >= 0 && wire.loss <= 1)) {
    refuse((name + "::loss").c_str(), std::to_string(wire.loss), "it is a probability");
  }
}

WorldOptions checked(WorldOptions options) {
  check_wire(options.faults, "Faults");
  if (options.first_port == 0 || options.first_port > options.last_port) {
    throw std::invalid_argument("weir: WorldOptions::first_port is " +
                                std::to_string(options.first_port) + ", last_port " +
                                std::to_string(options.last_port) + "; there must be a port");
  }
  return options;
}

WorldOptions with_seed_of_environment(WorldOptions options) {
  if (const auto seed = number_from("WEIR_SIM_SEED")) options.seed = *seed;
  return checked(options);
}

}  // namespace

void World::Impl::take(logging::Level level, std::string_view message) noexcept {
  const char* what = level == logging::Level::error     ? "error"
                     : level == logging::Level::warning ? "warning"
                                                        : "message";
  if (active != nullptr) network.journal.note(active->index, what, std::string(message));
}

void World::Impl::turn(std::uint64_t id, TimePoint at) {
  const auto found = loops.find(id);
  if (found == loops.end() || found->second.loop == nullptr) return;
  Host::Impl& host = *found->second.host;
  SimulatedLoop& loop = *found->second.loop;
  if (loop.engine->next_turn != at) return;
  loop.engine->next_turn = TimePoint::max();
  if (host.paused || loop.busy) {
    loop.missed = true;
    return;
  }
  loop.busy = true;
  Host::Impl* before = std::exchange(active, &host);
  const std::uint32_t outer = network.journal.enter_loop(static_cast<std::uint32_t>(id));
  if (drop != nullptr && !drop->marked.empty()) {
    loop.loop.turn_once_by(resume_counting, drop);
  } else {
    loop.loop.turn_once();
  }
  active = before;
  network.journal.enter_loop(outer);
  loop.busy = false;
  if (std::exchange(loop.missed, false)) want_turn(*loop.engine, network.now());
}

bool World::Impl::step() {
  bool stepped = false;
  {
    const Tapped tapped(*this);
    stepped = network.step();
    if (!invariants.empty() && !failure) check_invariants();
  }
  if (failure) throw_failed();
  if (++steps > bounds.most_steps) throw GivenUp();
  if (steps % 1024 == 0 && bounds.deadline != std::chrono::steady_clock::time_point::max() &&
      std::chrono::steady_clock::now() > bounds.deadline) {
    throw GivenUp();
  }
  return stepped;
}

void World::Impl::throw_failed() {
  const std::string text = std::exchange(failure, std::nullopt).value();
  throw Failure(text);
}

void World::Impl::check_invariants() {
  // One may add others.
  for (std::size_t i = 0; i < invariants.size(); ++i) {
    try {
      if (!invariants[i].holds()) fail(invariants[i].what + " does not hold");
    } catch (const Failure& failed) {  // of `World::check`: it has its report
      if (!failure) failure = failed.what();
    } catch (...) {
      fail(invariants[i].what + ": " + describe(std::current_exception()));
    }
  }
}

void World::Impl::end_process(Host::Impl& host, bool with_machine) {
  if (!host.running) return;
  if (!host.in_use()) {
    host.end_process(with_machine);
    return;
  }
  // It does nothing any more, and whoever waits inside of it waits no longer.
  Process* process = host.process.get();
  process->die(with_machine);
  network.schedule(after(network.now(), std::chrono::microseconds(1)),
                   [this, &host, process, with_machine] {
                     if (host.process.get() == process) end_process(host, with_machine);
                   });
}

std::string World::Impl::tell(const Record& record) {
  std::string text = record.what;
  if (!record.text.empty()) return text + " " + record.text;
  if (record.fd >= 0) text += " " + std::to_string(record.fd);
  return text + " " + std::to_string(record.value);
}

/// The tree of its tasks, as an inspector would show it.
std::string World::Impl::tell_tasks(const Host::Impl& host) {
  constexpr std::size_t kMostLines = 30;
  std::string text;
  std::size_t count = 0;
  for (const auto& loop : host.loops) {
    weir::detail::LoopReport report;
    (void)weir::detail::TaskSurvey(loop->loop).go_on(report, 1'000'000);
    for (const weir::detail::TaskLine& line : report.tasks) {
      if (count++ == kMostLines) return text + "\n      and more";
      text += "\n      " + std::string(2 * line.depth, ' ') + weir::detail::describe(line) +
              ", for " + in_seconds(std::chrono::milliseconds(line.waiting_ms));
    }
  }
  return text.empty() ? text : "\n    tasks:" + text;
}

std::string World::Impl::report(const std::string& what) const {
  const std::string seed = std::to_string(network.options().seed);
  std::string text = "weir: simulation failed: " + what + "\n  seed " + seed + ", virtual time " +
                     in_seconds(network.now() - start()) + "\n  to repeat it: ";
  if (drop != nullptr) text += "WEIR_SIM_DROP=" + std::to_string(drop->moment) + " ";
  text += "WEIR_SIM_SEED=" + seed + " " + program_invocation_short_name;
  if (drop != nullptr && drop->dropped) text += "\n  " + drop->where;
  if (network.chance.tape() != nullptr) text += tell_choices();
  for (const auto& one : hosts) {
    const Host::Impl& host = *one->impl_;
    text += "\n  host " + host.name + (host.name == host.address ? "" : " (" + host.address + ")");
    text += host.running ? host.paused ? ", paused" : "" : ", down";
    if (!host.tasks.empty()) {
      text += "\n    unfinished:";
      for (const auto& [number, task] : host.tasks) text += " " + task.name;
    }
    if (host.running) {
      if (const std::string waiting = host.process->descriptors.describe_waiting();
          !waiting.empty()) {
        text += "\n    waits for: " + waiting;
      }
    }
    if (host.running && !host.in_use()) text += tell_tasks(host);
    for (const Record& record : network.journal.history(host.index)) {
      text += "\n    " + in_seconds(record.at - start()) + "  " + tell(record);
    }
  }
  return text;
}

World::World(WorldOptions options) {
  const auto tape = tape_of_environment();
  if (!tape) {
    impl_ = std::make_unique<Impl>(with_seed_of_environment(options));
    return;
  }
  options.seed = tape->seed;
  impl_ = std::make_unique<Impl>(checked(options));
  impl_->tape = std::make_unique<Tape>(*tape);
  impl_->tape->heading = "as the tape says, chance does only this:";
  impl_->network.chance.use(impl_->tape.get());
}

World::~World() noexcept(false) {
  if (impl_->finished) return;
  try {
    finish();
  } catch (...) {
    if (std::uncaught_exceptions() == 0) throw;
  }
}

Host& World::add_host(std::string_view address, std::string_view name) {
  const std::string known_as(name.empty() ? address : name);
  for (const auto& host : impl_->hosts) {
    if (host->name() == known_as) {
      throw std::invalid_argument("weir: two simulated hosts have the name " + known_as);
    }
  }
  const std::size_t index = impl_->network.add_machine();
  impl_->hosts.push_back(std::unique_ptr<Host>(
      new Host(std::make_unique<Host::Impl>(*impl_, index, std::string(address), known_as))));
  Host& host = *impl_->hosts.back();
  host.add_address(address);
  host.impl_->boot();
  return host;
}

bool World::step() { return impl_->step(); }

void World::run_for(std::chrono::nanoseconds time) {
  const TimePoint end = after(impl_->network.now(), time);
  std::uint64_t steps = 0;
  while (impl_->network.next() <= end && impl_->step()) {
    if (++steps > impl_->network.options().most_steps) {
      impl_->give_up("no end after " + std::to_string(steps) + " events");
    }
  }
  impl_->network.advance_to(end);
}

bool World::run_until(const std::function<bool()>& condition, std::chrono::nanoseconds limit) {
  const TimePoint end = after(impl_->network.now(), limit);
  std::uint64_t steps = 0;
  while (!condition()) {
    if (impl_->network.empty()) {
      impl_->give_up(
          "deadlock: nothing is left to happen, and the condition of run_until does not hold");
    }
    if (impl_->network.next() > end) {
      impl_->network.advance_to(end);
      return false;
    }
    impl_->step();
    if (++steps > impl_->network.options().most_steps) {
      impl_->give_up("no end after " + std::to_string(steps) + " events");
    }
  }
  return true;
}

void World::run_until_idle() {
  std::uint64_t steps = 0;
  while (impl_->step()) {
    if (++steps > impl_->network.options().most_steps) {
      impl_->give_up("no end after " + std::to_string(steps) + " events");
    }
  }
}

void World::finish() {
  if (std::exchange(impl_->finished, true)) return;
  for (const auto& host : impl_->hosts) {
    if (host->impl_->running) host->impl_->end_process(false);
  }
  if (impl_->network.leases_left > 0) {
    impl_->fail(std::to_string(impl_->network.leases_left) +
                " leases (Chunk) have outlived their loop");
  }
  if (const std::int64_t left = live_frames() - impl_->frames; left > 0) {
    impl_->fail(std::to_string(left) + " coroutine frames or connections have outlived their host");
  }
  for (const std::string& path : impl_->trace_paths) impl_->write_trace(path);
  if (impl_->failure) impl_->throw_failed();
}

std::chrono::nanoseconds World::now() const noexcept {
  return impl_->network.now() - TimePoint(std::chrono::hours(1));
}

void World::at(std::chrono::nanoseconds time, std::function<void()> function) {
  impl_->network.schedule(after(TimePoint(std::chrono::hours(1)), time), std::move(function));
}

void World::at(std::chrono::nanoseconds time, Fault fault, Host& host, std::size_t times) {
  at(time, [this, fault, &host, times] { inject(fault, host, times); });
}

void World::inject(Fault fault, Host& host, std::size_t times) {
  impl_->network.chance.inject(fault, host.impl_->index, times);
}

std::uint64_t World::hits(Fault fault) const noexcept { return impl_->network.chance.hits(fault); }

void World::set_link(const Host& a, const Host& b, const Link& link) {
  set_one_way(a, b, link);
  set_one_way(b, a, link);
}

void World::set_one_way(const Host& from, const Host& to, const Link& link) {
  check_wire(link, "Link");
  impl_->network.links.set(from.impl_->index, to.impl_->index, link);
}

void World::partition(const Host& a, const Host& b) {
  partition_one_way(a, b);
  partition_one_way(b, a);
}

void World::partition_one_way(const Host& from, const Host& to) {
  impl_->network.cut(from.impl_->index, to.impl_->index);
}

void World::heal(const Host& a, const Host& b) {
  impl_->network.mend(a.impl_->index, b.impl_->index);
  impl_->network.mend(b.impl_->index, a.impl_->index);
}

void World::heal() {
  for (const auto& a : impl_->hosts) {
    for (const auto& b : impl_->hosts) {
      if (a != b) impl_->network.mend(a->impl_->index, b->impl_->index);
    }
  }
}

void World::keep(std::shared_ptr<void> object) { impl_->kept.push_back(std::move(object)); }
std::uint64_t World::random() noexcept {
  const std::uint64_t drawn = impl_->users.next();
  return impl_->network.chance.choose(ChoiceKind::number, 0, 0, drawn, 0);
}
std::uint64_t World::seed() const noexcept { return impl_->network.options().seed; }
std::uint64_t World::trace_hash() const noexcept { return impl_->network.journal.hash(); }

void World::check(bool condition, std::string_view what) {
  if (condition) return;
  impl_->fail(std::string(what));  // so that it counts, whoever catches what is thrown
  throw Failure(*impl_->failure);
}

void World::keep_checking(std::function<bool()> check, std::string_view what) {
  impl_->invariants.push_back({std::string(what), std::move(check)});
}

std::string World::report() const { return impl_->report("asked for a report"); }

}  // namespace weir::sim
