#include <weir/core/assert.h>
#include <weir/core/sleep.h>
#include <weir/core/work_queue.h>
#include <weir/coro/error.h>
#include <weir/io/kernel_names.h>
#include <weir/io/sim/kernel.h>
#include <weir/io/sim/world_impl.h>

#include <netdb.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace weir::sim {

SimulatedLoop& Host::Impl::add_loop(const LoopOptions& options) {
  const std::uint64_t id = world.next_loop++;
  auto engine = std::make_unique<SimulatedEngine>(world.network, *process, world, options);
  engine->loop = id;
  world.loops[id] = {this, nullptr};
  loops.push_back(std::make_unique<SimulatedLoop>(*this, std::move(engine), options));
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

std::unique_ptr<IoEngine> Host::Impl::make_engine(const LoopOptions& /*options*/) {
  throw std::logic_error(
      "weir: a simulated host has no loops but its World's: use TcpServer(EventLoop::current(), "
      "...) and start in place of run, and EventLoopThread for a further loop");
}

std::unique_ptr<weir::detail::LoopRunner> Host::Impl::start_loop(const LoopOptions& options) {
  /// The loop goes with its host, if that ends first.
  struct Runner final : weir::detail::LoopRunner {
    Runner(Impl& of, EventLoop& its) : host(of), own(its) {}
    ~Runner() override { host.end_loop(own); }
    EventLoop& loop() noexcept override { return own; }
    Impl& host;
    EventLoop& own;
  };
  return std::make_unique<Runner>(*this, add_loop(options).loop);
}

Task<bool> Host::Impl::start_successor(weir::detail::SuccessorCommand /*command*/) {
  throw std::logic_error("weir: a simulated host has no programs that it could hand over to");
}

/// Its only thread does it, when a free one would have done it: after a while.
void Host::Impl::start_work(weir::detail::WorkQueue& /*queue*/,
                            std::shared_ptr<weir::detail::Work> work) {
  constexpr std::uint64_t kLongest = 10'000'000;  // nanoseconds
  const std::chrono::nanoseconds delay(random() % kLongest);
  EventLoop::current().spawn([work = std::move(work), delay]() -> Task<> {
    co_await sleep(delay);
    work->run();
  });
}

/// It knows the names of hosts, and ports by number.
Task<std::vector<RawAddress>> Host::Impl::look_up(weir::detail::NameQuery query) {
  const std::string text = "weir: cannot resolve \"" + query.name + '"';
  std::uint16_t port = 0;
  const char* end = query.service.data() + query.service.size();
  const auto parsed = std::from_chars(query.service.data(), end, port);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    throw std::system_error(EAI_SERVICE, weir::detail::resolver_category(), text);
  }
  std::vector<RawAddress> found = addresses_of(query.host);
  if (found.empty()) throw std::system_error(errc::not_found, text);
  for (RawAddress& raw : found) {
    Address with_port = *Address::from(raw);
    with_port.port = port;
    raw = with_port.raw();
  }
  co_return found;
}

std::vector<RawAddress> Host::Impl::addresses_of(std::string_view host) const {
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
  world.network.journal.trace(index, "start of the process", -1, 0);
}

void Host::Impl::end_process(bool with_machine) {
  Impl* before = std::exchange(world.active, this);
  const World::Impl::Tapped tapped(world);
  running = false;
  world.network.journal.trace(index, with_machine ? "crash" : "end of the process", -1, 0);
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
  while (!tasks.empty()) end_task(tasks.begin()->first);
  if (process->descriptors.open_count() > 0) {
    world.fail("host " + name + " left descriptors open: " + process->descriptors.describe_open());
  }
  world.dead.push_back(std::move(process));
  world.active = before;
}

/// The first of those that have ended are remembered, or all of them for a trace.
void Host::Impl::end_task(std::uint64_t number) noexcept {
  constexpr std::size_t kMostRemembered = 1000;
  const auto found = tasks.find(number);
  if (found == tasks.end()) return;
  if (world.ended_tasks.size() < kMostRemembered || !world.trace_paths.empty()) {
    world.ended_tasks.push_back({index, std::move(found->second), world.network.now()});
  }
  tasks.erase(found);
}

Task<> Host::Impl::watch(Impl& host, std::uint64_t number, Task<> task) {
  struct Ended {
    Impl& host;
    std::uint64_t number;
    ~Ended() { host.end_task(number); }
  };
  const Ended ended{host, number};
  try {
    co_await std::move(task);
  } catch (const Failure& failure) {  // of `World::check`: it has its report
    if (!host.world.failure) host.world.failure = failure.what();
  } catch (...) {
    host.world.fail("task \"" + host.tasks[number].name + "\" of host " + host.name + ": " +
                    describe(std::current_exception()));
  }
}

Host::Host(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Host::~Host() = default;

void Host::start(Task<> task, std::string name) {
  if (!impl_->running) throw std::logic_error("weir: host " + impl_->name + " does not run");
  const std::uint64_t number = impl_->next_task++;
  impl_->tasks[number] = {std::move(name), impl_->world.network.now()};
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
  impl_->world.network.journal.trace(impl_->index, "signal", -1, signal);
  if (impl_->process->signals.deliver(signal)) return;
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
  impl_->world.network.journal.trace(impl_->index, "pause", -1, 0);
}

void Host::resume() {
  if (!std::exchange(impl_->paused, false)) return;
  impl_->world.network.journal.trace(impl_->index, "resume", -1, 0);
  for (const auto& loop : impl_->loops) {
    if (!loop->busy && std::exchange(loop->missed, false)) {
      impl_->world.want_turn(*loop->engine, impl_->world.network.now());
    }
  }
}

bool Host::running() const noexcept { return impl_->running; }

void Host::set_descriptor_limit(std::size_t limit) {
  impl_->descriptor_limit = limit;
  if (impl_->running) impl_->process->descriptors.set_limit(limit);
}

std::size_t Host::open_descriptors() const noexcept {
  return impl_->running ? impl_->process->descriptors.open_count() : 0;
}

std::size_t Host::unfinished() const noexcept { return impl_->tasks.size(); }

}  // namespace weir::sim
