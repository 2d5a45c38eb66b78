#include <weir/core/assert.h>
#include <weir/core/log.h>
#include <weir/coro/frame_allocator.h>
#include <weir/io/sim/network.h>
#include <weir/io/sim/simulated_engine.h>
#include <weir/io/sim/world.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <optional>
#include <system_error>

namespace weir::sim {
namespace {

/// The number in an environment variable.
std::optional<std::uint64_t> number_from(const char* variable) {
  const char* text = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe)
  if (text == nullptr || *text == '\0') return std::nullopt;
  const std::string_view value(text);
  std::uint64_t number = 0;
  const auto parsed = std::from_chars(value.data(), value.data() + value.size(), number);
  if (parsed.ec != std::errc() || parsed.ptr != value.data() + value.size()) {
    throw std::invalid_argument("weir: " + std::string(variable) + " is \"" + std::string(value) +
                                "\"; it must be a number");
  }
  return number;
}

std::string in_seconds(Duration time) {
  char text[64];
  std::snprintf(text, sizeof text, "%.9f s", std::chrono::duration<double>(time).count());
  return text;
}

std::string describe(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& exception) {
    return exception.what();
  } catch (...) {
    return "an exception of unknown type";
  }
}

WorldOptions with_seed_of_environment(WorldOptions options) {
  if (const auto seed = number_from("WEIR_SIM_SEED")) options.seed = *seed;
  if (options.first_port == 0 || options.first_port > options.last_port) {
    throw std::invalid_argument("weir: WorldOptions::first_port is " +
                                std::to_string(options.first_port) + ", last_port " +
                                std::to_string(options.last_port) + "; there must be a port");
  }
  return options;
}

}  // namespace

/// A loop of a host, with the engine that it runs on.
struct SimulatedLoop {
  SimulatedLoop(std::unique_ptr<SimulatedEngine> with, const LoopOptions& options)
      : engine(with.get()), loop(options, std::move(with)) {}

  SimulatedEngine* engine;  // the loop's
  EventLoop loop;
  bool busy = false;    // in a turn, or being destroyed
  bool missed = false;  // a turn was due meanwhile
};

struct Host::Impl final : Machine {
  Impl(World::Impl& of, std::size_t at, std::string where, std::string what)
      : world(of), index(at), address(std::move(where)), name(std::move(what)) {}

  EventLoop& start_loop(const LoopOptions& options) override { return add_loop(options).loop; }
  void end_loop(EventLoop& loop) noexcept override;
  std::vector<RawAddress> look_up(std::string_view host) override;

  SimulatedLoop& add_loop(const LoopOptions& options);
  void boot();
  void end_process(bool with_machine);
  void destroy(std::unique_ptr<SimulatedLoop> own) noexcept;
  static Task<> watch(Impl& host, std::uint64_t number, Task<> task);
  [[nodiscard]] bool in_use() const noexcept {
    return std::any_of(loops.begin(), loops.end(), [](const auto& loop) { return loop->busy; });
  }

  World::Impl& world;
  std::size_t index;
  std::string address;
  std::string name;
  std::unique_ptr<Process> process;
  std::vector<std::unique_ptr<SimulatedLoop>> loops;  // the main one first
  std::function<Task<>()> main;
  std::map<std::uint64_t, std::string> tasks;  // that have not ended
  std::uint64_t next_task = 0;
  std::optional<std::size_t> descriptor_limit;
  bool running = false;
  bool paused = false;
};

struct World::Impl final : SimulatedEngine::Driver, log::Tap {
  /// While it lives the messages of the library go into the history of the host that runs.
  struct Tapped {
    explicit Tapped(Impl& world) noexcept : before(log::set_thread_tap(&world)) {}
    Tapped(const Tapped&) = delete;
    Tapped& operator=(const Tapped&) = delete;
    ~Tapped() { log::set_thread_tap(before); }
    log::Tap* before;
  };

  explicit Impl(const WorldOptions& options)
      : network(options), users(network.seed_of(7)), frames(live_frames()) {}

  void want_turn(SimulatedEngine& engine, TimePoint at) override {
    if (at >= engine.next_turn) return;
    at = std::max(at, network.now());
    engine.next_turn = at;
    network.schedule(at, [this, id = engine.loop, at] { turn(id, at); });
  }
  Machine& machine_of(SimulatedEngine& engine) noexcept override {
    return *loops.at(engine.loop).host;
  }
  void take(log::Level level, std::string_view message) noexcept override {
    const char* what = level == log::Level::error     ? "error"
                       : level == log::Level::warning ? "warning"
                                                      : "message";
    if (active != nullptr) network.note(active->index, what, std::string(message));
  }

  void turn(std::uint64_t id, TimePoint at) {
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
    loop.loop.turn_once();
    active = before;
    loop.busy = false;
    if (std::exchange(loop.missed, false)) want_turn(*loop.engine, network.now());
  }

  bool step() {
    bool stepped = false;
    {
      const Tapped tapped(*this);
      stepped = network.step();
    }
    if (failure) {
      const std::string text = std::exchange(failure, std::nullopt).value();
      throw Failure(text);
    }
    return stepped;
  }

  void fail(const std::string& what) {
    if (!failure) failure = report(what);
  }

  /// Now, or, if the host's own code asks for it, when its turn is over.
  void end_process(Host::Impl& host, bool with_machine) {
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

  [[nodiscard]] std::string report(const std::string& what) const;

  Network network;
  Random users;
  std::int64_t frames;
  std::vector<std::unique_ptr<Host>> hosts;
  std::vector<std::unique_ptr<Process>> dead;  // what they had open may still refer to them
  struct Owned {
    Host::Impl* host;
    SimulatedLoop* loop;
  };
  std::map<std::uint64_t, Owned> loops;  // those that are being destroyed as well
  std::uint64_t next_loop = 1;
  Host::Impl* active = nullptr;
  std::optional<std::string> failure;
  bool finished = false;
  std::vector<std::shared_ptr<void>> kept;  // may refer to all of the above
};

std::string World::Impl::report(const std::string& what) const {
  const TimePoint start(std::chrono::hours(1));
  std::string text = "weir: simulation failed: " + what + "\n  seed " +
                     std::to_string(network.options().seed) + ", virtual time " +
                     in_seconds(network.now() - start) +
                     "\n  to repeat it: WEIR_SIM_SEED=" + std::to_string(network.options().seed) +
                     " " + program_invocation_short_name;
  for (const auto& one : hosts) {
    const Host::Impl& host = *one->impl_;
    text += "\n  host " + host.name + (host.name == host.address ? "" : " (" + host.address + ")");
    text += host.running ? host.paused ? ", paused" : "" : ", down";
    if (!host.tasks.empty()) {
      text += "\n    unfinished:";
      for (const auto& [number, name] : host.tasks) text += " " + name;
    }
    if (host.running) {
      if (const std::string waiting = host.process->describe_waiting(); !waiting.empty()) {
        text += "\n    waits for: " + waiting;
      }
    }
    for (const Record& record : network.history(host.index)) {
      text += "\n    " + in_seconds(record.at - start) + "  " + record.what;
      if (!record.text.empty()) {
        text += " " + record.text;
        continue;
      }
      if (record.fd >= 0) text += " " + std::to_string(record.fd);
      text += " " + std::to_string(record.value);
    }
  }
  return text;
}

// ---- hosts --------------------------------------------------------------------------------------

SimulatedLoop& Host::Impl::add_loop(const LoopOptions& options) {
  const std::uint64_t id = world.next_loop++;
  auto engine = std::make_unique<SimulatedEngine>(world.network, *process, world, options,
                                                  world.network.seed_of(1000 + id));
  engine->loop = id;
  world.loops[id] = {this, nullptr};
  loops.push_back(std::make_unique<SimulatedLoop>(std::move(engine), options));
  SimulatedLoop& loop = *loops.back();
  world.loops[id].loop = &loop;
  world.want_turn(*loop.engine, world.network.now());
  return loop;
}

void Host::Impl::end_loop(EventLoop& loop) noexcept {
  const auto found = std::find_if(loops.begin(), loops.end(),
                                  [&](const auto& own) { return &own->loop == &loop; });
  if (found == loops.end()) return;
  WEIR_ASSERT(!(*found)->busy);  // a loop does not end inside of its own turn
  std::unique_ptr<SimulatedLoop> own = std::move(*found);
  loops.erase(found);
  destroy(std::move(own));
}

void Host::Impl::destroy(std::unique_ptr<SimulatedLoop> own) noexcept {
  const std::uint64_t id = own->engine->loop;
  own->busy = true;
  // Where the process lives on, what is under way is finished first, as a thread would.
  if (!process->dead()) own->engine->let_block();
  own.reset();
  world.loops.erase(id);
}

std::vector<RawAddress> Host::Impl::look_up(std::string_view host) {
  std::vector<RawAddress> found;
  if (host == "localhost") {
    found.push_back(Address::parse("127.0.0.1")->raw());
    found.push_back(Address::parse("::1")->raw());
    return found;
  }
  for (const auto& other : world.hosts) {
    if (other->impl_->name != host && other->impl_->address != host) continue;
    for (const Address& own : world.network.kernel(other->impl_->index).addresses) {
      found.push_back(own.raw());
    }
  }
  return found;
}

void Host::Impl::boot() {
  running = true;
  paused = false;
  const std::size_t limit = descriptor_limit.value_or(world.network.options().descriptors);
  process = std::make_unique<Process>(world.network, world.network.kernel(index), limit);
  LoopOptions options;
  options.name = name;
  add_loop(options);
  world.network.trace(index, "start of the process", -1, 0);
}

void Host::Impl::end_process(bool with_machine) {
  Impl* before = std::exchange(world.active, this);
  const World::Impl::Tapped tapped(world);
  running = false;
  world.network.trace(index, with_machine ? "crash" : "end of the process", -1, 0);
  process->die(with_machine);
  if (with_machine) {
    world.network.kernel(index).power(false);
    world.network.probe_later(index);
  }
  while (!loops.empty()) {
    std::unique_ptr<SimulatedLoop> own = std::move(loops.front());
    loops.erase(loops.begin());
    destroy(std::move(own));
  }
  tasks.clear();
  if (process->open_count() > 0) {
    world.fail("host " + name + " left descriptors open: " + process->describe_open());
  }
  world.dead.push_back(std::move(process));
  world.active = before;
}

Task<> Host::Impl::watch(Impl& host, std::uint64_t number, Task<> task) {
  struct Ended {
    Impl& host;
    std::uint64_t number;
    ~Ended() { host.tasks.erase(number); }
  };
  const Ended ended{host, number};
  try {
    co_await std::move(task);
  } catch (const Failure& failure) {  // of `World::check`: it has its report
    if (!host.world.failure) host.world.failure = failure.what();
  } catch (...) {
    host.world.fail("task \"" + host.tasks[number] + "\" of host " + host.name + ": " +
                    describe(std::current_exception()));
  }
}

Host::Host(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Host::~Host() = default;

void Host::start(Task<> task, std::string name) {
  if (!impl_->running) throw std::logic_error("weir: host " + impl_->name + " does not run");
  const std::uint64_t number = impl_->next_task++;
  impl_->tasks[number] = std::move(name);
  loop().spawn(Impl::watch(*impl_, number, std::move(task)));
}

void Host::run(std::function<Task<>()> main) {
  impl_->main = std::move(main);
  if (impl_->running) start(impl_->main(), "main");
}

EventLoop& Host::loop() const {
  if (impl_->loops.empty()) {
    throw std::logic_error("weir: host " + impl_->name + " does not run");
  }
  return impl_->loops.front()->loop;
}

const std::string& Host::address() const noexcept { return impl_->address; }
const std::string& Host::name() const noexcept { return impl_->name; }

void Host::add_address(std::string_view address) {
  const auto parsed = Address::parse(address);
  if (!parsed || parsed->is_any() || parsed->is_loopback()) {
    throw std::invalid_argument("weir: \"" + std::string(address) +
                                "\" is no address for a simulated host (10.0.0.1, fd00::1)");
  }
  if (impl_->world.network.is_taken(*parsed)) {
    throw std::invalid_argument("weir: two simulated hosts have the address " +
                                std::string(address));
  }
  impl_->world.network.kernel(impl_->index).addresses.push_back(*parsed);
}

void Host::raise(int signal) {
  if (!impl_->running) return;
  impl_->world.network.trace(impl_->index, "signal", -1, signal);
  if (impl_->process->deliver_signal(signal)) return;
  if (signal == SIGCHLD || signal == SIGURG || signal == SIGWINCH || signal == SIGCONT) return;
  kill();
}

void Host::kill() { impl_->world.end_process(*impl_, false); }
void Host::crash() { impl_->world.end_process(*impl_, true); }

void Host::restart() {
  if (impl_->in_use()) {
    throw std::logic_error("weir: a host cannot restart itself from its own task; use World::at");
  }
  kill();
  impl_->world.network.kernel(impl_->index).power(true);
  impl_->boot();
  if (impl_->main) start(impl_->main(), "main");
}

void Host::pause() {
  impl_->paused = true;
  impl_->world.network.trace(impl_->index, "pause", -1, 0);
}

void Host::resume() {
  if (!std::exchange(impl_->paused, false)) return;
  impl_->world.network.trace(impl_->index, "resume", -1, 0);
  for (const auto& loop : impl_->loops) {
    if (!loop->busy && std::exchange(loop->missed, false)) {
      impl_->world.want_turn(*loop->engine, impl_->world.network.now());
    }
  }
}

bool Host::running() const noexcept { return impl_->running; }

void Host::set_descriptor_limit(std::size_t limit) {
  impl_->descriptor_limit = limit;
  if (impl_->running) impl_->process->set_limit(limit);
}

std::size_t Host::open_descriptors() const noexcept {
  return impl_->running ? impl_->process->open_count() : 0;
}

std::size_t Host::unfinished() const noexcept { return impl_->tasks.size(); }

// ---- the world ----------------------------------------------------------------------------------

World::World(WorldOptions options)
    : impl_(std::make_unique<Impl>(with_seed_of_environment(options))) {}

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
      throw Failure(impl_->report("no end after " + std::to_string(steps) + " events"));
    }
  }
  impl_->network.advance_to(end);
}

bool World::run_until(const std::function<bool()>& condition, std::chrono::nanoseconds limit) {
  const TimePoint end = after(impl_->network.now(), limit);
  std::uint64_t steps = 0;
  while (!condition()) {
    if (impl_->network.empty()) {
      throw Failure(
          impl_->report("deadlock: nothing is left to happen, and the condition of "
                        "run_until does not hold"));
    }
    if (impl_->network.next() > end) {
      impl_->network.advance_to(end);
      return false;
    }
    impl_->step();
    if (++steps > impl_->network.options().most_steps) {
      throw Failure(impl_->report("no end after " + std::to_string(steps) + " events"));
    }
  }
  return true;
}

void World::run_until_idle() {
  std::uint64_t steps = 0;
  while (impl_->step()) {
    if (++steps > impl_->network.options().most_steps) {
      throw Failure(impl_->report("no end after " + std::to_string(steps) + " events"));
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
  if (impl_->failure) throw Failure(std::exchange(impl_->failure, std::nullopt).value());
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
  impl_->network.inject(fault, host.impl_->index, times);
}

std::uint64_t World::hits(Fault fault) const noexcept { return impl_->network.hits(fault); }

void World::set_link(const Host& a, const Host& b, const Link& link) {
  set_one_way(a, b, link);
  set_one_way(b, a, link);
}

void World::set_one_way(const Host& from, const Host& to, const Link& link) {
  impl_->network.set_link(from.impl_->index, to.impl_->index, link);
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
std::uint64_t World::random() noexcept { return impl_->users.next(); }
std::uint64_t World::seed() const noexcept { return impl_->network.options().seed; }
std::uint64_t World::trace_hash() const noexcept { return impl_->network.hash(); }

void World::check(bool condition, std::string_view what) {
  if (condition) return;
  impl_->fail(std::string(what));  // so that it counts, whoever catches what is thrown
  throw Failure(*impl_->failure);
}

std::string World::report() const { return impl_->report("asked for a report"); }

// ---- many seeds ---------------------------------------------------------------------------------

std::string Exploration::text() const {
  std::string text;
  for (const Failed& failed : failures) text += failed.text + "\n";
  return text;
}

Exploration explore(const ExploreOptions& options, const std::function<void(World&)>& scenario) {
  Exploration result;
  std::uint64_t first = options.first;
  std::uint64_t count = number_from("WEIR_SIM_SEEDS").value_or(options.count);
  if (const auto only = number_from("WEIR_SIM_SEED")) {
    first = *only;
    count = 1;
  }
  const bool shows = ::isatty(STDERR_FILENO) == 1;
  for (std::uint64_t i = 0; i < count && result.failures.size() < options.most_failures; ++i) {
    WorldOptions world_options = options.world;
    world_options.seed = first + i;
    std::uint64_t hash = 0;
    try {
      World world(world_options);
      try {
        scenario(world);
      } catch (const Failure&) {
        throw;
      } catch (...) {
        throw Failure(world.impl_->report(describe(std::current_exception())));
      }
      hash = world.trace_hash();
      world.finish();
    } catch (const Failure& failure) {
      result.failures.push_back({first + i, failure.what()});
    }
    ++result.runs;
    result.hash = (result.hash ^ hash) * 0x9e3779b97f4a7c15;
    if (shows && (i % 64 == 0 || i + 1 == count)) {
      const std::string line = "\r" + std::string(options.name) + ": " + std::to_string(i + 1) +
                               " of " + std::to_string(count) + " seeds, " +
                               std::to_string(result.failures.size()) + " failed" +
                               (i + 1 == count ? "\n" : "");
      std::fputs(line.c_str(), stderr);
    }
  }
  return result;
}

}  // namespace weir::sim
