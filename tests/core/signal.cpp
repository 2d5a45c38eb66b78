#include <weir/core/loop_thread.h>
#include <weir/core/on.h>
#include <weir/core/signal.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_all.h>
#include <weir/coro/when_any.h>

#include <doctest/doctest.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#include "../support/drop_at.h"
#include "../support/net.h"
#include "../support/process.h"

using namespace weir;
using namespace std::chrono_literals;

namespace {

std::atomic<int> handled = 0;
void count_it(int) { ++handled; }

bool blocked(int number) {
  sigset_t mask;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return ::sigismember(&mask, number) == 1;
}

/// Somebody holds it: it does not do what it would without us.
bool held(int number) {
  struct sigaction now{};
  ::sigaction(number, nullptr, &now);
  return now.sa_handler != SIG_DFL && now.sa_handler != count_it;
}

Task<> raise_soon(int number) {
  co_await yield();
  ::raise(number);
}

/// Has SIGUSR1 counted instead of kill, where it does what it does by itself.
class Counted {
 public:
  Counted() : before_(std::signal(SIGUSR1, count_it)) { handled = 0; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { std::signal(SIGUSR1, before_); }

 private:
  void (*before_)(int);
};

Task<int> wait_for_usr1() { co_return co_await weir::signal(SIGUSR1); }

/// A signal is raised once somebody waits for it: the waiter gets it, or the handler does.
struct Raised {
  Task<> task() { co_await when_all(receive(), raise_it()); }
  Task<> receive() {
    co_await weir::signal(SIGUSR1);
    ++received;
  }
  Task<> raise_it() {
    raised = 1;
    ::raise(SIGUSR1);
    co_return;
  }
  Task<> afterwards(bool) {
    while (received == 0 && held(SIGUSR1)) co_await yield();  // to the end of the turn
    CHECK(raised == received + handled);
  }

  Counted counted;
  int raised = 0;
  int received = 0;
};

}  // namespace

TEST_CASE("a signal is not lost, whenever whoever waits for it is dropped") {
  CHECK(test::drop_at_every_moment([] { return std::make_unique<Raised>(); }) >= 2);
}

TEST_CASE("signal gives the signal that came, and restores what was before") {
  const auto body = []() -> Task<> {
    const auto [number, none] =
        co_await when_all(weir::signal(SIGUSR1, SIGUSR2), raise_soon(SIGUSR2));
    CHECK(number == SIGUSR2);
  };
  run(body());
  CHECK_FALSE(held(SIGUSR1));
  CHECK_FALSE(held(SIGUSR2));
  CHECK_FALSE(blocked(SIGUSR1));
  CHECK_FALSE(blocked(SIGUSR2));
}

TEST_CASE("signals may be given in braces, and by a set with a name") {
  const auto body = []() -> Task<> {
    TaskGroup group;
    group.spawn(raise_soon(SIGTERM));
    CHECK(co_await weir::signal({SIGINT, SIGTERM}) == SIGTERM);
    group.spawn(raise_soon(SIGINT));
    const weir::detail::SignalSet set(SIGINT, SIGTERM);
    CHECK(co_await weir::signal(set) == SIGINT);
  };
  run(body());
}

TEST_CASE("signals are held as long as somebody waits, dropped waits give them back") {
  const auto body = []() -> Task<> {
    TaskGroup group;
    group.spawn(wait_for_usr1());
    CHECK(held(SIGUSR1));
    group.spawn(wait_for_usr1());
    group.cancel();
    while (held(SIGUSR1)) co_await yield();  // to the end of the turn
    const auto [error, number] = co_await as_tuple(timeout(1ms, weir::signal(SIGUSR1)));
    CHECK(error == std::errc::timed_out);
    while (held(SIGUSR1)) co_await yield();
  };
  run(body());
  CHECK_FALSE(held(SIGUSR1));
}

TEST_CASE("a signal that was blocked before stays so") {
  sigset_t set;
  sigset_t before;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGUSR1);
  ::pthread_sigmask(SIG_BLOCK, &set, &before);
  const auto body = []() -> Task<> {
    TaskGroup group;
    group.spawn(raise_soon(SIGUSR1));
    CHECK(co_await weir::signal(SIGUSR1) == SIGUSR1);
  };
  run(body());
  CHECK(blocked(SIGUSR1));
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE("a signal that is pending while another is taken goes to the next who waits") {
  const auto body = []() -> Task<> {
    TaskGroup group;
    const auto raise_both = []() -> Task<> {
      co_await yield();
      ::kill(::getpid(), SIGUSR1);
      ::kill(::getpid(), SIGUSR2);
    };
    group.spawn(raise_both());
    int seen = 0;
    while (seen != (1 | 2)) {
      const int number = co_await weir::signal(SIGUSR1, SIGUSR2);
      seen |= number == SIGUSR1 ? 1 : 2;
    }
    co_await group.join();
  };
  run(body());
  CHECK_FALSE(held(SIGUSR1));
  CHECK_FALSE(held(SIGUSR2));
  CHECK_FALSE(blocked(SIGUSR1));
  CHECK_FALSE(blocked(SIGUSR2));
}

TEST_CASE("of two that wait for one signal each gets one") {
  const auto body = []() -> Task<> {
    int came = 0;
    TaskGroup group;
    const auto wait = [&]() -> Task<> {
      co_await weir::signal(SIGUSR1);
      ++came;
    };
    group.spawn(wait());
    group.spawn(wait());
    for (int wanted = 1; wanted <= 2; ++wanted) {
      ::raise(SIGUSR1);
      while (came < wanted) co_await yield();
      CHECK(came == wanted);
    }
    co_await group.join();
  };
  run(body());
}

TEST_CASE("a number that is no signal is refused") {
  const auto body = []() -> Task<> {
    bool thrown = false;
    try {
      co_await weir::signal(12345);
    } catch (const std::system_error& error) {
      thrown = error.code() == std::errc::invalid_argument;
    }
    CHECK(thrown);
    auto [error, number] = co_await as_tuple(weir::signal(12345));
    CHECK(error == std::errc::invalid_argument);
    CHECK(number == 0);
    auto [inner, same] = co_await as_tuple(timeout(1h, weir::signal(12345)));
    CHECK(inner == std::errc::invalid_argument);
    CHECK(same == 0);
  };
  run(body());
}

TEST_CASE("a loop may end while a task waits for a signal") {
  {
    EventLoop loop;
    loop.spawn([]() -> Task<> { co_await weir::signal(SIGUSR1); }());
    const auto turn = []() -> Task<> { co_await yield(); };
    loop.run_until_complete(turn());
    CHECK(held(SIGUSR1));
  }
  CHECK_FALSE(held(SIGUSR1));
}

TEST_CASE("a signal that comes between two waits kills nobody and goes to the next") {
  const Counted counted;
  const auto body = []() -> Task<> {
    TaskGroup group;
    group.spawn(raise_soon(SIGUSR1));
    CHECK(co_await weir::signal(SIGUSR1) == SIGUSR1);
    for (int i = 0; i < 3; ++i) {
      co_await sleep(1ms);  // nobody waits
      ::raise(SIGUSR1);
      co_await sleep(1ms);
      CHECK(co_await weir::signal(SIGUSR1) == SIGUSR1);
    }
    ::raise(SIGUSR1);  // and at the end of the loop it is forgotten
  };
  run(body());
  CHECK(handled == 0);
  CHECK_FALSE(held(SIGUSR1));
}

TEST_CASE("waiting again and again for signals needs one descriptor") {
  const auto body = []() -> Task<> {
    TaskGroup group;
    group.spawn(raise_soon(SIGUSR1));
    (void)co_await weir::signal(SIGUSR1);
    const std::size_t before = test::open_descriptors().size();
    for (int i = 0; i < 10; ++i) {
      group.spawn(raise_soon(SIGUSR1));
      (void)co_await weir::signal(SIGUSR1, SIGUSR2);
      (void)co_await as_tuple(timeout(0ms, weir::signal(SIGHUP)));
    }
    CHECK(test::open_descriptors().size() == before);
  };
  const std::size_t before = test::open_descriptors().size();
  run(body());
  CHECK(test::open_descriptors().size() == before);
}

TEST_CASE("a signal that comes in the turn in which a wait for another one is dropped is told") {
  const auto body = []() -> Task<> {
    const auto drop_and_raise = []() -> Task<> {
      (void)co_await as_tuple(timeout(0ms, weir::signal(SIGHUP)));
      ::raise(SIGUSR1);  // before the turn ends, at which SIGHUP is given back
    };
    TaskGroup group;
    group.spawn(drop_and_raise());
    CHECK(co_await weir::signal(SIGUSR1, SIGUSR2) == SIGUSR1);
  };
  for (const Engine engine : {Engine::automatic, Engine::epoll}) {
    EventLoop loop({.engine = engine});
    loop.run_until_complete(body());
  }
}

TEST_CASE("Signals hold theirs from construction to destruction, with or without a loop") {
  const Counted counted;
  std::optional<Signals> signals(SIGUSR1);
  CHECK(held(SIGUSR1));
  ::raise(SIGUSR1);
  ::raise(SIGUSR1);  // one is pending for each number, signal(7)
  const auto two = [](Signals& from) -> Task<> {
    CHECK(co_await from.next() == SIGUSR1);
    const auto [error, number] = co_await as_tuple(timeout(1ms, from.next()));
    CHECK(error == std::errc::timed_out);
    ::raise(SIGUSR1);
    CHECK(co_await from.next() == SIGUSR1);
    TaskGroup group;
    group.spawn(raise_soon(SIGUSR1));
    CHECK(co_await from.next() == SIGUSR1);
  };
  run(two(*signals));
  ::raise(SIGUSR1);
  run([](Signals& from) -> Task<> { CHECK(co_await from.next() == SIGUSR1); }(*signals));
  ::raise(SIGUSR1);
  signals.reset();  // forgotten: it was held
  CHECK(handled == 0);
  ::raise(SIGUSR1);
  CHECK(handled == 1);
}

TEST_CASE("a dropped wait for the next signal loses none") {
  struct Scene {
    Task<> task() { co_await when_all(receive(), raise_it()); }
    Task<> receive() {
      (void)co_await signals.next();
      ++received;
    }
    Task<> raise_it() {
      ::raise(SIGUSR1);
      raised = 1;
      co_return;
    }
    Task<> afterwards(bool) {
      while (received < raised) co_await receive();
      CHECK(handled == 0);
    }
    Counted counted;
    Signals signals{SIGUSR1};
    int raised = 0;
    int received = 0;
  };
  CHECK(test::drop_at_every_moment([] { return std::make_unique<Scene>(); }) >= 2);
}

TEST_CASE("several who wait for the next signal get one each, in their order") {
  const auto body = []() -> Task<> {
    Signals signals(SIGUSR1, SIGUSR2);
    std::vector<int> got;
    TaskGroup group;
    const auto wait = [&](int who) -> Task<> {
      const int number = co_await signals.next();
      got.push_back(who * 100 + number);
    };
    group.spawn(wait(1));
    group.spawn(wait(2));
    ::raise(SIGUSR2);
    while (got.empty()) co_await yield();
    ::raise(SIGUSR1);
    co_await group.join();
    CHECK(got == std::vector<int>{100 + SIGUSR2, 200 + SIGUSR1});
  };
  run(body());
}

TEST_CASE("Signals destroyed under those who wait end their waits") {
  const auto body = []() -> Task<> {
    std::optional<Signals> signals(SIGUSR1);
    bool cancelled = false;
    const auto wait = [&]() -> Task<> {
      const auto [error, number] = co_await as_tuple(signals->next());
      cancelled = error == std::errc::operation_canceled;
    };
    TaskGroup group;
    group.spawn(wait());
    signals.reset();
    co_await group.join();
    CHECK(cancelled);
    CHECK_FALSE(held(SIGUSR1));
  };
  run(body());
}

TEST_CASE("every holder in the process is told of a signal") {
  const Counted counted;
  Signals here(SIGUSR1);
  std::atomic<int> ready = 0;
  std::atomic<int> told = 0;
  const auto wait = [&](bool by_signal) -> Task<> {
    if (by_signal) {
      TaskGroup group;
      group.spawn([](std::atomic<int>& is_told) -> Task<> {
        (void)co_await weir::signal(SIGUSR1);
        ++is_told;
      }(told));
      ++ready;
      co_await group.join();
    } else {
      Signals own(SIGUSR1);
      ++ready;
      (void)co_await own.next();
      ++told;
    }
  };
  std::thread first([&] { run(wait(false)); });
  std::thread second([&] { run(wait(true)); });
  while (ready < 2) std::this_thread::yield();
  ::kill(::getpid(), SIGUSR1);
  first.join();
  second.join();
  CHECK(told == 2);
  CHECK(run([](Signals& from) -> Task<int> { co_return co_await from.next(); }(here)) == SIGUSR1);
  CHECK(handled == 0);
}

TEST_CASE("a signal that all threads block reaches its holder, and is blocked again afterwards") {
  sigset_t set;
  sigset_t before;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGUSR1);
  ::pthread_sigmask(SIG_BLOCK, &set, &before);
  ::kill(::getpid(), SIGUSR1);  // before: it is pending, and told as well
  {
    Signals first(SIGUSR1);
    std::optional<Signals> second(SIGUSR1);
    run([](Signals& from) -> Task<> {
      CHECK(co_await from.next() == SIGUSR1);
      ::kill(::getpid(), SIGUSR1);
      CHECK(co_await from.next() == SIGUSR1);
    }(first));
    second.reset();
    CHECK_FALSE(blocked(SIGUSR1));
  }
  CHECK(blocked(SIGUSR1));
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE("a loop that is destroyed on another thread leaves no handler behind") {
  test::for_each_engine([](Engine engine) {
    LoopOptions options;
    options.engine = engine;
    auto loop = std::make_unique<EventLoop>(options);
    loop->spawn([](EventLoop& on) -> Task<> {
      on.stop();
      co_await weir::signal(SIGUSR1);
    }(*loop));
    std::thread([&] { loop->run(); }).join();
    CHECK(held(SIGUSR1));
    loop.reset();
    CHECK_FALSE(held(SIGUSR1));
  });
}

TEST_CASE("a disposition that was changed meanwhile is left alone") {
  const Counted counted;
  {
    const Signals signals(SIGUSR1);
    std::signal(SIGUSR1, SIG_IGN);
  }
  ::raise(SIGUSR1);
  CHECK(handled == 0);
}

TEST_CASE("what cannot be held is refused, and nothing stays behind") {
  CHECK_THROWS_AS(Signals(SIGUSR1, SIGKILL), std::system_error);
  CHECK_FALSE(held(SIGUSR1));
  CHECK_THROWS_AS(Signals{12345}, std::system_error);
}

TEST_CASE("signal with a handler is the one of the C library") {
  using Handler = void (*)(int);
  static_assert(std::is_same_v<decltype(signal(SIGUSR1, SIG_IGN)), Handler>);
  static_assert(std::is_same_v<decltype(signal(SIGUSR1, [](int) {})), Handler>);
  static_assert(std::is_same_v<decltype(signal(SIGUSR1, nullptr)), Handler>);
  static_assert(std::is_same_v<decltype(signal(SIGUSR1, SIGUSR2)), weir::detail::SignalAwaiter>);
  const Handler before = signal(SIGUSR1, SIG_IGN);
  CHECK((signal(SIGUSR1, before) == SIG_IGN));
}

TEST_CASE("Signals destroyed on another thread end the waits on their loop") {
  test::for_each_engine([](Engine engine) {
    LoopOptions options;
    options.engine = engine;
    EventLoopThread thread(options);
    for (int round = 0; round < 20; ++round) {
      std::optional<Signals> signals(SIGUSR1);
      std::atomic<int> waiting{0};
      std::atomic<int> cancelled{0};
      const auto wait = [&]() -> Task<> {
        ++waiting;
        const auto [error, number] = co_await as_tuple(signals->next());
        if (error == std::errc::operation_canceled) ++cancelled;
      };
      thread.loop().spawn(wait);
      thread.loop().spawn(wait);
      const auto end = std::chrono::steady_clock::now() + 2min;
      const auto in_time = [&] { return std::chrono::steady_clock::now() < end; };
      while (waiting < 2 && in_time()) std::this_thread::yield();
      thread.loop().call([] {});  // and the second of them waits
      signals.reset();
      CHECK_FALSE(held(SIGUSR1));
      while (cancelled < 2 && in_time()) std::this_thread::yield();
      CHECK(cancelled == 2);
    }
  });
}

TEST_CASE("Signals whose waits are over may be awaited on another loop") {
  const Counted counted;
  Signals signals(SIGUSR1);
  EventLoopThread thread;
  const auto brief = [&]() -> Task<> {
    const auto [error, number] = co_await as_tuple(timeout(1ms, signals.next()));
    CHECK(error == std::errc::timed_out);
  };
  const auto here_and_there = [&]() -> Task<> {
    for (int round = 0; round < 5; ++round) {
      co_await on(thread.loop(), brief());
      co_await brief();
    }
    TaskGroup group;
    group.spawn(raise_soon(SIGUSR1));
    CHECK(co_await signals.next() == SIGUSR1);
    group.spawn(raise_soon(SIGUSR1));
    CHECK(co_await on(thread.loop(), [](Signals& of) -> Task<int> {
            co_return co_await of.next();
          }(signals)) == SIGUSR1);
  };
  run(here_and_there());
}

TEST_CASE("a loop may end under Signals that others go on with") {
  Signals signals(SIGUSR1);
  for (int round = 0; round < 3; ++round) {
    EventLoop loop;
    loop.spawn([](Signals& of, EventLoop& on) -> Task<> {
      on.stop();
      (void)co_await of.next();
    }(signals, loop));
    loop.run();
  }
  ::raise(SIGUSR1);
  run([](Signals& from) -> Task<> { CHECK(co_await from.next() == SIGUSR1); }(signals));
}
