#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "../support/allocations.h"
#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr int kSmall = 8 << 10;

ConnectionOptions marks(std::size_t high, std::size_t low) {
  ConnectionOptions options;
  options.water_marks = {.high = high, .low = low};
  return options;
}

/// "thread number\n", as many as `count`.
std::string line_of(int thread, int number) {
  return std::to_string(thread) + ' ' + std::to_string(number) + '\n';
}

/// How many lines of each thread came, which must be whole and in order; -1 if they are not.
std::vector<int> count_lines(std::string_view text, std::size_t threads) {
  std::vector<int> next(threads, 0);
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return std::vector<int>(threads, -1);
    const std::string line(text.substr(0, end));
    text.remove_prefix(end + 1);
    const std::size_t space = line.find(' ');
    if (space == std::string::npos) return std::vector<int>(threads, -1);
    const auto thread = static_cast<std::size_t>(std::stoi(line.substr(0, space)));
    if (thread >= threads || std::stoi(line.substr(space + 1)) != next[thread]++) {
      return std::vector<int>(threads, -1);
    }
  }
  return next;
}

}  // namespace

TEST_CASE("senders on other threads send whole messages, each thread's in order") {
  on_each_engine([]() -> Task<> {
    constexpr int kThreads = 4;
    constexpr int kMessages = kSanitized ? 2000 : 10000;
    auto [conn, peer] = connect_pair(marks(64 << 10, 16 << 10));
    const auto produce = [](Sender sender, int thread) {
      for (int i = 0; i < kMessages; ++i) {
        while (!sender.try_send(line_of(thread, i))) yield_thread();
      }
    };
    std::vector<std::unique_ptr<Thread>> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.push_back(
          std::make_unique<Thread>([produce, sender = conn.sender(), i] { produce(sender, i); }));
    }
    const auto receive = [peer = &peer] {
      std::size_t total = 0;
      for (int t = 0; t < kThreads; ++t) {
        for (int i = 0; i < kMessages; ++i) total += line_of(t, i).size();
      }
      return peer->receive_exactly(total);
    };
    const std::string got = co_await in_thread(receive);
    CHECK(count_lines(got, kThreads) == std::vector<int>(kThreads, kMessages));
  });
}

TEST_CASE("a sender keeps its place among the sends of its own thread") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const Sender sender = conn.sender();
    CHECK(sender.try_send("1"));
    co_await conn.send("2");
    CHECK(sender.try_send("3"));
    co_await sender.send("4");
    co_await conn.send("5");
    CHECK(sender.try_send("6"));
    co_await conn.flush();  // of all of it
    CHECK(peer.receive_exactly(6) == "123456");
    CHECK(conn.pending_bytes() == 0);
    CHECK(sender.try_send("7"));
    co_await conn.shutdown();
    CHECK(peer.receive_all() == "7");
  });
}

TEST_CASE(
    "a sender on its connection's own loop sends messages of every size, whole and in order") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const Sender sender = conn.sender();
    std::string expected;
    char name = 'a';
    for (const std::size_t first : {0UL, 1UL, 512UL, 513UL, 60'000UL}) {
      for (const std::size_t second : {0UL, 1UL, 512UL, 513UL, 4'000UL}) {
        for (const bool shared : {false, true}) {
          std::string bytes(first, name++);
          std::string others(second, name++);
          expected += bytes + others;
          if (shared) {
            CHECK(sender.try_send(SharedBytes(std::move(bytes))));
            co_await sender.send(SharedBytes(std::move(others)));
          } else {
            CHECK(sender.try_send(std::move(bytes)));
            co_await sender.send(std::move(others));
          }
          const auto receive = [&] { return peer.receive_exactly(expected.size()); };
          const std::string got = co_await in_thread(receive);
          CHECK(got == expected);
          expected.clear();
        }
      }
    }
  });
}

TEST_CASE("what is sent once another thread has sent leaves behind it, by either way") {
  on_each_kernel_engine("it joins threads of its own", []() -> Task<> {
    auto [conn, peer] = connect_pair();
    const Sender sender = conn.sender();
    const auto say = [&sender](const char* text) {
      std::thread([&] { (void)sender.try_send(text); }).join();
    };
    co_await conn.send("a");
    say("b");
    co_await conn.send("c");
    say("d");
    CHECK(sender.try_send("e"));
    say("f");
    co_await conn.shutdown();
    CHECK(peer.receive_all() == "abcdef");
  });
}

TEST_CASE("a sender does not overtake a send that waits") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(256 << 10, 1 << 10), kSmall);
    const auto send = [](TcpConnection& to, char c, std::size_t size) -> Task<> {
      std::string message(size, c);
      co_await to.send(std::move(message));
    };
    const Sender sender = conn.sender();
    TaskGroup group;
    group.spawn(send(conn, 'a', 200 << 10));
    co_await turns(2);  // on its way
    group.spawn(send(conn, 'a', 200 << 10));
    group.spawn(send(conn, 'b', 10));
    std::size_t got = 0;
    while (conn.pending_bytes() >= (256U << 10)) {
      got += peer.receive_now().size();
      co_await turns(1);
    }
    REQUIRE(conn.pending_bytes() > 1U << 10);  // below the mark again, and b still waits
    CHECK_FALSE(sender.try_send("c"));
    const auto receive = [peer = &peer, left = (400U << 10) - got] {
      return peer->receive_exactly(left + 10);
    };
    const std::string rest = co_await in_thread(receive);
    CHECK(rest.ends_with(std::string(10, 'b')));
    co_await group.join();
    co_await turns(3);
    CHECK(sender.try_send("c"));
    co_await conn.flush();
    CHECK(peer.receive_exactly(1) == "c");
  });
}

TEST_CASE("try_send refuses above the mark, and again takes messages below it") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(64 << 10, 1 << 10), kSmall);
    const Sender sender = conn.sender();
    std::size_t accepted = 0;
    while (sender.try_send(std::string(1000, 'x'))) {
      ++accepted;
      if (accepted % 10 == 0) co_await turns(1);
      REQUIRE(accepted < 100000);
    }
    CHECK(conn.pending_bytes() <= (64U << 10) + 1000);
    const auto receive = [peer = &peer, accepted] {
      return peer->receive_exactly(accepted * 1000);
    };
    const std::string got = co_await in_thread(receive);
    CHECK(got.size() == accepted * 1000);
    co_await turn_until([&] { return sender.try_send("y"); });
    co_await conn.flush();
    CHECK(peer.receive_exactly(1) == "y");
  });
}

TEST_CASE("a sender of a closed connection is refused") {
  on_each_engine([]() -> Task<> {
    const Sender none;
    CHECK_FALSE(none.try_send("x"));
    CHECK_FALSE(none.open());
    Sender sender;
    {
      auto [conn, peer] = connect_pair();
      sender = conn.sender();
      CHECK(sender.open());
      CHECK(sender.try_send("accepted"));
      conn.close();
      CHECK_FALSE(sender.open());
      CHECK_FALSE(sender.try_send("refused"));
      const auto receive = [peer = &peer] { return peer->receive_all(); };
      const std::string got = co_await in_thread(receive);
      CHECK(got == "accepted");
    }
    CHECK_FALSE(sender.try_send("refused"));
    CHECK_THROWS_AS(co_await sender.send("refused"), std::system_error);
    CHECK_THROWS_AS(co_await none.send("refused"), std::system_error);
    TcpConnection nothing;
    CHECK_THROWS_AS((void)nothing.sender(), std::logic_error);
  });
}

TEST_CASE("a sender closes its connection from another thread, after what it has sent") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const auto end = [sender = conn.sender()] {
      if (!sender.try_send("good-bye")) throw std::runtime_error("refused");
      sender.close();
    };
    TaskGroup group;
    std::error_code told;
    const auto read = [&conn = conn, &told]() -> Task<> {
      auto [error, data] = co_await as_tuple(conn.read());
      told = error;
    };
    group.spawn(read());
    co_await in_thread(end);
    co_await group.join();
    CHECK(told == std::errc::operation_canceled);
    CHECK_FALSE(conn.sender().open());
    const auto receive = [peer = &peer] { return peer->receive_all(); };
    const std::string got = co_await in_thread(receive);
    CHECK(got == "good-bye");
  });
}

TEST_CASE("a sender resets its connection, also one that is half-closed") {
  on_each_engine([]() -> Task<> {
    for (const bool half_closed : {false, true}) {
      auto [conn, peer] = connect_pair();
      const Sender sender = conn.sender();
      if (half_closed) co_await conn.shutdown();
      TaskGroup group;
      std::error_code told;
      const auto read = [&conn = conn, &told]() -> Task<> {
        auto [error, data] = co_await as_tuple(conn.read());
        told = error;
      };
      group.spawn(read());
      const auto end = [&sender] { sender.force_close(); };
      co_await in_thread(end);
      co_await group.join();
      CHECK(told == std::errc::operation_canceled);
      const auto wait = [peer = &peer] { return peer->wait_for_end(); };
      const int error = co_await in_thread(wait);
      if (!half_closed) CHECK(error == ECONNRESET);  // else the FIN came before
      CHECK(conn.state() == ConnectionState::disconnected);
    }
  });
}

TEST_CASE("a sender that ends a connection which has gone does nothing") {
  on_each_engine([]() -> Task<> {
    const Sender none;
    none.close();
    none.force_close();
    Sender sender;
    {
      auto [conn, peer] = connect_pair();
      sender = conn.sender();
      sender.close();
      sender.force_close();  // both come after the connection's end
    }
    co_await turns(3);
    sender.close();
    sender.force_close();
    co_await turns(3);
    CHECK_FALSE(sender.open());
  });
}

TEST_CASE("threads may end a connection while its owner drops it") {
  for_each_engine([](Engine engine) {  // threads that race
    on_engine(engine, []() -> Task<> {
      for (int round = 0; round < 30; ++round) {
        auto pair = std::make_unique<Connected>(connect_pair());
        std::atomic<int> going{0};
        std::vector<std::jthread> threads;
        for (int i = 0; i < 3; ++i) {
          threads.emplace_back([&going, i, sender = pair->connection.sender()] {
            ++going;
            while (sender.try_send("x")) {
              if (i == 0) sender.close();
              if (i == 1) sender.force_close();
            }
            sender.force_close();
          });
        }
        co_await turn_until([&] { return going == 3; });
        co_await turns(round % 5);
        pair.reset();
        threads.clear();
        co_await turns(2);
      }
    });
  });
}

TEST_CASE("messages accepted before the connection is dropped still go out") {
  on_each_engine([]() -> Task<> {
    Peer peer;
    std::string expected;
    {
      auto pair = connect_pair();
      peer = std::move(pair.peer);
      const Sender sender = pair.connection.sender();
      for (int i = 0; i < 1000; ++i) {
        CHECK(sender.try_send(line_of(0, i)));
        expected += line_of(0, i);
      }
    }
    const auto receive = [&peer] { return peer.receive_all(); };
    const std::string got = co_await in_thread(receive);
    CHECK(got == expected);
  });
}

TEST_CASE("what threads were promised goes out though the connection is closed meanwhile") {
  on_each_engine([]() -> Task<> {
    constexpr int kThreads = 3;
    for (int round = 0; round < 10; ++round) {  // each costs a second where many want the cores
      auto pair = std::make_unique<Connected>(connect_pair(marks(16 << 10, 4 << 10)));
      Peer peer = std::move(pair->peer);
      std::atomic<int> going{0};
      std::vector<int> accepted(kThreads, 0);
      std::vector<std::unique_ptr<Thread>> threads;
      for (int i = 0; i < kThreads; ++i) {
        threads.push_back(std::make_unique<Thread>([&, i, sender = pair->connection.sender()] {
          int& count = accepted[static_cast<std::size_t>(i)];
          ++going;
          for (;;) {
            if (sender.try_send(line_of(i, count))) {
              ++count;
            } else if (!sender.open()) {
              return;
            } else {
              yield_thread();
            }
          }
        }));
      }
      const auto receive = [&peer] { return peer.receive_all(); };
      TaskGroup group;
      std::string got;
      const auto collect = [&]() -> Task<> { got = co_await in_thread(receive); };
      group.spawn(collect());
      co_await turn_until([&] { return going == kThreads; });
      co_await turns(round % 5);
      pair.reset();
      threads.clear();
      co_await group.join();
      CHECK(count_lines(got, kThreads) == accepted);
    }
  });
}

TEST_CASE("a send from another loop waits for the low mark and comes back") {
  on_each_engine([]() -> Task<> {
    EventLoopThread other(EventLoop::current().options());
    auto [conn, peer] = connect_pair(marks(64 << 10, 1 << 10), kSmall);
    const auto produce = [](Sender sender, EventLoop* expected) -> Task<int> {
      for (int i = 0; i < 200; ++i) {
        co_await sender.send(pattern(10000, 1, static_cast<std::uint64_t>(i) * 10000));
        if (&EventLoop::current() != expected) co_return -1;
      }
      co_return 200;
    };
    const auto receive = [peer = &peer] { return peer->receive_exactly(200 * 10000); };
    TaskGroup group;
    std::string got;
    const auto collect = [&]() -> Task<> { got = co_await in_thread(receive); };
    group.spawn(collect());
    const int sent = co_await on(other.loop(), produce(conn.sender(), &other.loop()));
    CHECK(sent == 200);
    co_await group.join();
    CHECK(matching(got, 1, 0) == 200 * 10000);
  });
}

TEST_CASE("a send from another loop that waits is told when the connection closes") {
  on_each_engine([]() -> Task<> {
    EventLoopThread other(EventLoop::current().options());
    auto pair = std::make_unique<Connected>(connect_pair(marks(1000, 0), kSmall));
    const Sender sender = pair->connection.sender();
    CHECK(sender.try_send(std::string(4 << 20, 'x')));
    co_await turns(2);
    Event waiting;
    EventLoop& here = EventLoop::current();
    const auto wait = [&](Sender from) -> Task<bool> {
      here.post([&waiting] { waiting.set(); });
      auto [error, none] = co_await as_tuple(from.send("never"));
      co_return error == std::errc::broken_pipe;
    };
    TaskGroup group;
    bool refused = false;
    const auto cross = [&]() -> Task<> { refused = co_await on(other.loop(), wait(sender)); };
    group.spawn(cross());
    co_await waiting.wait();
    pair->connection.force_close();
    co_await group.join();
    CHECK(refused);
  });
}

TEST_CASE("a send from another loop that is dropped while it waits sends nothing") {
  on_each_engine([]() -> Task<> {
    EventLoopThread other(EventLoop::current().options());
    auto [conn, peer] = connect_pair(marks(1000, 0), kSmall);
    const Sender sender = conn.sender();
    CHECK(sender.try_send(pattern(1 << 20)));
    co_await turns(2);
    const auto wait = [](Sender from) -> Task<bool> {
      auto [error, none] = co_await as_tuple(timeout(1ms, from.send("dropped")));
      co_return error == std::errc::timed_out;
    };
    const bool dropped = co_await on(other.loop(), wait(sender));
    CHECK(dropped);
    const auto receive = [peer = &peer] { return peer->receive_all(); };
    TaskGroup group;
    std::string got;
    const auto collect = [&]() -> Task<> { got = co_await in_thread(receive); };
    group.spawn(collect());
    co_await conn.shutdown();
    co_await group.join();
    CHECK(matching(got, 1, 0) == 1U << 20);
  });
}

TEST_CASE("a sender breaks its connection off, whoever waits on it") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair(marks(64 << 10, 16 << 10), kSmall);
    const Sender sender = conn.sender();
    co_await conn.send(pattern(60 << 10));
    TaskGroup group;
    int ended = 0;
    const auto send = [&]() -> Task<> {
      auto [error, none] = co_await as_tuple(conn.send(pattern(1 << 20)));
      CHECK(error == std::errc::operation_canceled);
      ++ended;
    };
    const auto read = [&]() -> Task<> {
      auto [error, none] = co_await as_tuple(conn.read());
      CHECK(error == std::errc::operation_canceled);
      ++ended;
    };
    group.spawn(send());
    group.spawn(read());
    {
      const Thread other([sender] { sender.force_close(); });
    }
    co_await group.join();
    CHECK(ended == 2);
    CHECK_FALSE(sender.open());
    const auto receive = [peer = &peer] { return peer->wait_for_end(); };
    const int error = co_await in_thread(receive);
    CHECK(error == ECONNRESET);
  });
}

TEST_CASE("a sender outlives its connection and its loop") {
  for_each_engine([](Engine engine) {
    Sender sender;
    std::optional<std::jthread> thread;
    std::atomic<bool> stop{false};
    {
      EventLoop loop(LoopOptions{.engine = engine});
      const auto send = [&]() -> Task<> {
        auto [conn, peer] = connect_pair();
        sender = conn.sender();
        thread.emplace([&stop, sender] {
          while (!stop) (void)sender.try_send("x");
        });
        co_await turns(10);
      };
      loop.run_until_complete(send());
    }
    CHECK_FALSE(sender.open());
    sender.close();
    sender.force_close();
    stop = true;
    thread.reset();
    CHECK_FALSE(sender.try_send("x"));
  });
}

TEST_CASE("a message that lacks memory leaves the Sender as it was, and the next one goes out") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const Sender sender = conn.sender();
    const std::string text(100, 'm');
    const auto send = [&sender, &text] {
      for (std::uint64_t allowed = 0;; ++allowed) {
        std::string message = text;
        bool sent = false;
        std::uint64_t failed = 0;
        {
          const FailingAllocations failing(allowed);
          try {
            sent = sender.try_send(std::move(message));
          } catch (const std::bad_alloc&) {
          }
          failed = failing.failed();
        }
        CHECK(sent == (failed == 0));
        if (failed == 0) break;
      }
      CHECK(sender.try_send("end"));
    };
    co_await in_thread(send);  // on the loop's own it would go without asking the loop for a turn
    // Nothing else is done with the connection that would have it look for what the Sender has.
    const auto receive = [peer = &peer] { return peer->receive_exactly(103); };
    const std::string got = co_await in_thread(receive);
    CHECK(got == text + "end");
  });
}
