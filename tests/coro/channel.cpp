#include <weir/core/loop_thread.h>
#include <weir/core/on.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/channel.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_all.h>

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/allocations.h"
#include "../support/virtual_loop.h"

using namespace weir;
using namespace std::chrono_literals;
using test::VirtualLoop;

namespace {

Task<> send_range(Channel<int>& channel, int first, int last) {
  for (int i = first; i < last; ++i) {
    if (bool sent = co_await channel.send(i); !sent) co_return;
  }
}

Task<std::vector<int>> receive_all(Channel<int>& channel) {
  std::vector<int> items;
  while (auto item = co_await channel.receive()) items.push_back(*item);
  co_return items;
}

Task<> receive_into(Channel<int>& channel, std::vector<int>& items) {
  while (auto item = co_await channel.receive()) items.push_back(*item);
}

std::vector<int> range(int first, int last) {
  std::vector<int> items;
  for (int i = first; i < last; ++i) items.push_back(i);
  return items;
}

}  // namespace

TEST_CASE("a channel holds as many items as it was made for, and gives them in order") {
  Channel<int> channel(3);
  CHECK(channel.capacity() == 3);
  for (int i = 0; i < 3; ++i) CHECK(channel.try_send(i));
  int fourth = 3;
  CHECK_FALSE(channel.try_send(std::move(fourth)));
  CHECK(channel.size() == 3);
  for (int i = 0; i < 3; ++i) CHECK(channel.try_receive() == i);
  CHECK(channel.try_receive() == std::nullopt);
  CHECK_THROWS_AS(Channel<int>(0), std::invalid_argument);
}

TEST_CASE("try_send leaves the item as it was where there is no room") {
  Channel<std::unique_ptr<int>> channel(1);
  CHECK(channel.try_send(std::make_unique<int>(1)));
  auto second = std::make_unique<int>(2);
  CHECK_FALSE(channel.try_send(std::move(second)));
  REQUIRE(second != nullptr);
  channel.close();
  CHECK_FALSE(channel.try_send(std::move(second)));
  CHECK(*second == 2);
  CHECK(**channel.try_receive() == 1);
}

TEST_CASE("send waits for room, receive for an item, and both keep the order") {
  VirtualLoop loop;
  Channel<int> channel(2);
  std::vector<int> items;
  TaskGroup group;
  group.spawn(send_range(channel, 0, 10));
  loop.settle();
  CHECK(channel.size() == 2);
  group.spawn(receive_into(channel, items));
  loop.settle();
  CHECK(items == range(0, 10));
  group.spawn(send_range(channel, 10, 20));
  loop.settle();
  CHECK(items == range(0, 20));
}

TEST_CASE("receivers that wait are served in the order in which they came, senders too") {
  VirtualLoop loop;
  Channel<int> channel(1);
  std::vector<std::pair<int, int>> journal;
  TaskGroup group;
  const auto receive = [&](int who) -> Task<> {
    const auto item = co_await channel.receive();
    journal.emplace_back(who, item.value());
  };
  for (int i = 0; i < 3; ++i) group.spawn(receive(i));
  group.spawn(send_range(channel, 0, 3));
  loop.settle();
  CHECK((journal == std::vector<std::pair<int, int>>{{0, 0}, {1, 1}, {2, 2}}));
  for (int i = 0; i < 3; ++i) group.spawn(send_range(channel, i, i + 1));  // two of them wait
  for (int i = 3; i < 6; ++i) group.spawn(receive(i));
  loop.settle();
  CHECK((journal ==
         std::vector<std::pair<int, int>>{{0, 0}, {1, 1}, {2, 2}, {3, 0}, {4, 1}, {5, 2}}));
}

TEST_CASE("close ends waiting sends with false, and receives once the channel is empty") {
  VirtualLoop loop;
  Channel<int> channel(2);
  std::vector<bool> sent;
  TaskGroup group;
  const auto send = [&](int item) -> Task<> { sent.push_back(co_await channel.send(item)); };
  for (int i = 0; i < 4; ++i) group.spawn(send(i));
  channel.close();
  CHECK(channel.closed());
  loop.settle();
  CHECK(sent == std::vector<bool>{true, true, false, false});
  CHECK(loop.run(receive_all(channel)) == range(0, 2));
  CHECK_FALSE(channel.try_send(9));
  channel.close();
}

TEST_CASE("close ends a waiting receive, and so does the channel's end") {
  VirtualLoop loop;
  auto channel = std::make_unique<Channel<int>>(1);
  int ended = 0;
  const auto receive = [&]() -> Task<> {
    if (auto item = co_await channel->receive(); !item) ++ended;
  };
  TaskGroup group;
  group.spawn(receive());
  SUBCASE("close") { channel->close(); }
  SUBCASE("destructor") { channel.reset(); }
  loop.settle();
  CHECK(ended == 1);
}

TEST_CASE("a dropped receive loses nothing, and what it was given comes first") {
  VirtualLoop loop;
  Channel<int> channel(10);
  std::vector<int> items;
  TaskGroup dropped;
  for (int i = 0; i < 3; ++i) dropped.spawn(receive_into(channel, items));
  SUBCASE("before an item came") {
    dropped.cancel();
    for (int i = 0; i < 5; ++i) CHECK(channel.try_send(i));
  }
  SUBCASE("when items were given to several and none was resumed") {
    for (int i = 0; i < 5; ++i) CHECK(channel.try_send(i));
    dropped.cancel();
  }
  channel.close();
  CHECK(items.empty());
  CHECK(loop.run(receive_all(channel)) == range(0, 5));
}

TEST_CASE("what a dropped receive was given goes to another one that waits") {
  VirtualLoop loop;
  Channel<int> channel(10);
  std::vector<int> items;
  std::vector<int> others;
  TaskGroup dropped;
  TaskGroup kept;
  dropped.spawn(receive_into(channel, items));
  kept.spawn(receive_into(channel, others));
  CHECK(channel.try_send(1));  // for the first
  dropped.cancel();
  loop.settle();
  CHECK(others == std::vector<int>{1});
  CHECK(items.empty());
}

TEST_CASE("what a dropped receive was given before the close goes to another one that waits") {
  VirtualLoop loop;
  Channel<int> channel(10);
  std::vector<int> items;
  std::vector<int> others;
  TaskGroup dropped;
  TaskGroup kept;
  dropped.spawn(receive_into(channel, items));
  kept.spawn(receive_into(channel, others));
  CHECK(channel.try_send(1));  // for the first
  channel.close();
  dropped.cancel();
  loop.settle();
  CHECK(others == std::vector<int>{1});
  CHECK(channel.size() == 0);
}

TEST_CASE("a dropped send has sent its item or has not") {
  VirtualLoop loop;
  Channel<int> channel(1);
  TaskGroup dropped;
  dropped.spawn(send_range(channel, 0, 1));
  dropped.spawn(send_range(channel, 1, 2));  // waits
  dropped.spawn(send_range(channel, 2, 3));  // waits
  SUBCASE("not taken yet") {
    dropped.cancel();
    channel.close();
    CHECK(loop.run(receive_all(channel)) == range(0, 1));
  }
  SUBCASE("taken, not resumed") {
    CHECK(channel.try_receive() == 0);
    dropped.cancel();
    channel.close();
    CHECK(loop.run(receive_all(channel)) == range(1, 2));
  }
}

TEST_CASE("receive under a timeout in a loop loses nothing") {
  VirtualLoop loop;
  Channel<int> channel(4);
  const auto receive = [&]() -> Task<std::vector<int>> {
    std::vector<int> items;
    for (;;) {
      auto [error, item] = co_await as_tuple(timeout(3ms, channel.receive()));
      if (error) continue;
      if (!item) break;
      items.push_back(*item);
    }
    co_return items;
  };
  const auto send = [&]() -> Task<> {
    for (int i = 0; i < 1000; ++i) {
      co_await sleep(std::chrono::milliseconds(i % 7));
      co_await channel.send(i);
    }
    channel.close();
  };
  const auto both = [&]() -> Task<std::vector<int>> {
    auto [items, none] = co_await when_all(receive(), send());
    co_return std::move(items);
  };
  CHECK(loop.run(both()) == range(0, 1000));
}

TEST_CASE("a hundred thousand items cross from one loop to another in order") {
  constexpr int kItems = 100'000;
  Channel<int> channel(64);
  EventLoopThread other;
  const auto send = [&]() -> Task<> {
    co_await send_range(channel, 0, kItems);
    channel.close();
  };
  const auto body = [&]() -> Task<> {
    auto [none, items] = co_await when_all(on(other.loop(), send()), receive_all(channel));
    CHECK(items == range(0, kItems));
  };
  run(body());
}

TEST_CASE("plain threads send to and receive from coroutines") {
  constexpr int kItems = 20'000;
  Channel<int> to_loop(16);
  Channel<int> from_loop(16);
  std::thread feeder([&] {
    for (int i = 0; i < kItems; ++i) {
      while (!to_loop.try_send(i)) std::this_thread::yield();
    }
    to_loop.close();
  });
  long sum = 0;
  std::thread drain([&] {
    for (;;) {
      if (const auto item = from_loop.try_receive()) {
        sum += *item;
      } else if (from_loop.closed() && from_loop.size() == 0) {
        return;
      } else {
        std::this_thread::yield();
      }
    }
  });
  const auto body = [&]() -> Task<> {
    while (auto item = co_await to_loop.receive()) co_await from_loop.send(*item);
    from_loop.close();
  };
  run(body());
  feeder.join();
  drain.join();
  CHECK(sum == static_cast<long>(kItems) * (kItems - 1) / 2);
}

TEST_CASE("receives dropped while another loop gives them items lose none") {
  constexpr int kItems = 20'000;
  Channel<int> channel(8);
  EventLoopThread other;
  const auto receive = [&]() -> Task<long> {
    long sum = 0;
    int expected = 0;
    for (;;) {
      // Dropped after a turn: often just when the item is on its way from the other thread.
      auto winner = co_await when_any(channel.receive(), yield());
      if (winner.index() == 1) continue;
      const auto item = std::get<0>(winner);
      if (!item) break;
      if (*item != expected++) co_return -1;
      sum += *item;
    }
    co_return sum;
  };
  const auto send = [](Channel<int>& to) -> Task<> {
    co_await send_range(to, 0, kItems);
    to.close();
  };
  const auto body = [&]() -> Task<> {
    auto [none, sum] = co_await when_all(on(other.loop(), send(channel)), receive());
    CHECK(sum == static_cast<long>(kItems) * (kItems - 1) / 2);
  };
  run(body());
}

TEST_CASE("a loop may end while its coroutines wait for a channel that others use") {
  Channel<int> channel(1);
  for (int i = 0; i < 50; ++i) {
    EventLoopThread other;
    std::vector<int> items;
    other.loop().spawn(receive_into(channel, items));
    other.loop().post([&] { (void)channel.try_send(1); });
    while (!channel.try_send(2)) (void)channel.try_receive();
    other.stop();
    while (channel.try_receive()) {
    }
  }
}

TEST_CASE("a send that lacks memory leaves the item, the channel and whoever waits as they were") {
  struct Large {  // too large to be recycled
    std::unique_ptr<int> value;
    char more[4096] = {};
  };
  test::VirtualLoop loop;
  Channel<Large> channel(4);
  CHECK(channel.try_send(Large{std::make_unique<int>(0)}));
  Large item{std::make_unique<int>(1)};
  {
    const test::FailingAllocations failing(0);
    CHECK_THROWS_AS(channel.try_send(std::move(item)), std::bad_alloc);
  }
  REQUIRE(item.value != nullptr);
  CHECK(channel.size() == 1);
  CHECK(channel.try_send(std::move(item)));
  CHECK(*channel.try_receive()->value == 0);
  CHECK(*channel.try_receive()->value == 1);
}

TEST_CASE("a received item that is given back, and the end of a channel, need no memory") {
  test::VirtualLoop loop;
  std::optional<Channel<int>> channel(std::in_place, 1);
  TaskGroup group;
  bool resumed = false;
  const auto receive = [&]() -> Task<> {
    (void)co_await channel->receive();
    resumed = true;
  };
  group.spawn(receive());
  CHECK(channel->try_send(7));
  {
    const test::FailingAllocations failing(0);
    group.cancel();  // settled, and not resumed
  }
  CHECK_FALSE(resumed);
  CHECK(channel->size() == 1);
  CHECK(*channel->try_receive() == 7);
  group.spawn(receive());
  {
    const test::FailingAllocations failing(0);
    channel.reset();
    loop.settle();
  }
  CHECK(resumed);
}

TEST_CASE("emplace makes the item in its place and gives what send gives") {
  struct Message {
    Message(int number, std::string content) : id(number), text(std::move(content)) {}
    int id;
    std::string text;
  };
  test::VirtualLoop loop;
  Channel<Message> channel(1);
  std::vector<bool> sent;
  TaskGroup group;
  group.spawn([&]() -> Task<> {
    const bool first = co_await channel.emplace(1, std::string(100, 'x'));
    const bool second = co_await channel.emplace(2, "two");
    const bool third = co_await channel.emplace(3, "three");
    sent = {first, second, third};
  });
  loop.settle();
  CHECK(channel.try_receive()->text == std::string(100, 'x'));
  loop.settle();
  channel.close();
  loop.settle();
  CHECK(sent == std::vector<bool>{true, true, false});
  CHECK(channel.try_receive()->id == 2);
}
