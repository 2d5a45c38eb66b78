#include <weir/core/engine.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

/// An engine of which every second operation of some kinds ends with EINTR, as by a signal.
class InterruptedEngine final : public IoEngine {
 public:
  InterruptedEngine(std::unique_ptr<IoEngine> engine, std::vector<OperationKind> kinds)
      : engine_(std::move(engine)), kinds_(std::move(kinds)) {}

  [[nodiscard]] std::string_view name() const noexcept override { return engine_->name(); }
  void attach() override { engine_->attach(); }
  void abandon() noexcept override { engine_->abandon(); }
  void submit(Operation& operation) noexcept override {
    const bool mine = std::find(kinds_.begin(), kinds_.end(), operation.kind) != kinds_.end();
    if (!mine || (interrupts_ = !interrupts_) == false) {
      engine_->submit(operation);
      return;
    }
    operation.state = Operation::State::waiting;
    interrupted_.push_back(operation);
  }
  void cancel(Operation& operation) noexcept override {
    for (Operation* mine = interrupted_.front(); mine != nullptr;
         mine = interrupted_.after(*mine)) {
      if (mine == &operation) return;  // it ends anyway
    }
    engine_->cancel(operation);
  }
  void wait(TimePoint deadline) override {
    const bool any = !interrupted_.empty();
    while (Operation* operation = interrupted_.pop_front()) {
      operation->state = Operation::State::idle;
      ++interruptions;
      operation->on_complete(*operation, {-EINTR, 0, nullptr});
    }
    engine_->wait(any ? TimePoint::min() : deadline);
  }
  void wake() noexcept override { engine_->wake(); }
  [[nodiscard]] bool idle() const noexcept override {
    return interrupted_.empty() && engine_->idle();
  }
  void add_metrics(Metrics& metrics) const noexcept override { engine_->add_metrics(metrics); }

  static inline int interruptions = 0;

 private:
  std::unique_ptr<IoEngine> engine_;
  const std::vector<OperationKind> kinds_;
  List<Operation> interrupted_;
  bool interrupts_ = false;
};

/// Runs the scene on a loop of each engine where every second operation of these kinds ends so.
void on_interrupted_engines(const std::vector<OperationKind>& kinds,
                            const std::function<Task<>()>& scene) {
  for_each_engine([&](Engine engine) {
    LoopOptions options;
    options.engine = engine;
    weir::detail::Machine& machine = weir::detail::process_machine();
    EventLoop loop(options, machine,
                   std::make_unique<InterruptedEngine>(machine.make_engine(options), kinds));
    InterruptedEngine::interruptions = 0;
    loop.run_until_complete(scene());
    CHECK(InterruptedEngine::interruptions >= 3);
  });
}

}  // namespace

TEST_CASE("a send that is interrupted goes on") {
  on_interrupted_engines({OperationKind::send}, []() -> Task<> {
    auto [a, b] = link_pair();
    for (const std::size_t size : {64UL, 3'000'000UL, 64UL}) {
      const auto send = [](TcpConnection& to, std::size_t count) -> Task<> {
        std::string message = pattern(count);
        co_await to.send(std::move(message));
        co_await to.send("end");
        co_await to.flush();
      };
      TaskGroup group;
      group.spawn(send(a, size));
      const Chunk chunk = co_await b.read_exactly(size + 3);
      CHECK(matching(chunk.view().substr(0, size), 1, 0) == size);
      co_await group.join();
    }
  });
}

TEST_CASE("a receive that is interrupted goes on, a usual one and one in bulk") {
  on_interrupted_engines({OperationKind::receive, OperationKind::receive_into}, []() -> Task<> {
    auto [a, b] = link_pair();
    const auto send = [](TcpConnection& to, std::size_t count) -> Task<> {
      std::string message = pattern(count);
      co_await to.send(std::move(message));
    };
    const auto receive = [](TcpConnection& from, std::size_t count) -> Task<> {
      for (std::size_t got = 0; got < count;) {
        const Chunk chunk = co_await from.read();
        REQUIRE(chunk);
        REQUIRE(matching(chunk.view(), 1, got) == chunk.size());
        got += chunk.size();
      }
    };
    for (const std::size_t size : {64UL, 8'000'000UL, 64UL}) {
      co_await when_all(send(a, size), receive(b, size));
    }
    // An end that is read behind an interruption is no error either.
    co_await a.shutdown();
    const Chunk end = co_await b.read();
    CHECK_FALSE(end);
  });
}
