#include <weir/core/event_loop.h>
#include <weir/core/mailbox.h>
#include <weir/coro/event.h>
#include <weir/coro/task.h>

#include <doctest/doctest.h>

#include <memory>
#include <thread>

#include "check.h"
#include "model.h"

using namespace weir;
using namespace weir::schedules;

TEST_CASE("what is posted to a loop that goes to sleep wakes it") {
  check("post against sleep", [] {
    ModelLoop loop;
    int ran = 0;
    std::thread thread([&] { loop->post([&] { ++ran, loop->stop(); }); });
    loop->run();
    require(ran == 1, "what was posted has run");
    thread.join();
  });
}

TEST_CASE("what is posted by two threads wakes the loop, and all of it is run") {
  check("two posts against sleep", [] {
    ModelLoop loop;
    int ran = 0;
    const auto post = [&] {
      loop->post([&] {
        if (++ran == 2) loop->stop();
      });
    };
    std::thread one(post);
    std::thread other(post);
    loop->run();
    require(ran == 2, "both have run");
    one.join();
    other.join();
  });
}

TEST_CASE("a task that another thread spawns runs, or is dropped with its loop") {
  check("spawn against the end of a run", [] {
    const auto token = std::make_shared<int>(0);
    {
      ModelLoop loop;
      std::thread thread([&] {
        loop->spawn([copy = token, &loop]() -> Task<> {
          loop->stop();
          Event never;
          co_await never.wait();
        });
        loop->stop();
      });
      loop->run();
      thread.join();
    }
    require(token.use_count() == 1, "the task is gone");
  });
}

TEST_CASE("a stop of another thread ends a run at whatever moment it comes") {
  check("stop against sleep", [] {
    ModelLoop loop;
    std::thread thread([&] { loop->stop(); });
    loop->run();
    thread.join();
  });
  check("two stops, two runs", [] {
    ModelLoop loop;
    std::thread thread([&] { loop->stop(); });
    loop->run();
    thread.join();
    std::thread again([&] { loop->stop(); });
    loop->run();
    again.join();
  });
}

TEST_CASE("what is posted to a loop that ends is run or deleted, once, and harms nobody") {
  check("post against the end", [] {
    auto loop = std::make_unique<ModelLoop>();
    const std::shared_ptr<detail::Mailbox> mailbox = (*loop)->mailbox();
    auto token = std::make_shared<int>(0);
    const std::weak_ptr<int> watch = token;
    std::thread thread([&mailbox, token = std::move(token)]() mutable {
      mailbox->post([token = std::move(token)] {});
    });
    loop.reset();
    thread.join();
    require(watch.expired(), "what was posted is gone");
  });
  check("two posts against the end of a run", [] {
    auto loop = std::make_unique<ModelLoop>();
    const std::shared_ptr<detail::Mailbox> mailbox = (*loop)->mailbox();
    std::thread thread([&] {
      mailbox->post([&loop] { (*loop)->stop(); });
      mailbox->post([] {});
      mailbox->knock();
    });
    (*loop)->run();
    loop.reset();
    thread.join();
  });
}
