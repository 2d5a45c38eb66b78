#include <weir/core/event_loop.h>
#include <weir/core/loop_local.h>
#include <weir/core/sleep.h>
#include <weir/coro/event.h>
#include <weir/coro/with_stop.h>
#include <weir/net/server/loop_gate.h>

#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <system_error>
#include <thread>

#include "check.h"
#include "model.h"

using namespace weir;
using namespace weir::schedules;

TEST_CASE("a call on a loop is answered, whether its run begins or ends meanwhile") {
  check("call against a run", [] {
    ModelLoop loop;
    int called = 0;
    std::thread thread([&] {
      loop->call([&] { ++called; });
      require(called == 1, "it was called");
      loop->stop();
    });
    loop->run();
    thread.join();
  });
  check("call behind a post", [] {
    ModelLoop loop;
    bool posted = false;
    const std::thread::id its = std::this_thread::get_id();
    std::thread thread([&] {
      loop->post([&] { posted = true; });
      loop->call([&] { require(posted || std::this_thread::get_id() != its, "in order"); });
      loop->stop();
    });
    loop->run();
    thread.join();
  });
  check("two visits against a run", [] {
    ModelLoop loop;
    int called = 0;
    std::thread thread([&] {
      bool here = false;
      {
        const EventLoop::Visit visit(*loop);
        here = visit.is_here();
        if (here) ++called;
      }
      if (!here) loop->call([&] { ++called; });
    });
    loop->run_until_complete([]() -> Task<> { co_await yield(); });
    loop->call([&] { ++called; });
    thread.join();
    require(called == 2, "both were called");
  });
}

TEST_CASE("who calls again as soon as it is answered is answered in a later turn") {
  check("calls one by one", [] {
    ModelLoop loop;
    const std::thread::id its = std::this_thread::get_id();
    std::thread thread([&] {
      std::uint64_t first = 0;  // the turn, where the loop ran
      loop->call([&] {
        if (std::this_thread::get_id() == its) first = loop->metrics().turns;
      });
      loop->call([&] { require(first == 0 || loop->metrics().turns > first, "in a later turn"); });
      loop->stop();
    });
    loop->run();
    thread.join();
  });
}

TEST_CASE("two loops that call each other answer each other") {
  check("calls both ways", [] {
    ModelLoop one;
    ModelLoop other;
    int called = 0;
    std::thread thread([&] {
      other->run_until_complete([&]() -> Task<> {
        one->call([] {});
        co_return;
      });
    });
    one->run_until_complete([&]() -> Task<> {
      other->call([&] { ++called; });
      co_return;
    });
    thread.join();
    require(called == 1, "it was called");
  });
}

TEST_CASE("a stop that is requested meets what it stops, done, dropped or waiting") {
  check("with_stop", [] {
    ModelLoop loop;
    std::stop_source source;
    std::thread thread([source]() mutable { source.request_stop(); });
    loop->run_until_complete([&]() -> Task<> {
      Event never;
      try {
        co_await with_stop(source.get_token(), never.wait());
        require(false, "it was stopped");
      } catch (const std::system_error&) {
      }
    });
    thread.join();
  });
  check("with_stop against what it waits for", [] {
    ModelLoop loop;
    std::stop_source source;
    std::thread thread([source]() mutable { source.request_stop(); });
    loop->run_until_complete([&]() -> Task<> {
      Event event;
      loop->post([&] { event.set(); });
      bool stopped = false;
      try {
        co_await with_stop(source.get_token(), event.wait());
      } catch (const std::system_error&) {
        stopped = true;
      }
      if (stopped) co_await event.wait();
    });
    thread.join();
  });
}

TEST_CASE("each of two loops has its own value, which ends with it or with its last user") {
  check("loop_local", [] {
    auto local =
        std::make_unique<LoopLocal<std::unique_ptr<int>>>([] { return std::make_unique<int>(0); });
    const auto count = [](LoopLocal<std::unique_ptr<int>>& of) -> Task<> {
      ++*of.get();
      co_await yield();
      require(++*of.get() == 2, "nobody else's");
    };
    std::thread thread([&] {
      ModelLoop loop;
      loop->run_until_complete(count(*local));
    });
    ModelLoop loop;
    loop->run_until_complete(count(*local));
    thread.join();
    local.reset();
  });
}

TEST_CASE("what goes through a gate to a loop is done before the gate is shut, or refused") {
  check("gate", [] {
    auto loop = std::make_unique<ModelLoop>();
    const auto gate = std::make_shared<detail::LoopGate>(**loop);
    bool accepted = false;
    bool done = false;
    std::thread thread([&, gate] {
      accepted = gate->post_function([&] { done = true; });
      bool called = false;
      if (gate->call([&] { called = true; })) require(called, "who may call is answered");
      (void)gate->if_idle([] {});
    });
    (*loop)->run_until_complete([&]() -> Task<> {
      co_await yield();
      (void)gate->shut();
      co_await yield();
      gate->leave();
    });
    loop.reset();
    thread.join();
    require(accepted || !done, "what was refused is not done");
  });
}
