#include <weir/core/sleep.h>
#include <weir/coro/task_group.h>
#include <weir/net/sender.h>
#include <weir/net/tcp_connection.h>

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "check.h"
#include "model.h"

using namespace weir;
using namespace weir::schedules;

namespace {

/// A connection whose peer is a descriptor that nobody looks at: the model sends nothing.
class Sending {
 public:
  explicit Sending(EventLoop& loop, ConnectionOptions options = {}) {
    std::array<int, 2> pair{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
      throw std::system_error(errno, std::generic_category(), "socketpair");
    }
    peer_ = pair[1];
    options.linger = std::chrono::milliseconds(0);
    connection_.emplace(loop, Socket(loop.sockets(), pair[0]), options);
  }
  Sending(const Sending&) = delete;
  Sending& operator=(const Sending&) = delete;
  ~Sending() {
    connection_.reset();
    ::close(peer_);
  }
  TcpConnection& operator*() noexcept { return *connection_; }
  TcpConnection* operator->() noexcept { return &*connection_; }

 private:
  int peer_;
  std::optional<TcpConnection> connection_;
};

constexpr ConnectionOptions kNarrow{.water_marks = {.high = 10, .low = 0}};

}  // namespace

TEST_CASE("what a thread sends meets the sends of the loop, and all of it goes") {
  check("try_send against send", [] {
    ModelLoop loop;
    loop->run_until_complete([&]() -> Task<> {
      Sending connection(*loop);
      std::thread thread([sender = connection->sender()] {
        for (int i = 0; i < 2; ++i) require(sender.try_send("thread"), "there is room");
      });
      co_await connection->send("loop");
      co_await connection->flush();
      co_await sleep(1s);  // until nobody has anything to do
      thread.join();
      require(loop.sent() == 16, "all has gone");
    });
  });
}

TEST_CASE("what a thread sends meets the end of the connection and of its loop") {
  check("try_send against the end", [] {
    auto loop = std::make_unique<ModelLoop>();
    std::thread thread;
    (*loop)->run_until_complete([&]() -> Task<> {
      Sending connection(**loop);
      thread = std::thread([sender = connection->sender()] {
        (void)sender.try_send("one");
        (void)sender.try_send(SharedBytes(std::string("other")));
        (void)sender.open();
      });
      co_await yield();
    });
    loop.reset();
    thread.join();
  });
  check("close of a thread against the end", [] {
    auto loop = std::make_unique<ModelLoop>();
    std::thread thread;
    (*loop)->run_until_complete([&]() -> Task<> {
      Sending connection(**loop);
      thread = std::thread([sender = connection->sender()] {
        (void)sender.try_send("one");
        sender.close();
        sender.force_close();
      });
      co_await yield();
    });
    loop.reset();
    thread.join();
  });
}

TEST_CASE("a send of another loop that waits for room is let in, or told of the end") {
  const auto scenario = [](bool ends) {
    ModelLoop loop;
    std::thread thread;
    loop->run_until_complete([&]() -> Task<> {
      Sending connection(*loop, kNarrow);
      thread = std::thread([ends, sender = connection->sender()] {
        ModelLoop other;
        other->run_until_complete([&]() -> Task<> {
          try {
            for (int i = 0; i < 2; ++i) co_await sender.send("more than the mark");
          } catch (const std::system_error& error) {
            require(ends && error.code() == std::errc::broken_pipe, "it was closed");
          }
        });
      });
      if (ends) {
        co_await yield();
        connection->force_close();
      } else {
        co_await connection->send("more than the mark, too");
        co_await sleep(1s);  // until the other has nothing to do
        require(loop.sent() == 23 + 2 * 18, "all has gone");
      }
    });
    thread.join();
  };
  check("send waits for room", [scenario] { scenario(false); });
  check("send waits against the end", [scenario] { scenario(true); });
}

TEST_CASE("a send of another loop that waits for room may be dropped") {
  check("send dropped", [] {
    ModelLoop loop;
    std::thread thread;
    loop->run_until_complete([&]() -> Task<> {
      Sending connection(*loop, kNarrow);
      thread = std::thread([sender = connection->sender()] {
        ModelLoop other;
        other->run_until_complete([&]() -> Task<> {
          TaskGroup group;
          group.spawn([&]() -> Task<> {
            try {
              for (int i = 0; i < 2; ++i) co_await sender.send("more than the mark");
            } catch (const std::system_error&) {
            }
          });
          co_await yield();
          group.cancel();
        });
      });
      co_await sleep(1s);
    });
    thread.join();
  });
}
