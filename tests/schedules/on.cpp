#include <weir/core/on.h>
#include <weir/core/sleep.h>
#include <weir/coro/event.h>
#include <weir/coro/task_group.h>

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "check.h"
#include "model.h"

using namespace weir;
using namespace weir::schedules;

TEST_CASE("on goes to another loop and comes back with what it was given") {
  check("on, there and back", [] {
    ModelLoop home;
    ModelLoop away;
    std::thread thread([&] { away->run(); });
    home->run_until_complete([&]() -> Task<> {
      const auto value = co_await on(*away, []() -> Task<std::unique_ptr<int>> {
        co_await yield();
        co_return std::make_unique<int>(7);
      });
      require(*value == 7, "what was returned over there");
    });
    away->stop();
    thread.join();
  });
}

TEST_CASE("an on that is dropped drops its task over there, wherever that stands") {
  check("on, dropped", [] {
    ModelLoop home;
    auto away = std::make_unique<ModelLoop>();
    const std::shared_ptr<int> token = std::make_shared<int>(0);
    std::thread thread([&] { (*away)->run(); });
    home->run_until_complete([&]() -> Task<> {
      TaskGroup group;
      group.spawn([&]() -> Task<> {
        auto stay = [token]() -> Task<> { co_await yield(); };
        co_await on(**away, std::move(stay));
      });
      co_await yield();
      group.cancel();
    });
    (*away)->stop();
    thread.join();
    away.reset();
    require(token.use_count() == 1, "the task is gone");
  });
  check("on, dropped while it sleeps there", [] {
    ModelLoop home;
    ModelLoop away;
    const std::shared_ptr<int> token = std::make_shared<int>(0);
    bool there = false;
    std::thread thread([&] {
      away->run_until_complete([&]() -> Task<> {
        while (!there || token.use_count() > 1) co_await sleep(1s);
      });
    });
    home->run_until_complete([&]() -> Task<> {
      TaskGroup group;
      group.spawn([&]() -> Task<> {
        auto stay = [&there, copy = std::shared_ptr<int>(token)]() -> Task<> {
          there = true;
          co_await sleep(1h);
        };
        co_await on(*away, std::move(stay));
      });
      co_await sleep(1ms);
      group.cancel();
    });
    thread.join();
  });
}

TEST_CASE("an on whose loop ends meanwhile comes back") {
  check("on, against the end", [] {
    ModelLoop home;
    auto away = std::make_unique<ModelLoop>();
    EventLoop& loop = **away;
    std::thread thread;
    home->run_until_complete([&]() -> Task<> {
      TaskGroup group;
      group.spawn([&]() -> Task<> {
        int value = 1;
        try {
          value = co_await on(loop, []() -> Task<int> {
            co_await yield();
            co_return 1;
          });
        } catch (const std::system_error& error) {
          require(error.code() == std::errc::operation_canceled, "it says why");
        }
        require(value == 1, "it has come back");
      });
      thread = std::thread([&, own = std::move(away)]() mutable {
        (*own)->stop();
        (*own)->run();
        own.reset();
      });
      co_await group.join();
    });
    thread.join();
  });
}

TEST_CASE("two loops cross in both directions") {
  check("on, both ways", [] {
    struct Side {
      ModelLoop loop;
      Event left;  // the other side has what it wanted
    };
    Side one;
    Side other;
    const auto hop = [](Side& from, Side& to) -> Task<> {
      co_await on(*to.loop, []() -> Task<> { co_return; });
      to.loop->post([&to] { to.left.set(); });
      co_await from.left.wait();
    };
    std::thread thread([&] { other.loop->run_until_complete(hop(other, one)); });
    one.loop->run_until_complete(hop(one, other));
    thread.join();
  });
}
