#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/channel.h>
#include <weir/coro/with_stop.h>

#include <doctest/doctest.h>

#include <optional>
#include <stop_token>
#include <system_error>
#include <thread>

#include "../support/drop_at.h"
#include "../support/net.h"

using namespace weir;
using namespace weir::test;

TEST_CASE("with_stop gives the result of what comes before the stop") {
  on_each_engine([]() -> Task<> {
    std::stop_source source;
    Channel<int> channel(1);
    (void)channel.try_send(7);
    const std::optional<int> got = co_await with_stop(source.get_token(), channel.receive());
    CHECK(got == 7);
    co_await with_stop(source.get_token(), sleep(1ms));
    co_await with_stop(std::stop_token(), sleep(1ms));  // that can never be stopped
  });
}

TEST_CASE("a stop before the await and one after it drop what is awaited") {
  on_each_engine([]() -> Task<> {
    std::stop_source source;
    Channel<int> channel(1);
    TaskGroup group;
    group.spawn([&]() -> Task<> {
      co_await yield();
      source.request_stop();
    });
    const auto after = co_await as_tuple(with_stop(source.get_token(), channel.receive()));
    CHECK(after.error == std::errc::operation_canceled);
    (void)channel.try_send(1);
    const auto before = co_await as_tuple(with_stop(source.get_token(), channel.receive()));
    CHECK(before.error == std::errc::operation_canceled);
    CHECK(channel.try_receive() == 1);
    bool thrown = false;
    try {
      co_await with_stop(source.get_token(), sleep(1h));
    } catch (const std::system_error& error) {
      thrown = error.code() == std::errc::operation_canceled;
    }
    CHECK(thrown);
  });
}

TEST_CASE("an item that is given as the stop comes is not lost") {
  on_each_engine([]() -> Task<> {
    for (const bool item_first : {false, true}) {
      std::stop_source source;
      Channel<int> channel(1);
      TaskGroup group;
      group.spawn([&]() -> Task<> {
        if (item_first) (void)channel.try_send(5);
        source.request_stop();
        if (!item_first) (void)channel.try_send(5);
        co_return;
      });
      const auto got = co_await as_tuple(with_stop(source.get_token(), channel.receive()));
      if (got.error) {
        CHECK(channel.try_receive() == 5);
      } else {
        CHECK(got.value == 5);
      }
    }
  });
}

TEST_CASE("stops from other threads race with results and drops, and nothing is lost") {
  for_each_engine([](Engine engine) {
    on_engine(engine, []() -> Task<> {
      for (int i = 0; i < 300; ++i) {
        std::stop_source source;
        Channel<int> channel(1);
        const std::jthread stopping([&source] { source.request_stop(); });
        const std::jthread sending([&channel] { (void)channel.try_send(5); });
        const auto got = co_await as_tuple(
            timeout(i % 3 == 0 ? 0ms : 1h, with_stop(source.get_token(), channel.receive())));
        if (got.error) {
          const std::optional<int> left = co_await channel.receive();
          CHECK(left == 5);
        } else {
          CHECK(got.value == 5);
        }
      }
    });
  });
}

TEST_CASE("what stands under with_stop may be dropped at every moment") {
  struct Scenario {
    std::stop_source source;
    Channel<int> channel{1};

    Task<> task() {
      co_await yield();
      (void)co_await as_tuple(with_stop(source.get_token(), sleep(0ms)));
      (void)co_await as_tuple(with_stop(source.get_token(), channel.receive()));
    }
    Task<> afterwards(bool) {
      source.request_stop();
      co_await yield();
    }
  };
  const std::size_t moments = drop_at_every_moment([] {
    auto scenario = std::make_unique<Scenario>();
    (void)scenario->channel.try_send(1);
    return scenario;
  });
  CHECK(moments >= 1);
}
