#include "simulation.h"

#include <weir/io/sim/engine.h>
#include <weir/io/sim/kernel.h>
#include <weir/io/sim/network.h>
#include <weir/sim.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "net.h"

namespace weir::test {
namespace {

/// What a turn takes in which all arrives that is on its way over the simulated loopback.
constexpr Duration kTurn = 100us;
/// A thread that yields looks again after this.
constexpr Duration kYield = 1us;

/// As much as the kernels' loopback lets a sender leave behind.
constexpr std::size_t kBuffer = 1 << 20;
constexpr std::size_t kDescriptors = 20'000;

constinit thread_local TestMachine* simulated = nullptr;

/// A world without faults.
sim::WorldOptions plain_world() {
  return {
      .seed = 1, .send_buffer = kBuffer, .receive_buffer = kBuffer, .descriptors = kDescriptors};
}

/// What a thread ends with whose call cannot come to an end.
struct Abandoned {};

}  // namespace

TestMachine* simulated_machine() noexcept { return simulated; }

/// A thread that has the baton or waits for it.
class SimulatedMachine::Thread final : public Running {
 public:
  Thread(SimulatedMachine& machine, std::function<void()> function)
      : machine_(machine), thread_([this, function = std::move(function)] {
          go_.acquire();
          simulated = &machine_;
          self_ = this;
          try {
            if (!abandoned_) function();
          } catch (const Abandoned&) {
          }
          done_ = true;
          back_.release();
        }) {
    machine_.threads_.push_back(this);
  }
  ~Thread() override {
    try {
      if (!machine_.wait_until([this] { return done_; })) abandoned_ = true;
    } catch (...) {  // the world came to an end
      abandoned_ = true;
    }
    if (!done_) resume();
    std::erase(machine_.threads_, this);
    thread_.join();
  }

  /// The one that calls; nullptr on the thread of the world.
  static Thread* current() noexcept { return self_; }

  /// On the thread itself: gives the baton away until the condition holds.
  bool pause(std::function<bool()> condition, TimePoint until) {
    if (abandoned_) throw Abandoned();
    wanted_ = std::move(condition);
    until_ = until;
    in_vain_ = false;
    back_.release();
    go_.acquire();
    if (abandoned_) throw Abandoned();
    return !in_vain_;
  }

  [[nodiscard]] bool done() const noexcept { return done_; }
  [[nodiscard]] bool ready() {
    if (done_) return false;
    if (!wanted_ || wanted_()) return true;
    in_vain_ = machine_.time() >= until_;
    return in_vain_;
  }
  void give_up() noexcept { in_vain_ = true; }

  /// Gives it the baton until it waits or ends.
  void resume() {
    go_.release();
    back_.acquire();
  }

 private:
  static constinit thread_local Thread* self_;

  SimulatedMachine& machine_;
  std::function<bool()> wanted_;
  TimePoint until_{};
  bool in_vain_ = false;
  bool abandoned_ = false;
  bool done_ = false;
  std::binary_semaphore go_{0};
  std::binary_semaphore back_{0};
  std::thread thread_;  // uses the others
};

constinit thread_local SimulatedMachine::Thread* SimulatedMachine::Thread::self_ = nullptr;

SimulatedMachine::SimulatedMachine(sim::detail::Process& process)
    : process_(process), outer_(std::exchange(simulated, this)) {}

SimulatedMachine::~SimulatedMachine() { simulated = outer_; }

bool SimulatedMachine::advance() {
  const bool stepped = step();
  bool resumed = false;
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    if (!threads_[i]->ready()) continue;
    threads_[i]->resume();
    resumed = true;
  }
  if (stepped || resumed) return true;
  // Nothing happens any more before somebody's patience is over.
  const auto waiting = std::find_if(threads_.begin(), threads_.end(),
                                    [](const Thread* thread) { return !thread->done(); });
  if (waiting == threads_.end()) return false;
  (*waiting)->give_up();
  (*waiting)->resume();
  return true;
}

void SimulatedMachine::check_thread() const {
  if (simulated == this) return;
  throw std::logic_error("on the simulation a thread of a test's own must be a test::Thread");
}

bool SimulatedMachine::wait_until(std::function<bool()> condition) {
  if (condition()) return true;
  const TimePoint end = time() + kPatience;
  if (Thread* thread = Thread::current()) return thread->pause(std::move(condition), end);
  do {
    if (time() >= end || !advance()) return false;
  } while (!condition());
  return true;
}

std::unique_ptr<TestMachine::Running> SimulatedMachine::start_thread(
    std::function<void()> function) {
  return std::make_unique<Thread>(*this, std::move(function));
}

void SimulatedMachine::yield() {
  (void)wait_until([this, then = time() + kYield] { return time() >= then; });
}

Duration SimulatedMachine::turn() const noexcept { return kTurn; }

void SimulatedMachine::deny_descriptors(bool denied) {
  process_.descriptors.set_limit(denied ? process_.descriptors.open_count() : kDescriptors);
}

int SimulatedMachine::connect(const SocketAddress& address, int buffer_bytes) {
  check_thread();
  const int fd = process_.sockets.open(address.family());
  if (fd < 0) return fd;
  const auto endpoint = process_.descriptors.find(fd)->endpoint;
  if (buffer_bytes > 0) {
    process_.sockets.set(fd, Sockets::Option::receive_buffer, buffer_bytes);
    process_.sockets.set(fd, Sockets::Option::send_buffer, buffer_bytes);
  }
  int result = process_.sockets.connect(fd, address.raw());
  if (result == -EINPROGRESS) {
    const auto settled = [endpoint] {
      return endpoint->state != sim::detail::Endpoint::State::connecting;
    };
    result = wait_until(settled) ? -process_.sockets.take_error(fd) : -ETIMEDOUT;
  }
  if (result == 0) return fd;
  process_.close(fd);
  return result;
}

std::int64_t SimulatedMachine::send(int fd, std::string_view bytes, bool waits) {
  using State = sim::detail::Endpoint::State;
  check_thread();
  const auto endpoint = process_.descriptors.find(fd)->endpoint;
  const auto ready = [endpoint] {
    return endpoint->state != State::open || endpoint->fin_queued || endpoint->room() > 0;
  };
  if (waits ? !wait_until(ready) : !ready()) return -EAGAIN;
  if (endpoint->error != 0) return -std::exchange(endpoint->error, 0);
  if (endpoint->state != State::open || endpoint->fin_queued) return -EPIPE;
  const std::size_t count = std::min(bytes.size(), endpoint->room());
  endpoint->write(reinterpret_cast<const std::byte*>(bytes.data()), count);
  endpoint->pump();
  return static_cast<std::int64_t>(count);
}

std::int64_t SimulatedMachine::receive(int fd, std::span<char> into, bool waits) {
  check_thread();
  const auto endpoint = process_.descriptors.find(fd)->endpoint;
  const auto ready = [endpoint] {
    return endpoint->unread() > 0 || endpoint->error != 0 || endpoint->fin_received ||
           endpoint->state != sim::detail::Endpoint::State::open;
  };
  if (waits ? !wait_until(ready) : !ready()) return -EAGAIN;
  const std::size_t count = std::min(into.size(), endpoint->unread());
  if (count == 0) return endpoint->end_of_input();
  endpoint->read(reinterpret_cast<std::byte*>(into.data()), count);
  return static_cast<std::int64_t>(count);
}

std::uint32_t SimulatedMachine::look_at(int fd) {
  return process_.descriptors.find(fd)->endpoint->events();
}

std::uint64_t SimulatedMachine::arrived(int fd) {
  return process_.descriptors.find(fd)->endpoint->received();
}

// ---- engines ------------------------------------------------------------------------------------

struct SimulatedNetwork::State final : sim::detail::SimulatedEngine::Driver {
  void want_turn(sim::detail::SimulatedEngine& /*engine*/, TimePoint at) override {
    if (at < TimePoint::max()) network.schedule(at, [] {});  // `wait` looks then
  }

  sim::detail::Network network{plain_world()};
  sim::detail::Process process{network, network.kernel(network.add_machine()), kDescriptors};
};

SimulatedNetwork::SimulatedNetwork() : SimulatedNetwork(std::make_unique<State>()) {}

SimulatedNetwork::SimulatedNetwork(std::unique_ptr<State> state)
    : SimulatedMachine(state->process), state_(std::move(state)) {}

SimulatedNetwork::~SimulatedNetwork() {
  CHECK(open_descriptors() == 0);
  state_->process.die(false);
}

std::unique_ptr<IoEngine> SimulatedNetwork::make_engine(const LoopOptions& options) {
  auto engine = std::make_unique<sim::detail::SimulatedEngine>(state_->network, state_->process,
                                                               *state_, options);
  engine->let_block();
  return engine;
}

void SimulatedNetwork::pass(Duration time) {
  const TimePoint end = state_->network.now() + time;
  state_->network.schedule(end, [] {});
  while (state_->network.now() < end) advance();
}

bool SimulatedNetwork::step() { return state_->network.step(); }
TimePoint SimulatedNetwork::time() const { return state_->process.now(); }

// ---- bodies -------------------------------------------------------------------------------------

namespace {

/// The host of a world of its own.
class SimulatedHost final : public SimulatedMachine {
 public:
  explicit SimulatedHost(sim::World& world)
      : SimulatedHost(world, world.add_host("10.0.0.1", "here")) {}

  void run(const std::function<Task<>()>& body, const LoopOptions& options) {
    auto runner = host_.loop().machine().start_loop(options);
    EventLoop& loop = runner->loop();
    std::exception_ptr failure;
    bool done = false;
    loop.spawn(finish(body(), failure, done));
    try {
      while (!done) {
        if (!advance()) throw std::runtime_error("nothing is left to happen");
      }
    } catch (...) {
      if (failure == nullptr) failure = std::current_exception();
    }
    if (failure != nullptr) MESSAGE(world_.report());
    runner.reset();
    if (failure != nullptr) std::rethrow_exception(failure);
    world_.finish();
  }

 private:
  SimulatedHost(sim::World& world, sim::Host& host)
      : SimulatedMachine(
            static_cast<sim::detail::SimulatedSockets&>(host.loop().sockets()).process()),
        world_(world),
        host_(host) {}

  bool step() override { return world_.step(); }
  [[nodiscard]] TimePoint time() const override { return host_.loop().machine().now(); }

  static Task<> finish(Task<> body, std::exception_ptr& failure, bool& done) {
    try {
      co_await timeout(kPatience, std::move(body));
    } catch (...) {
      failure = std::current_exception();
    }
    done = true;
  }

  sim::World& world_;
  sim::Host& host_;
};

}  // namespace

void on_simulation(const std::function<Task<>()>& body, LoopOptions options) {
  INFO("engine: simulation");
  sim::World world(plain_world());
  SimulatedHost(world).run(body, options);
}

}  // namespace weir::test
