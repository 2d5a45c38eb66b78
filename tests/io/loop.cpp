#include <weir/weir.h>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../support/net.h"
#include "child.h"
#include "door.h"

using namespace weir;
using namespace weir::test;
using namespace std::chrono_literals;

namespace {

/// Has one operation of every kind with the kernel, and nobody who waits for them.
class Everything final : public LoopResource {
 public:
  explicit Everything(EventLoop& loop)
      : loop_(loop),
        listener_(listening(loop.sockets())),
        pair_(ends(4096)),
        other_(ends()),
        file_(::open("/proc/self/stat", O_RDONLY | O_CLOEXEC)) {
    requests_.push_back(Request::accept(listener_.fd.get()));
    requests_.push_back(Request::receive(pair_.ours.get()));
    requests_.push_back(Request::receive_into(other_.ours.get(), 64));
    requests_.push_back(Request::send(pair_.ours.get(), {message_}));  // more than the socket takes
    requests_.push_back(Request::poll(other_.ours.get(), POLLPRI));
    requests_.push_back(Request::read_file(file_.get(), 16, 0));
    for (const auto& request : requests_) {
      request->then = [this](Request&) { leave_if_done(); };
      loop_.engine().submit(*request);
    }
    loop_.keep(*this);
  }

  void end_with_loop() noexcept override {
    for (const auto& request : requests_) loop_.engine().cancel(*request);
    leave_if_done();
  }

  [[nodiscard]] bool all_ended_once() const {
    return std::all_of(requests_.begin(), requests_.end(),
                       [](const auto& request) { return request->endings == 1; });
  }
  [[nodiscard]] const SocketAddress& address() const { return listener_.address; }
  [[nodiscard]] Peer& peer() { return pair_.peer; }

 private:
  void leave_if_done() noexcept {
    for (const auto& request : requests_) {
      if (request->in_flight()) return;
    }
    unlink();
  }

  EventLoop& loop_;
  const std::string message_ = pattern(8 << 20);
  Listening listener_;
  Ends pair_;
  Ends other_;
  Descriptor file_;
  std::vector<std::unique_ptr<Request>> requests_;
};

/// A signal every so often, to this thread and without SA_RESTART, until the end of its life.
class SignalStorm {
 public:
  explicit SignalStorm(Duration period) {
    struct sigaction action{};
    action.sa_handler = [](int) { count_.fetch_add(1); };
    ::sigaction(SIGUSR1, &action, &before_);
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGUSR1;
    event._sigev_un._tid = static_cast<pid_t>(::syscall(SYS_gettid));
    REQUIRE(::timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0);
    itimerspec times{};
    times.it_value.tv_nsec = times.it_interval.tv_nsec = std::chrono::nanoseconds(period).count();
    ::timer_settime(timer_, 0, &times, nullptr);
  }
  SignalStorm(const SignalStorm&) = delete;
  SignalStorm& operator=(const SignalStorm&) = delete;
  ~SignalStorm() {
    ::timer_delete(timer_);
    ::sigaction(SIGUSR1, &before_, nullptr);
  }
  static int count() { return count_.load(); }

 private:
  static inline std::atomic<int> count_{0};
  timer_t timer_{};
  struct sigaction before_{};
};

Task<> echo(TcpConnection connection) {
  while (Chunk data = co_await connection.read()) co_await connection.send(std::move(data));
}

}  // namespace

TEST_CASE("a loop ends with an operation of every kind in flight") {
  for_each_engine([](Engine engine) {
    for (const int turns_before : {0, 1, 10}) {
      std::unique_ptr<Everything> everything;
      Peer client;
      {
        EventLoop loop(LoopOptions{.engine = engine});
        everything = std::make_unique<Everything>(loop);
        if (turns_before > 0) loop.run_until_complete(turns(turns_before));
        client = Peer::connect(everything->address());
        everything->peer().send("unread");
      }
      CHECK(everything->all_ended_once());
    }
  });
}

TEST_CASE("a loop may be made on one thread and run and ended on another") {
  for_each_engine([](Engine engine) {
    auto loop = std::make_unique<EventLoop>(LoopOptions{.engine = engine});
    std::thread other([&] {
      loop->run_until_complete([]() -> Task<> {
        auto [connection, peer] = connect_pair();
        co_await connection.send("hello");
        co_await connection.flush();
        CHECK(peer.receive_exactly(5) == "hello");
      }());
      loop.reset();
    });
    other.join();
  });
}

TEST_CASE("a loop moves between threads on epoll, and says that it cannot on io_uring") {
  for_each_engine([](Engine engine) {
    EventLoop loop(LoopOptions{.engine = engine});
    std::thread([&] { loop.run_until_complete(turns(3)); }).join();
    std::string error;
    try {
      loop.run_until_complete(turns(3));
    } catch (const std::logic_error& refusal) {
      error = refusal.what();
    }
    if (engine == Engine::epoll) {
      CHECK(error.empty());
    } else {
      CHECK(error.find("ran on another thread") != std::string::npos);
    }
  });
}

TEST_CASE("signals that interrupt the loop's waiting cost it nothing") {
  on_each_kernel_engine("no signal interrupts it", []() -> Task<> {
    auto [connection, peer] = connect_pair();
    TaskGroup group;
    group.spawn(echo(std::move(connection)));
    const std::string message = pattern(1 << 20);
    const SignalStorm storm(200us);
    const int before = SignalStorm::count();
    Peer* client = &peer;
    std::string received;
    co_await in_thread([&] {
      sigset_t all;
      ::sigfillset(&all);
      ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
      std::thread writer([&] { client->send(message); });
      received = client->receive_exactly(message.size());
      writer.join();
    });
    CHECK(received == message);
    // Timers under the storm: neither early nor lost.
    for (int i = 0; i < 50; ++i) {
      const TimePoint start = std::chrono::steady_clock::now();
      co_await sleep(1ms);
      CHECK(std::chrono::steady_clock::now() - start >= 1ms);
    }
    CHECK(SignalStorm::count() > before + 50);
    group.cancel();
  });
}

TEST_CASE("a program that is started inherits no descriptor of a loop") {
  const std::string before = run_child("descriptors", {}).output;
  on_each_kernel_engine("its descriptors are none of the process", [before]() -> Task<> {
    Acceptor acceptor(EventLoop::current(), loopback());
    const Peer client = Peer::connect(acceptor.address());
    const Socket accepted = co_await acceptor.accept();
    const Ended ended = run_child("descriptors", {});
    CHECK(ended.status == 0);
    CHECK(ended.output == before);
  });
}

TEST_CASE("closing a connection that is being read sends the FIN within a few turns") {
  on_each_engine([]() -> Task<> {
    auto [connection, peer] = connect_pair();
    TaskGroup group;
    group.spawn([](TcpConnection& from) -> Task<> { (void)co_await from.read(); }(connection));
    co_await turns(3);
    group.cancel();
    connection.close();
    co_await turns(5);
    CHECK(peer.has_ended());
  });
}

TEST_CASE("a loop is ended by another thread while the one that ran it lives on") {
  for_each_engine([](Engine engine) {
    auto loop = std::make_unique<EventLoop>(LoopOptions{.engine = engine});
    std::unique_ptr<Everything> everything;
    std::atomic<bool> ran{false};
    std::atomic<bool> over{false};
    std::thread own([&] {
      everything = std::make_unique<Everything>(*loop);
      loop->run_until_complete(turns(3));
      ran = true;
      ran.notify_one();
      over.wait(false);
    });
    ran.wait(false);
    loop.reset();
    CHECK(everything->all_ended_once());
    Peer peer = std::move(everything->peer());
    everything.reset();
    CHECK(peer.wait_for_end() == 0);  // nothing holds its connection open
    over = true;
    over.notify_one();
    own.join();
  });
}

TEST_CASE("a loop that another thread ends resets the connections whose output it gives up") {
  for_each_engine([](Engine engine) {
    auto loop = std::make_unique<EventLoop>(LoopOptions{.engine = engine});
    const std::string message = pattern(8 << 20);
    Peer peer;
    std::thread([&] {
      loop->spawn([](const std::string& much, Peer& to) -> Task<> {
        auto [connection, other] = connect_pair({}, 4096);
        to = std::move(other);
        connection.set_water_marks(WaterMarks{.high = 32 << 20, .low = 16 << 20});
        co_await connection.send(much);
        co_await turns(3);
        connection.close();  // flushes in the background, which nobody will do
        co_await turns(3);
        EventLoop::current().stop();
      }(message, peer));
      loop->run();
    }).join();
    loop.reset();
    int error = 0;
    const std::string received = peer.receive_all(&error);
    CHECK(received.size() < message.size());
    CHECK(error == ECONNRESET);
  });
}
