// A look inside that is asked too much of: it harms nobody whom it looks at.
#include <weir/core/all_loops.h>
#include <weir/core/survey.h>
#include <weir/inspect.h>

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <future>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "../support/net.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

namespace hostile {

std::string get(const Inspector& inspector, std::string_view path,
                std::string_view accept = "*/*") {
  Peer peer = Peer::connect(inspector.address());
  peer.send("GET " + std::string(path) + " HTTP/1.1\r\nAccept: " + std::string(accept) +
            "\r\nConnection: close\r\n\r\n");
  return peer.receive_all();
}

Task<> descend(int levels, Event& never) {
  if (levels > 0) {
    co_await descend(levels - 1, never);
  } else {
    co_await never.wait();
  }
}

LoopOptions named(Engine engine, std::string_view name) {
  LoopOptions options;
  options.engine = engine;
  options.name = name;
  return options;
}

Task<> count_posted(std::promise<std::uint64_t>& count) {
  co_await yield();  // what is posted is counted when all of it has run
  count.set_value(EventLoop::current().metrics().posted);
}

std::uint64_t posted_to(EventLoop& loop) {
  std::promise<std::uint64_t> count;
  loop.spawn(count_posted(count));
  return count.get_future().get();
}

}  // namespace hostile

}  // namespace

TEST_CASE("a chain of calls that is deeper than anybody reads is shown by its beginning and end") {
  constexpr int kLevels = 3000;
  const Inspector inspector({.address = loopback()});
  Event never;
  EventLoopThread thread(hostile::named(Engine::epoll, "deep"));
  thread.loop().spawn(hostile::descend(kLevels, never));
  std::string tree;
  CHECK(eventually([&] {
    tree = hostile::get(inspector, "/tasks");
    return tree.find(": Event::wait") != std::string::npos;
  }));
  CHECK(tree.size() < 256'000);  // its indents alone would be 9 MB
  CHECK(tree.find("and more") != std::string::npos);
  const std::string json = hostile::get(inspector, "/tasks", "application/json");
  CHECK(json.find("\"waits_for\":\"Event::wait\"") != std::string::npos);
  std::size_t open = 0;
  std::size_t deepest = 0;
  for (const char c : json) {
    if (c == '[') deepest = std::max(deepest, ++open);
    if (c == ']') --open;
  }
  CHECK(deepest < 500);  // a parser may give up at a thousand
  thread.stop();
}

TEST_CASE("a loop that is stuck is not asked again before it has answered") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    EventLoopThread thread(hostile::named(engine, "stuck"));
    const std::uint64_t before = hostile::posted_to(thread.loop());
    std::promise<void> blocks;
    std::promise<void> release;
    thread.loop().post([&, released = release.get_future().share()] {
      blocks.set_value();
      released.wait();
    });
    blocks.get_future().wait();
    for (int i = 0; i < 4; ++i) {
      CHECK(hostile::get(inspector, "/loops").find("STUCK") != std::string::npos);
    }
    release.set_value();
    // What blocked it, one question, and the two who count.
    CHECK(hostile::posted_to(thread.loop()) <= before + 4);
    CHECK(eventually(
        [&] { return hostile::get(inspector, "/loops").find("STUCK") == std::string::npos; }));
    thread.stop();
  });
}

TEST_CASE("a child that is forked while somebody looks can have loops of its own") {
  if (kThreadSanitizer) return;  // it ends a child of a process with threads
  std::promise<void> inside;
  std::atomic<bool> over{false};
  const EventLoop loop;
  std::thread looks([&] {
    bool first = true;
    while (!over) {
      weir::detail::AllLoops::instance().for_each([&](EventLoop& /*one*/, std::uint64_t) {
        if (std::exchange(first, false)) inside.set_value();
        for (int i = 0; i < 100; ++i) std::this_thread::yield();  // as a rule a fork comes here
      });
      std::this_thread::yield();
    }
  });
  inside.get_future().wait();
  for (int i = 0; i < 3; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(20);  // for one that waits for a lock that nobody has
      {
        const EventLoop own;
      }
      ::_exit(0);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  over = true;
  looks.join();
}
