#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../support/allocations.h"
#include "../support/net.h"
#include "../support/net_drop.h"

using namespace weir;
using namespace weir::test;

namespace {

std::string text_of_size(std::size_t size) {
  std::string text(size, ' ');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + i * 7 % 26);
  return text;
}

ConnectionOptions roomy() {
  ConnectionOptions options;
  options.water_marks = {.high = 8 << 20, .low = 1 << 20};
  return options;
}

}  // namespace

TEST_CASE("shared bytes are there once, whoever has them") {
  const std::string text = text_of_size(100'000);
  std::string given = text;
  const char* where = given.data();
  const auto before = allocations();
  SharedBytes bytes(std::move(given));
  CHECK(allocations() - before == 1);
  SharedBytes copy = bytes;
  CHECK(allocations() - before == 1);
  CHECK(copy.data() == where);
  CHECK(copy.view() == text);
  const SharedBytes moved = std::move(bytes);
  CHECK(bytes.empty());  // NOLINT(bugprone-use-after-move)
  CHECK(bytes.view().empty());
  copy = SharedBytes();
  CHECK(moved.view() == text);
  constexpr std::string_view kWords = "for ever";
  const auto none = allocations();
  CHECK(SharedBytes::of_static(kWords).data() == kWords.data());
  CHECK(SharedBytes::of_static(kWords).size() == kWords.size());
  CHECK(allocations() == none);
  CHECK(SharedBytes().empty());
  CHECK(SharedBytes(std::string()).empty());
}

TEST_CASE("shared bytes of every size arrive, though nobody else has them any more") {
  on_each_engine([]() -> Task<> {
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{512},
                                   std::size_t{513}, std::size_t{1} << 20}) {
      auto [a, b] = link_pair(roomy(), roomy());
      const std::string text = text_of_size(size);
      const auto send = [&]() -> Task<> {
        co_await a.send("<");
        co_await a.send(SharedBytes(text));
        co_await a.send(SharedBytes::of_static(">"));
        co_await a.shutdown();
      };
      TaskGroup group;
      group.spawn(send());
      std::string came;
      while (Chunk data = co_await b.read()) came += data.view();
      CHECK(came == "<" + text + ">");
      co_await group.join();
    }
  });
}

TEST_CASE("a stream in memory hands shared bytes on where they are") {
  on_each_engine([]() -> Task<> {
    auto [a, b] = stream_pair({.water_marks = {.high = 4 << 20, .low = 1 << 20}});
    std::optional<SharedBytes> bytes(std::in_place, text_of_size(100'000));
    const char* where = bytes->data();
    co_await a.send(*bytes);
    Chunk data = co_await b.read();
    CHECK(data.view().data() == where);
    CHECK(data.size() == bytes->size());
    bytes.reset();
    CHECK(data.view() == text_of_size(100'000));
  });
}

TEST_CASE("senders queue strings and shared bytes in order, those of other loops too") {
  for_each_engine([](Engine engine) {
    const Environment variable("WEIR_ENGINE", engine == Engine::uring ? "uring" : "epoll");
    EventLoopThread other;
    run([&]() -> Task<> {
      auto [a, b] = link_pair(roomy(), roomy());
      const SharedBytes large(text_of_size(50'000));
      const SharedBytes small(text_of_size(10));
      std::string expected;
      const auto send = [&](Sender sender, bool waits) -> Task<> {
        for (int i = 0; i < 20; ++i) {
          std::string number = std::to_string(i);
          if (waits) {
            co_await sender.send(number);
            co_await sender.send(large);
            co_await sender.send(small);
          } else {
            CHECK(sender.try_send(number));
            CHECK(sender.try_send(large));
            CHECK(sender.try_send(small));
            CHECK(sender.try_send(text_of_size(1000)));
          }
        }
      };
      for (int i = 0; i < 20; ++i) {
        expected += std::to_string(i);
        expected += large.view();
        expected += small.view();
        expected += text_of_size(1000);
      }
      co_await on(other.loop(), send(a.sender(), false));
      CHECK((co_await b.read_exactly(expected.size())).view() == expected);
      expected.clear();
      for (int i = 0; i < 20; ++i) {
        expected += std::to_string(i);
        expected += large.view();
        expected += small.view();
      }
      co_await on(other.loop(), send(a.sender(), true));
      CHECK((co_await b.read_exactly(expected.size())).view() == expected);
      a.close();
      CHECK_FALSE(a.sender().try_send(large));
    });
  });
}

TEST_CASE("shared bytes that wait for room are dropped at every moment, and leave no half") {
  struct Scenario {
    Task<> task() {
      SharedBytes bytes(text_of_size(3000));
      for (int i = 0; i < 4; ++i) {
        co_await linked.a.send(bytes);
        co_await linked.a.sender().send(bytes);
      }
    }
    Task<> afterwards(bool /*finished*/) {
      group.cancel();
      linked.a.close();
      while (Chunk data = co_await linked.b.read()) came += data.view();
      const std::string whole = text_of_size(3000);
      CHECK(came.size() % whole.size() == 0);
      for (std::size_t at = 0; at < came.size(); at += whole.size()) {
        CHECK(came.compare(at, whole.size(), whole) == 0);
      }
    }
    Task<> read() {
      while (Chunk data = co_await linked.b.read()) came += data.view();
    }
    Scenario() { group.spawn(read()); }

    static ConnectionOptions tight() {
      ConnectionOptions options;
      options.water_marks = {.high = 1000, .low = 500};
      return options;
    }
    Linked linked = link_pair(tight());
    std::string came;
    TaskGroup group;
  };
  drop_everywhere([] { return std::make_unique<Scenario>(); }, 3);
}

TEST_CASE("an empty brace is an empty message to a sender, not a question of overloads") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const Sender sender = conn.sender();
    const SharedBytes shared("shared");
    CHECK(sender.try_send({}));
    CHECK(sender.try_send({"aaa", 3}));
    CHECK(sender.try_send(shared));
    co_await sender.send({});
    co_await sender.send(SharedBytes("moved"));
    co_await conn.flush();
    CHECK(peer.receive_exactly(14) == "aaasharedmoved");
  });
}

TEST_CASE("shared bytes for which there is no memory break nothing but their own send") {
  on_each_engine([]() -> Task<> {
    auto [a, b] = stream_pair();
    const SharedBytes bytes(text_of_size(2000));
    int failures = 0;
    for (std::uint64_t allowed = 0; allowed < 8; ++allowed) {
      try {
        const FailingAllocations none(allowed, 1);
        co_await a.send(bytes);
      } catch (const std::bad_alloc&) {
        ++failures;
        continue;
      }
      CHECK((co_await b.read_exactly(2000)).view() == bytes.view());
    }
    CHECK(failures < 8);
  });
}

TEST_CASE("a broadcast of shared bytes takes no memory for each member") {
  if (plain_only("each member has its own ciphertext")) return;
  constexpr std::size_t kMembers = kSanitized ? 20 : 200;
  constexpr std::size_t kSize = 512 << 10;
  for_each_kernel_engine("it is about real memory", [](Engine engine) {
    const Environment variable("WEIR_ENGINE", engine == Engine::uring ? "uring" : "epoll");
    run([&]() -> Task<> {
      std::vector<Connected> members;
      for (std::size_t i = 0; i < kMembers; ++i) members.push_back(connect_pair(roomy(), 8 << 10));
      std::vector<Sender> senders;
      for (Connected& member : members) senders.push_back(member.connection.sender());
      const std::string text = text_of_size(kSize);
      const auto measured = [&](const auto& message) -> Task<std::int64_t> {
        const std::int64_t bytes = allocated_bytes();
        const std::clock_t start = std::clock();
        for (const Sender& sender : senders) CHECK(sender.try_send(message));
        const std::clock_t queued = std::clock();
        co_await turns(4);  // all of them are taken over, and the sockets filled
        const std::clock_t end = std::clock();
        const std::int64_t taken = allocated_bytes() - bytes;
        for (Connected& member : members) CHECK(member.connection.pending_bytes() > 0);
        std::printf("%s: %zu members, %zu KiB each: queueing %.2f ms, the turns %.2f ms, %.2f MB\n",
                    engine == Engine::uring ? "io_uring" : "epoll", kMembers, kSize >> 10,
                    1e3 * static_cast<double>(queued - start) / CLOCKS_PER_SEC,
                    1e3 * static_cast<double>(end - queued) / CLOCKS_PER_SEC,
                    static_cast<double>(taken) / 1e6);
        co_return taken;
      };
      const SharedBytes shared(text);
      CHECK(co_await measured(shared) < std::int64_t{2} << 20);
      for (Connected& member : members) member.connection.force_close();
      co_await turns(4);
      members.clear();
      senders.clear();
      if constexpr (kSanitized) co_return;
      for (std::size_t i = 0; i < kMembers; ++i) members.push_back(connect_pair(roomy(), 8 << 10));
      for (Connected& member : members) senders.push_back(member.connection.sender());
      (void)co_await measured(text);  // for the comparison
    });
  });
}
