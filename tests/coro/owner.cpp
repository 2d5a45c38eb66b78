#include <weir/core/event_loop.h>
#include <weir/coro/event.h>
#include <weir/coro/owner.h>
#include <weir/coro/semaphore.h>

#include <doctest/doctest.h>

#include <csignal>
#include <string>
#include <thread>
#include <utility>

#include "../support/child.h"

using namespace weir;

TEST_CASE(
    "what belongs to a loop ends the process when another thread uses it, and says what to use") {
  const std::pair<const char*, const char*> uses[] = {
      {"set", "Event::set"},         {"wait", "Event::wait"},
      {"release", "permit"},         {"acquire", "Semaphore::acquire"},
      {"unlock", "lock of a Mutex"}, {"lock", "Mutex::lock"},
      {"spawn", "TaskGroup::spawn"}, {"cancel", "TaskGroup::cancel"},
      {"join", "TaskGroup::join"},   {"close", "TcpConnection"},
      {"read", "TcpConnection"},     {"send", "TcpConnection"},
      {"give back", "a Chunk"},      {"give back a copy", "a Chunk"},
      {"move", "a Chunk"},           {"slice", "a Chunk"},
  };
  for (const auto& [use, named] : uses) {
    INFO("use: ", use);
    test::Child child(WEIR_TEST_PROGRAMS_DIR "/wrong_thread", {use});
    const std::string output = child.read_all();
    CHECK(output.find(named) != std::string::npos);
    CHECK(output.find("thread that is not its loop's; use ") != std::string::npos);
    CHECK(child.wait() == -SIGABRT);
  }
}

TEST_CASE("a chunk without a lease may go to another thread") {
  test::Child child(WEIR_TEST_PROGRAMS_DIR "/wrong_thread", {"empty"});
  CHECK(child.read_all() == "nothing was said\n");
  CHECK(child.wait() == 0);
}

TEST_CASE("what belongs to a loop may be used from any thread while the loop does not run") {
  EventLoop loop;
  Event event;
  Semaphore semaphore(1);
  int done = 0;
  const auto body = [&]() -> Task<> {
    const auto permit = co_await semaphore.acquire();
    co_await event.wait();
    ++done;
  };
  loop.spawn(body());
  loop.spawn(body());
  loop.post([&] { loop.stop(); });
  loop.run();
  std::thread([&] { event.set(); }).join();
  loop.post([&] { loop.post([&] { loop.post([&] { loop.stop(); }); }); });
  loop.run();
  CHECK(done == 2);
}
