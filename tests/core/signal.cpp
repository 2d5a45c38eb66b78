#include <weir/core/signal.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_all.h>
#include <weir/coro/when_any.h>

#include <doctest/doctest.h>
#include <pthread.h>

#include <chrono>
#include <csignal>
#include <system_error>
#include <thread>

#include "../support/drop_at.h"

using namespace weir;
using namespace std::chrono_literals;

namespace {

bool blocked(int number) {
  sigset_t mask;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return ::sigismember(&mask, number) == 1;
}

Task<> raise_soon(int number) {
  co_await yield();
  ::raise(number);
}

Task<int> wait_for_usr1() { co_return co_await weir::signal(SIGUSR1); }

int handled = 0;

/// A signal is raised once somebody waits for it: the waiter gets it, or the handler does.
struct Raised {
  Task<> task() { co_await when_all(receive(), raise()); }
  Task<> receive() {
    co_await weir::signal(SIGUSR1);
    ++received;
  }
  Task<> raise() {
    raised = 1;
    ::raise(SIGUSR1);
    co_return;
  }
  Task<> afterwards(bool) {
    while (blocked(SIGUSR1)) co_await yield();  // until the kernel lets go
    CHECK(raised == received + handled);
  }

  Raised() { handled = 0; }
  int raised = 0;
  int received = 0;
};

}  // namespace

TEST_CASE("a signal is not lost, whenever whoever waits for it is dropped") {
  const auto before = std::signal(SIGUSR1, [](int) { ++handled; });
  CHECK(test::drop_at_every_moment([] { return Raised(); }) >= 2);
  std::signal(SIGUSR1, before);
}

TEST_CASE("signal gives the signal that came, and restores the mask") {
  const auto body = []() -> Task<> {
    const auto [number, none] =
        co_await when_all(weir::signal(SIGUSR1, SIGUSR2), raise_soon(SIGUSR2));
    CHECK(number == SIGUSR2);
  };
  run(body());
  CHECK_FALSE(blocked(SIGUSR1));
  CHECK_FALSE(blocked(SIGUSR2));
}

TEST_CASE("signals may be given in braces, and by a set with a name") {
  const auto body = []() -> Task<> {
    TaskGroup group;
    group.spawn(raise_soon(SIGTERM));
    CHECK(co_await weir::signal({SIGINT, SIGTERM}) == SIGTERM);
    group.spawn(raise_soon(SIGINT));
    const SignalSet set(SIGINT, SIGTERM);
    CHECK(co_await weir::signal(set) == SIGINT);
  };
  run(body());
}

TEST_CASE("signals are blocked as long as somebody waits, dropped waits restore the mask") {
  const auto body = []() -> Task<> {
    TaskGroup group;
    group.spawn(wait_for_usr1());
    CHECK(blocked(SIGUSR1));
    group.spawn(wait_for_usr1());
    group.cancel();
    co_await sleep(1ms);  // the kernel lets go
    CHECK_FALSE(blocked(SIGUSR1));
    const auto [error, number] = co_await as_tuple(timeout(1ms, weir::signal(SIGUSR1)));
    CHECK(error == std::errc::timed_out);
    co_await sleep(1ms);
    CHECK_FALSE(blocked(SIGUSR1));
  };
  run(body());
  CHECK_FALSE(blocked(SIGUSR1));
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
  };
  run(body());
}

TEST_CASE("a loop may end while a task waits for a signal") {
  {
    EventLoop loop;
    loop.spawn([]() -> Task<> { co_await weir::signal(SIGUSR1); }());
    const auto turn = []() -> Task<> { co_await yield(); };
    loop.run_until_complete(turn());
    CHECK(blocked(SIGUSR1));
  }
  CHECK_FALSE(blocked(SIGUSR1));
}
