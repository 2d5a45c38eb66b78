// What a server that runs as a service tells its manager: sd_notify(3).
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "../support/captured_log.h"
#include "../support/net_server.h"
#include "../support/process.h"

using namespace weir;
using namespace weir::test;

namespace {

/// A manager's end of it.
class Manager {
 public:
  Manager() : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un any{};
    any.sun_family = AF_UNIX;
    REQUIRE(::bind(fd_, reinterpret_cast<sockaddr*>(&any), sizeof any.sun_family) == 0);
    socklen_t size = sizeof any;  // the kernel has chosen an abstract name
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&any), &size);
    name_ = '@' + std::string(any.sun_path + 1, size - offsetof(sockaddr_un, sun_path) - 1);
    const timeval patience{.tv_sec = 120, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;
  ~Manager() { ::close(fd_); }

  [[nodiscard]] const std::string& name() const { return name_; }
  /// The next that it is told.
  [[nodiscard]] std::string next(int flags = 0) const {
    char text[256];
    ssize_t count = 0;
    while ((count = ::recv(fd_, text, sizeof text, flags)) < 0 && errno == EINTR) continue;
    INFO("errno: " << errno);
    CHECK((count > 0 || flags == MSG_DONTWAIT));
    return count < 0 ? std::string() : std::string(text, static_cast<std::size_t>(count));
  }
  /// What it has been told by now.
  [[nodiscard]] std::vector<std::string> all() const {
    std::vector<std::string> told;
    for (std::string one; !(one = next(MSG_DONTWAIT)).empty();) told.push_back(std::move(one));
    return told;
  }

 private:
  int fd_;
  std::string name_;
};

}  // namespace

TEST_CASE("a server tells its service manager that it accepts, and that it ends") {
  const CapturedLog log;
  for_each_engine([](Engine engine) {
    const Manager manager;
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
    const Manager manager;
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
    const Manager manager;
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
