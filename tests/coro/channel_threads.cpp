#include <weir/core/event_loop.h>
#include <weir/core/loop_thread.h>
#include <weir/core/on.h>
#include <weir/coro/channel.h>

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>

using namespace weir;

TEST_CASE("a thread without a loop sends to a coroutine and receives from it, item for item") {
  constexpr int kItems = 2000;
  Channel<std::unique_ptr<int>> there(3);
  Channel<int> back(3);
  std::thread thread([&] {
    for (int i = 0; i < kItems; ++i) CHECK(there.blocking_send(std::make_unique<int>(i)));
    there.close();
    int next = 0;
    while (std::optional<int> item = back.blocking_receive()) CHECK(*item == next++);
    CHECK(next == kItems);
  });
  run([&]() -> Task<> {
    int next = 0;
    while (auto item = co_await there.receive()) {
      CHECK(**item == next++);
    }
    CHECK(next == kItems);
    for (int i = 0; i < kItems; ++i) {
      const bool sent = co_await back.send(i);
      CHECK(sent);
    }
    back.close();
  });
  thread.join();
}

TEST_CASE("threads that wait in a channel are woken by its close") {
  Channel<int> full(1);
  Channel<int> empty(1);
  CHECK(full.try_send(1));
  std::thread sends([&] { CHECK_FALSE(full.blocking_send(2)); });
  std::thread receives([&] { CHECK_FALSE(empty.blocking_receive().has_value()); });
  full.close();
  empty.close();
  sends.join();
  receives.join();
  CHECK(full.blocking_receive() == 1);  // what was there stays
  CHECK_FALSE(full.blocking_receive().has_value());
  CHECK_FALSE(full.blocking_send(3));
}

TEST_CASE("a blocking call that would hold up its own thread's loop is refused") {
  run([]() -> Task<> {
    Channel<int> channel(1);
    CHECK(channel.blocking_send(1));
    CHECK_THROWS_AS((void)channel.blocking_send(2), std::logic_error);
    CHECK(channel.blocking_receive() == 1);
    CHECK_THROWS_AS((void)channel.blocking_receive(), std::logic_error);
    CHECK(channel.size() == 0);
    co_return;
  });
}
