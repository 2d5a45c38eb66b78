#include <doctest/doctest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <latch>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "../support/captured_log.h"
#include "../support/net.h"
#include "../support/process.h"
#include "namespace.h"

using namespace weir;
using namespace weir::test;

namespace {

void shell(const std::string& command) {
  if (std::system(command.c_str()) != 0) throw std::runtime_error(command);
}

/// Runs two functions in two networks joined by a cable: 192.0.2.1 (device "near") for the first,
/// 192.0.2.2 for the second, which runs until `stop` is set. False where that is not permitted.
bool with_two_networks(const std::function<void()>& near,
                       const std::function<void(std::atomic<bool>&)>& far) {
  std::atomic<bool> stop{false};
  std::exception_ptr failure;
  const bool done = in_namespace([&] {
    std::atomic<pid_t> far_thread{0};
    std::latch cable(1);
    std::latch far_is_up(1);
    std::thread other([&] {
      try {
        if (::unshare(CLONE_NEWNET) != 0) throw std::runtime_error("unshare");
        far_thread = static_cast<pid_t>(::syscall(SYS_gettid));
        far_thread.notify_one();
        cable.wait();
        shell("ip link set lo up && ip address add 192.0.2.2/24 dev far && ip link set far up");
        far_is_up.count_down();
        far(stop);
      } catch (...) {
        failure = std::current_exception();
      }
    });
    far_thread.wait(0);
    try {
      shell("ip link add near type veth peer name far netns " + std::to_string(far_thread.load()));
      shell("ip address add 192.0.2.1/24 dev near && ip link set near up");
      cable.count_down();
      far_is_up.wait();
      near();
    } catch (...) {
      failure = std::current_exception();
      if (!cable.try_wait()) cable.count_down();
    }
    stop = true;
    other.join();
  });
  if (failure != nullptr) std::rethrow_exception(failure);
  return done;
}

Task<> echo(TcpConnection connection) {
  while (Chunk data = co_await connection.read()) co_await connection.send(std::move(data));
}

void serve_until(std::atomic<bool>& stop) {
  EventLoop loop;
  ServerOptions options;
  options.address = SocketAddress::parse("192.0.2.2:7000");
  TcpServer server(loop, options);
  server.start(echo);
  const auto wait = [&]() -> Task<> {
    while (!stop) co_await sleep(1ms);
  };
  loop.run_until_complete(wait());
}

}  // namespace

TEST_CASE("a host that does not answer at all is given up after attempt_timeout") {
  in_namespace([] {
    // Whatever goes out there is never heard of again.
    shell("ip link add nowhere type veth peer name end && ip link set nowhere up");
    shell("ip link set end up && ip address add 192.0.2.1/24 dev nowhere");
    shell("ip neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev nowhere");
    on_each_kernel_engine("no network namespaces", []() -> Task<> {
      const Connector connector(
          SocketAddress::parse("192.0.2.2:80"),
          {.initial_delay = 1ms, .max_delay = 1ms, .max_attempts = 3, .attempt_timeout = 30ms});
      const auto start = std::chrono::steady_clock::now();
      auto [error, socket] = co_await as_tuple(connector.connect());
      CHECK(error == std::errc::timed_out);
      CHECK(std::chrono::steady_clock::now() - start >= 90ms);
    });
  });
}

TEST_CASE("a client reconnects when the link goes down and comes up again") {
  CapturedLog log;
  with_two_networks(
      [] {
        on_each_kernel_engine("no network namespaces", []() -> Task<> {
          TcpClient client(
              {.address = SocketAddress::parse("192.0.2.2:7000"),
               .connector = {.initial_delay = 5ms, .max_delay = 20ms, .attempt_timeout = 300ms}});
          int answers = 0;
          int sessions = 0;
          bool talks = false;
          Event news;
          TaskGroup group;
          group.spawn(client.run([&](TcpConnection& connection) -> Task<> {
            ++sessions;
            struct Talking {
              bool& is;
              ~Talking() { is = false; }
            } const talking{talks = true};
            for (;;) {
              co_await connection.send("ping");
              (void)co_await timeout(300ms, connection.read_exactly(4));
              ++answers;
              news.set();
              co_await sleep(1ms);
            }
          }));
          const auto answer = [&]() -> Task<> {
            news.reset();
            co_await news.wait();
          };
          co_await answer();
          for (int round = 0; round < 2; ++round) {
            const int before = sessions;
            shell("ip link set near down");
            co_await turn_until([&] { return !talks; });
            const int then = answers;
            co_await sleep(50ms);
            CHECK(answers == then);  // it is silent
            shell("ip link set near up");
            co_await answer();
            CHECK(sessions > before);
          }
          client.stop();
          co_await group.join();
        });
      },
      serve_until);
}

TEST_CASE("a client whose server has no route yet connects once there is one") {
  in_namespace([] {
    on_each_kernel_engine("no network namespaces", []() -> Task<> {
      const Connector connector(SocketAddress::parse("192.0.2.1:7000"),
                                {.initial_delay = 1ms, .max_delay = 4ms});
      std::optional<Socket> connected;
      const auto connect = [&]() -> Task<> { connected = co_await connector.connect(); };
      TaskGroup group;
      group.spawn(connect());
      co_await sleep(10ms);
      CHECK_FALSE(connected);
      shell("ip address add 192.0.2.1/32 dev lo");
      Acceptor acceptor(SocketAddress::parse("192.0.2.1:7000"));
      const Socket socket = co_await acceptor.accept();
      co_await group.join();
      CHECK(connected);
      shell("ip address del 192.0.2.1/32 dev lo");
    });
  });
}

TEST_CASE("bytes cross a network that delays and loses packets, whole and in order") {
  if (std::system("tc qdisc help >/dev/null 2>&1") == 127 << 8) {
    MESSAGE("skipped: no tc(8)");
    return;
  }
  with_two_networks(
      [] {
        if (std::system("tc qdisc add dev near root netem delay 2ms loss 2% 2>/dev/null") != 0) {
          MESSAGE("skipped: this kernel has no netem");
          return;
        }
        on_each_kernel_engine("no network namespaces", []() -> Task<> {
          TcpConnection connection = co_await connect("192.0.2.2:7000");
          const std::string bytes = pattern(1'000'000);
          const auto send = [&]() -> Task<> {
            co_await connection.send(bytes);
            co_await connection.shutdown();
          };
          std::string received;
          const auto receive = [&]() -> Task<> {
            while (const Chunk chunk = co_await connection.read()) received += chunk.view();
          };
          co_await when_all(send(), receive());
          CHECK(received == bytes);
        });
      },
      serve_until);
}
