#include <weir/core/sleep.h>
#include <weir/coro/channel.h>
#include <weir/coro/task_group.h>

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <thread>

#include "check.h"
#include "model.h"

using namespace weir;
using namespace weir::schedules;

using Item = std::unique_ptr<int>;

TEST_CASE("a thread sends to a coroutine through a channel of one") {
  check("blocking_send to receive", [] {
    ModelLoop loop;
    Channel<Item> channel(1);
    std::thread thread([&] {
      for (int i = 0; i < 2; ++i) require(channel.blocking_send(std::make_unique<int>(i)), "sent");
      channel.close();
    });
    loop->run_until_complete([&]() -> Task<> {
      int next = 0;
      while (auto item = co_await channel.receive()) require(**item == next++, "in order");
      require(next == 2, "all have come");
    });
    thread.join();
  });
}

TEST_CASE("a coroutine sends to a thread through a channel of one") {
  check("send to blocking_receive", [] {
    ModelLoop loop;
    Channel<Item> channel(1);
    std::thread thread([&] {
      int next = 0;
      while (auto item = channel.blocking_receive()) require(**item == next++, "in order");
      require(next == 2, "all have come");
    });
    loop->run_until_complete([&]() -> Task<> {
      for (int i = 0; i < 2; ++i) {
        const bool sent = co_await channel.send(std::make_unique<int>(i));
        require(sent, "sent");
      }
      channel.close();
    });
    thread.join();
  });
}

TEST_CASE("two loops send and receive through a channel of one") {
  check("send to receive", [] {
    Channel<Item> channel(1);
    std::thread thread([&] {
      ModelLoop loop;
      loop->run_until_complete([&]() -> Task<> {
        for (int i = 0; i < 2; ++i) {
          const bool sent = co_await channel.send(std::make_unique<int>(i));
          require(sent, "sent");
        }
        channel.close();
      });
    });
    ModelLoop loop;
    loop->run_until_complete([&]() -> Task<> {
      int next = 0;
      while (auto item = co_await channel.receive()) require(**item == next++, "in order");
      require(next == 2, "all have come");
    });
    thread.join();
  });
}

TEST_CASE("a close meets a receive and a send that wait or are about to") {
  check("close against receive", [] {
    ModelLoop loop;
    Channel<Item> channel(1);
    std::thread thread([&] { channel.close(); });
    loop->run_until_complete([&]() -> Task<> {
      const auto item = co_await channel.receive();
      require(!item, "nothing was sent");
    });
    thread.join();
  });
  check("close against two threads", [] {
    Channel<Item> channel(1);
    bool sent = false;
    bool received = false;
    std::thread sends([&] { sent = channel.blocking_send(std::make_unique<int>(1)); });
    std::thread receives([&] { received = channel.blocking_receive().has_value(); });
    channel.close();
    sends.join();
    receives.join();
    require(sent || !received, "what was received was sent");
    require(!sent || received || channel.size() == 1, "what was sent is received or there");
  });
}

TEST_CASE("the end of a channel meets a receive that waits") {
  check("end against receive", [] {
    ModelLoop loop;
    std::optional<Channel<Item>> channel(std::in_place, 1);
    std::optional<TaskGroup> group(std::in_place, *loop);
    std::thread thread;
    loop->run_until_complete([&]() -> Task<> {
      group->spawn([&]() -> Task<> {
        const auto item = co_await channel->receive();
        require(!item, "nothing was sent");
      });
      thread = std::thread([&] { channel.reset(); });
      co_await group->join();
    });
    group.reset();
    thread.join();
  });
}

TEST_CASE("an item that meets a dropped receive is lost to nobody") {
  check("send against a drop", [] {
    ModelLoop loop;
    Channel<Item> channel(1);
    bool sent = false;
    bool received = false;
    std::thread thread([&] { sent = channel.try_send(std::make_unique<int>(1)); });
    loop->run_until_complete([&]() -> Task<> {
      TaskGroup group;
      group.spawn([&]() -> Task<> { received = (co_await channel.receive()).has_value(); });
      co_await yield();
      group.cancel();
    });
    thread.join();
    require(sent, "there was room");
    require(received != (channel.size() == 1), "it is there or was received");
  });
  check("two sends against a drop and another receive", [] {
    ModelLoop loop;
    Channel<int> channel(2);
    std::thread thread([&] {
      require(channel.try_send(1), "there was room");
      require(channel.try_send(2), "there was room");
    });
    int sum = 0;
    loop->run_until_complete([&]() -> Task<> {
      const auto take = [&]() -> Task<> {
        const auto item = co_await channel.receive();
        sum += *item;
      };
      TaskGroup dropped;
      TaskGroup other;
      dropped.spawn(take());
      other.spawn(take());
      co_await yield();
      dropped.cancel();
      co_await other.join();
    });
    thread.join();
    while (const auto item = channel.try_receive()) sum += *item;
    require(sum == 3, "none is lost, none comes twice");
  });
}
