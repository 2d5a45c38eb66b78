// What a server that runs as a service tells its manager: sd_notify(3).
#include "../support/service_manager.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net_server.h"
#include "../support/process.h"

using namespace weir;
using namespace weir::test;

TEST_CASE("a server tells its service manager that it accepts, and that it ends") {
  const CapturedLog log;
  for_each_engine([](Engine engine) {
    Manager manager;
    const Environment socket("NOTIFY_SOCKET", manager.name().c_str());
    for (const bool by_signal : {false, true}) {
      ServerThread server(server_options(engine, 2), echo);
      CHECK(manager.next() == "READY=1");
      Peer peer = server.connect();
      CHECK(echoes(peer));
      if (by_signal) {
        peer.close();
        ::kill(::getpid(), SIGTERM);
        server.join();
      } else {
        server.stop();
      }
      CHECK(manager.all() == std::vector<std::string>{"STOPPING=1"});
    }
  });
}

TEST_CASE("a service manager's watchdog is fed while all loops of the server answer") {
  const CapturedLog log;
  for_each_engine([](Engine engine) {
    Manager manager;
    const Environment socket("NOTIFY_SOCKET", manager.name().c_str());
    const Environment limit("WATCHDOG_USEC", "20000");
    const Environment process("WATCHDOG_PID", std::to_string(::getpid()).c_str());
    ServerThread server(server_options(engine, 2), echo);
    CHECK(manager.next() == "READY=1");
    for (int i = 0; i < 3; ++i) CHECK(manager.next() == "WATCHDOG=1");
    std::atomic<bool> stuck{false};
    std::atomic<bool> stalled{false};  // for five times the limit
    std::atomic<bool> go_on{false};
    EventLoop& loop = *server->loops()[1];
    loop.post([&] {
      const std::uint64_t before = loop.metrics().stalls;
      stuck = true;
      stalled = eventually([&] { return loop.metrics().stalls > before; });
      while (!go_on) std::this_thread::yield();
    });
    CHECK(eventually([&] { return stuck.load(); }));
    (void)manager.all();
    CHECK(eventually([&] { return stalled.load(); }));
    CHECK(manager.all().size() <= 1);  // of a round that had asked that loop before
    go_on = true;
    CHECK(manager.next() == "WATCHDOG=1");
  });
}

TEST_CASE("a watchdog of another process is not fed, and who has no manager tells nobody") {
  for_each_engine([](Engine engine) {
    Manager manager;
    const Environment limit("WATCHDOG_USEC", "1000");
    const Environment process("WATCHDOG_PID", "1");
    for (const char* name : {manager.name().c_str(), "", "@", "nonsense", "/no/such/socket"}) {
      const Environment socket("NOTIFY_SOCKET", name);
      ServerThread server(server_options(engine), echo);
      Peer peer = server.connect();
      CHECK(echoes(peer));
      peer.close();
    }
    CHECK(manager.all() == std::vector<std::string>{"READY=1", "STOPPING=1"});
  });
}
