#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "../support/captured_log.h"
#include "../support/directory.h"
#include "../support/net.h"
#include "../support/net_server.h"
#include "../support/process.h"
#include "../support/service_manager.h"

using namespace weir;
using namespace weir::test;

namespace {

const std::string kProgram = WEIR_TEST_PROGRAMS_DIR "/restart_server";

/// Whether there is one, be it that it has ended and nobody has waited for it.
bool has_children() {
  siginfo_t info{};
  return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/// The servers of a test, one after the other: their output, and their ends. A successor's
/// predecessor ends before it, so it comes to us (PR_SET_CHILD_SUBREAPER).
class Servers {
 public:
  /// The listeners become descriptors 3, 4 …
  explicit Servers(std::vector<std::string> command, const std::vector<int>& listeners = {}) {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    int pipe[2];
    if (::pipe2(pipe, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
    output_ = pipe[0];
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO);
    std::vector<Peer> high;  // above the places that they go to
    int place = 3;
    for (const int listener : listeners) {
      high.emplace_back(::fcntl(listener, F_DUPFD_CLOEXEC, 100));
      ::posix_spawn_file_actions_adddup2(&actions, high.back().fd(), place++);
    }
    std::vector<char*> argv;
    for (std::string& text : command) argv.push_back(text.data());
    argv.push_back(nullptr);
    pid_t pid = 0;
    const int error = ::posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(pipe[1]);
    if (error != 0) throw std::system_error(error, std::generic_category(), command[0]);
    running_.push_back(pid);
  }
  Servers(const Servers&) = delete;
  Servers& operator=(const Servers&) = delete;
  ~Servers() {
    for (const pid_t pid : running_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    ::close(output_);
    ::prctl(PR_SET_CHILD_SUBREAPER, 0);
  }

  /// The first line of output that begins so, of those that were not asked for yet: several write.
  std::string line(const std::string& beginning) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    for (;;) {
      std::size_t at = 0;
      for (auto end_of = text_.find('\n'); end_of != std::string::npos;
           at = end_of + 1, end_of = text_.find('\n', at)) {
        const std::string found = text_.substr(at, end_of - at);
        if (found.starts_with("exception")) throw std::runtime_error(found);
        if (found.starts_with(beginning)) {
          text_.erase(at, end_of - at + 1);
          return found;
        }
      }
      pollfd readable{.fd = output_, .events = POLLIN, .revents = 0};
      char buffer[4096];
      const bool there = ::poll(&readable, 1, 1000) == 1;
      const auto size = there ? ::read(output_, buffer, sizeof buffer) : -1;
      if (size > 0) text_.append(buffer, static_cast<std::size_t>(size));
      if (size == 0 || std::chrono::steady_clock::now() > end) {
        throw std::runtime_error("no line \"" + beginning + "\"");
      }
    }
  }

  /// Waits until a server serves; gives its address.
  SocketAddress ready() {
    std::istringstream line_of_it(line("ready "));
    std::string word;
    std::string address;
    pid_t pid = 0;
    line_of_it >> word >> pid >> address;
    if (running_.back() != pid) running_.push_back(pid);
    return SocketAddress::parse(address);
  }

  [[nodiscard]] pid_t current() const { return running_.back(); }

  /// Waits until the oldest has ended; gives its exit code, or minus the signal that killed it.
  int wait() {
    const pid_t pid = running_.front();
    running_.erase(running_.begin());
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0) {
      if (errno != EINTR) return 1000;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  int output_ = -1;
  std::string text_;
  std::vector<pid_t> running_;
};

/// Threads that connect, have something echoed, and close, over and over.
class Churn {
 public:
  Churn(const SocketAddress& address, int threads) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this, address](const std::stop_token& stop) {
        while (!stop.stop_requested()) once(address);
      });
    }
  }
  Churn(const Churn&) = delete;
  Churn& operator=(const Churn&) = delete;

  void stop() {
    for (auto& thread : threads_) thread.request_stop();
    threads_.clear();
  }

  [[nodiscard]] int echoes() const noexcept { return echoes_; }
  [[nodiscard]] int failed_connects() const noexcept { return failed_connects_; }
  [[nodiscard]] int lost_echoes() const noexcept { return lost_echoes_; }

 private:
  void once(const SocketAddress& address) {
    Peer peer;
    try {
      peer = Peer::connect(address);
    } catch (const std::system_error&) {
      ++failed_connects_;
      return;
    }
    try {
      peer.send("sixteen bytes ..");
      if (peer.receive_exactly(16) == "sixteen bytes ..") {
        ++echoes_;
      } else {
        ++lost_echoes_;
      }
      // The server's FIN takes the connection's end off our side's TIME_WAIT.
      peer.shutdown_send();
      (void)peer.wait_for_end();
    } catch (const std::system_error&) {
      ++lost_echoes_;
    }
  }

  std::atomic<int> echoes_{0};
  std::atomic<int> failed_connects_{0};
  std::atomic<int> lost_echoes_{0};
  std::vector<std::jthread> threads_;
};

void restart_under_churn(std::vector<std::string> arguments) {
  constexpr int kRestarts = kSanitized ? 8 : 20;
  constexpr int kEchoesBetween = kSanitized ? 10 : 50;
  arguments.insert(arguments.begin(), {kProgram, "serve"});
  Servers servers(arguments);
  const SocketAddress address = servers.ready();
  Churn churn(address, 3);
  for (int i = 0; i < kRestarts; ++i) {
    const int echoes = churn.echoes();
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (churn.echoes() < echoes + kEchoesBetween && std::chrono::steady_clock::now() < end) {
      std::this_thread::yield();
    }
    ::kill(servers.current(), SIGHUP);
    servers.ready();
    CHECK(servers.line("drained").ends_with(" 0"));
    CHECK(servers.wait() == 0);
  }
  churn.stop();
  MESSAGE(kRestarts << " restarts, " << churn.echoes() << " echoes, " << churn.failed_connects()
                    << " failed connects, " << churn.lost_echoes() << " lost echoes");
  CHECK(churn.failed_connects() == 0);
  CHECK(churn.lost_echoes() == 0);
  CHECK(churn.echoes() >= kRestarts * kEchoesBetween);
  ::kill(servers.current(), SIGTERM);
  CHECK(servers.wait() == 0);
}

bool refuses(const SocketAddress& address) {
  try {
    (void)Peer::connect(address);
    return false;
  } catch (const std::system_error& error) {
    return error.code() == std::errc::connection_refused;
  }
}

Peer talk(const SocketAddress& address) {
  Peer peer = Peer::connect(address);
  peer.send("hello");
  CHECK(peer.receive_exactly(5) == "hello");
  return peer;
}

}  // namespace

namespace {

/// A successor that does nothing but to have the listener: it reports when it is told to, says so,
/// and ends when it is told again.
class Puppet {
 public:
  Puppet() : directory_(std::filesystem::temp_directory_path() / "weir-puppet-XXXXXX") {
    std::string name = directory_.string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    directory_ = name;
    orders_ = open_fifo("orders");
    answers_ = open_fifo("answers");
  }
  Puppet(const Puppet&) = delete;
  Puppet& operator=(const Puppet&) = delete;
  ~Puppet() {
    tell();
    ::close(orders_);
    ::close(answers_);
    std::filesystem::remove_all(directory_);
  }

  [[nodiscard]] std::vector<std::string> command() const {
    return {"/bin/bash", "-c",
            "exec 98<>$0/orders 99>$0/answers; read -t 300 -u 98; echo -n 1 >&$WEIR_READY_FD; "
            "echo reported >&99; read -t 300 -u 98",
            directory_.string()};
  }
  void tell() const { CHECK(::write(orders_, "\n", 1) == 1); }
  /// Waits, the loop as well, until it has reported.
  void wait() const {
    char answer[9];
    CHECK(::read(answers_, answer, sizeof answer) == sizeof answer);
  }

 private:
  [[nodiscard]] int open_fifo(const char* name) const {
    const std::string path = directory_ / name;
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0);
    return fd;
  }

  std::filesystem::path directory_;
  int orders_ = -1;
  int answers_ = -1;
};

Task<> hand_over_to(TcpServer& server, const Puppet& puppet, bool& accepts) {
  const std::vector<std::string> command = puppet.command();
  accepts = co_await server.hand_over(command);
}

}  // namespace

TEST_CASE("a drain, a stop or an end during a hand-over leaves the listener to the successor") {
  on_each_kernel_engine("it has no programs", []() -> Task<> {
    const auto path =
        std::filesystem::temp_directory_path() / ("weir-during-" + std::to_string(::getpid()));
    for (const SocketAddress& address :
         {loopback(), SocketAddress::parse("unix:" + path.string())}) {
      for (const std::size_t threads : {1UL, 2UL}) {
        for (const bool drains : {true, false}) {
          CAPTURE(address);
          CAPTURE(threads);
          CAPTURE(drains);
          const Puppet puppet;
          ServerOptions options;
          options.address = address;
          options.hand_over_timeout = kPatience;
          options.threads = threads;
          options.reuse_port = threads > 1 && address.is_ip();
          TcpServer server(EventLoop::current(), options);
          server.start([](TcpConnection conn) -> Task<> { co_await conn.read(); });
          bool accepts = false;
          TaskGroup group;
          group.spawn(hand_over_to(server, puppet, accepts));
          if (drains) {
            (void)co_await server.drain(20s);
          } else {
            server.stop();
            co_await turns(5);
          }
          puppet.tell();
          co_await group.join();
          CHECK(accepts);
          CHECK_NOTHROW((void)Peer::connect(server.address()));
          std::filesystem::remove(path);
        }
      }
    }
  });
}

TEST_CASE("a hand-over that is dropped once the successor has reported leaves it the listener") {
  on_each_kernel_engine("it has no programs", []() -> Task<> {
    for (const bool reported : {true, false}) {
      CAPTURE(reported);
      const Puppet puppet;
      ServerOptions options;
      options.address = own_loopback();
      options.hand_over_timeout = kPatience;
      TcpServer server(EventLoop::current(), options);
      server.start([](TcpConnection conn) -> Task<> { co_await conn.read(); });
      bool accepts = false;
      TaskGroup group;
      group.spawn(hand_over_to(server, puppet, accepts));
      if (reported) {
        puppet.tell();
        puppet.wait();
      }
      group.cancel();
      (void)co_await server.drain(20s);
      if (reported) {
        CHECK_NOTHROW((void)Peer::connect(server.address()));
      } else {  // it was killed, and has the listener until it is gone
        co_await turn_until([&] { return refuses(server.address()); });
      }
    }
  });
}

TEST_CASE("a server restarts under churn, and no client notices") {
  restart_under_churn({"127.0.0.1:0"});
}

TEST_CASE("a server with two threads restarts under churn, and no client notices") {
  restart_under_churn({"127.0.0.1:0", "2"});
}

TEST_CASE("a server with a listener for each thread hands over all of them") {
  restart_under_churn({"127.0.0.1:0", "2", "reuse_port"});
}

TEST_CASE("a server on a Unix path restarts under churn, and the path stays until the last") {
  const auto path =
      std::filesystem::temp_directory_path() / ("weir-restart-" + std::to_string(::getpid()));
  restart_under_churn({"unix:" + path.string()});
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("a successor can be looked into at the same address once its predecessor has ended") {
  const Directory directory;
  const std::string address = "unix:" + directory.file("inspect");
  Servers servers({"/usr/bin/env", "WEIR_INSPECT=" + address, kProgram, "serve", "127.0.0.1:0"});
  const auto answers = [&address] {
    try {
      Peer peer = Peer::connect(SocketAddress::parse(address));
      peer.send("GET /loops HTTP/1.0\r\n\r\n");
      return peer.receive_all().find("200 OK") != std::string::npos;
    } catch (const std::system_error&) {
      return false;
    }
  };
  (void)servers.ready();
  CHECK(eventually(answers));
  ::kill(servers.current(), SIGHUP);
  (void)servers.ready();
  CHECK(servers.wait() == 0);
  CHECK(eventually(answers));
  ::kill(servers.current(), SIGTERM);
  CHECK(servers.wait() == 0);
}

TEST_CASE("a listening socket is inherited as systemd hands it over") {
  EventLoop loop;  // for its sockets
  const EventLoop::Entered entered(loop);
  Socket listener = listen(loop.sockets(), own_loopback());
  const SocketAddress address = listener.local_address();
  // A client that came before the server.
  Peer early = Peer::connect(address);
  early.send("early");
  Servers servers({"/bin/sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve \"$1\"", kProgram,
                   address.to_string()},
                  {listener.fd()});
  listener.close();
  servers.line("kept");
  CHECK(servers.ready() == address);
  CHECK(early.receive_exactly(5) == "early");
  talk(address);
  early.close();
  ::kill(servers.current(), SIGTERM);
  CHECK(servers.wait() == 0);
  CHECK_THROWS_AS(Peer::connect(address), std::system_error);
}

TEST_CASE(
    "after a crash who connects waits for the next process, where the manager keeps listeners") {
  for (const std::string kind : {"ip", "unix", "2 reuse_port"}) {
    CAPTURE(kind);
    const Directory directory;
    Manager manager;
    const Environment socket("NOTIFY_SOCKET", manager.name().c_str());
    const std::string wanted = kind == "unix" ? "unix:" + directory.file("socket") : "127.0.0.1:0";
    std::vector<std::string> command = {kProgram, "run", wanted};
    const std::size_t listeners = kind == "2 reuse_port" ? 2 : 1;
    if (listeners == 2) command.insert(command.end(), {"2", "reuse_port"});
    std::vector<Peer> early;
    SocketAddress address;
    {
      Servers servers(command);
      address = servers.ready();
      CHECK(manager.next() == "FDSTORE=1\nFDNAME=weir");
      CHECK(manager.next() == "READY=1");
      CHECK(manager.store().size() == listeners);
      talk(address);
      ::kill(servers.current(), SIGKILL);
      CHECK(servers.wait() == -SIGKILL);
    }
    for (int i = 0; i < 20; ++i) {
      early.push_back(Peer::connect(address));
      early.back().send("early");
    }
    std::vector<int> kept;
    for (const Peer& one : manager.store()) kept.push_back(one.fd());
    command[2] = address.to_string();
    command.insert(command.begin(), {"/bin/sh", "-c",
                                     "LISTEN_PID=$$ LISTEN_FDS=" + std::to_string(listeners) +
                                         " LISTEN_FDNAMES=weir:weir exec \"$0\" \"$@\""});
    Servers servers(command, kept);
    servers.line("kept");
    CHECK(servers.ready() == address);
    for (Peer& one : early) CHECK(one.receive_exactly(5) == "early");
    early.clear();
    CHECK(manager.next() == "READY=1");  // it has them already
    ::kill(servers.current(), SIGTERM);
    CHECK(servers.wait() == 0);
    CHECK(Peer::connect(address).fd() >= 0);  // waits for the next one
  }
}

TEST_CASE("the file of a Unix socket that the manager keeps stays, also when a successor ends") {
  const Directory directory;
  Manager manager;
  const Environment socket("NOTIFY_SOCKET", manager.name().c_str());
  Servers servers({kProgram, "serve", "unix:" + directory.file("socket")});
  const SocketAddress address = servers.ready();
  CHECK(manager.next() == "FDSTORE=1\nFDNAME=weir");
  ::kill(servers.current(), SIGHUP);
  CHECK(servers.ready() == address);
  CHECK(servers.wait() == 0);
  talk(address);
  ::kill(servers.current(), SIGTERM);
  CHECK(servers.wait() == 0);
  CHECK(std::filesystem::exists(directory / "socket"));
}

TEST_CASE("more listeners than the next process would take are not kept by halves") {
  Manager manager;
  const Environment socket("NOTIFY_SOCKET", manager.name().c_str());
  for_each_engine([&](Engine engine) {
    EventLoop loop({.engine = engine});
    ServerOptions options;
    options.address = SocketAddress::parse("127.0.0.1:0");
    options.store_listeners = true;
    TcpServer server(loop, options);
    for (int i = 0; i < 253; ++i) server.add_address(SocketAddress::parse("127.0.0.1:0"));
    server.start(echo);
    CHECK(manager.all().empty());
    CHECK(manager.store().empty());
  });
}

TEST_CASE("every inherited listener of the address is served, however few loops there are") {
  for (const char* shape : {"", "2", "2 reuse_port"}) {
    CAPTURE(shape);
    EventLoop loop;
    const EventLoop::Entered entered(loop);
    AcceptorOptions options;
    options.reuse_port = true;
    std::vector<Socket> listeners;
    std::vector<int> descriptors;
    SocketAddress address = loopback();
    for (int i = 0; i < 3; ++i) {
      listeners.push_back(listen(loop.sockets(), address, options));
      descriptors.push_back(listeners.back().fd());
      address = listeners.front().local_address();
    }
    Servers servers({"/bin/sh", "-c",
                     "LISTEN_PID=$$ LISTEN_FDS=3 exec \"$0\" serve \"$1\" " + std::string(shape),
                     kProgram, address.to_string()},
                    descriptors);
    listeners.clear();
    CHECK(servers.ready() == address);
    for (int i = 0; i < 50; ++i) talk(address);  // the kernel spreads them over all three
    ::kill(servers.current(), SIGTERM);
    CHECK(servers.line("drained").ends_with(" 0"));
    CHECK(servers.wait() == 0);
  }
}

TEST_CASE("the file of a Unix socket that systemd bound stays when its server ends") {
  const auto path =
      std::filesystem::temp_directory_path() / ("weir-systemd-" + std::to_string(::getpid()));
  const std::string address = "unix:" + path.string();
  EventLoop loop;
  const EventLoop::Entered entered(loop);
  Socket listener = listen(loop.sockets(), SocketAddress::parse(address));
  Servers servers(
      {"/bin/sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve \"$1\"", kProgram, address},
      {listener.fd()});
  servers.line("kept");
  CHECK(servers.ready() == SocketAddress::parse(address));
  talk(SocketAddress::parse(address));
  ::kill(servers.current(), SIGTERM);
  CHECK(servers.wait() == 0);
  CHECK(std::filesystem::exists(path));
  std::filesystem::remove(path);
}

TEST_CASE("with port 0 the inherited listener of that host is used") {
  EventLoop loop;
  const EventLoop::Entered entered(loop);
  Socket listener = listen(loop.sockets(), loopback());
  const SocketAddress address = listener.local_address();
  Servers servers(
      {"/bin/sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve 127.0.0.1:0", kProgram},
      {listener.fd()});
  listener.close();
  CHECK(servers.ready() == address);
}

TEST_CASE("an inherited listener is given to one server only, and never again") {
  EventLoop loop;
  const EventLoop::Entered entered(loop);
  const Socket listener = listen(loop.sockets(), loopback());
  Servers servers(
      {"/bin/sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" three 127.0.0.1:0", kProgram},
      {listener.fd()});
  const std::string inherited = listener.local_address().to_string();
  CHECK(servers.line("first ") == "first " + inherited);
  CHECK(servers.line("second ") != "second " + inherited);
  CHECK(servers.line("third ") != "third " + inherited);
  CHECK(servers.wait() == 0);
}

TEST_CASE("what is not for this process, or no listener, is not inherited") {
  EventLoop loop;
  const EventLoop::Entered entered(loop);
  const Socket listener = listen(loop.sockets(), loopback());
  {
    Servers servers(
        {"/bin/sh", "-c", "LISTEN_PID=1 LISTEN_FDS=1 exec \"$0\" serve 127.0.0.1:0", kProgram},
        {listener.fd()});
    CHECK(servers.ready() != listener.local_address());
  }
  // A connection, by its own address indistinguishable from its listener.
  const Peer client = Peer::connect(listener.local_address());
  const int accepted = ::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC);
  const Peer connection(accepted);
  Servers servers(
      {"/bin/sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve 127.0.0.1:0", kProgram},
      {accepted});
  CHECK(servers.ready() != listener.local_address());
}

TEST_CASE("SIGTERM drains: who is there is served to the end, nobody else gets in") {
  Servers servers({kProgram, "run", "127.0.0.1:0"});
  const SocketAddress address = servers.ready();
  Peer peer = talk(address);
  ::kill(servers.current(), SIGTERM);
  const auto end = std::chrono::steady_clock::now() + kPatience;
  bool refused = false;
  while (!refused && std::chrono::steady_clock::now() < end) {
    try {
      Peer late = Peer::connect(address);
      late.send("late");  // from the backlog: still served
      CHECK(late.receive_exactly(4) == "late");
    } catch (const std::system_error& error) {
      refused = error.code() == std::errc::connection_refused ||
                error.code() == std::errc::connection_reset;
    }
  }
  CHECK(refused);
  peer.send("still there");
  CHECK(peer.receive_exactly(11) == "still there");
  peer.shutdown_send();
  CHECK(peer.wait_for_end() == 0);
  servers.line("end");
  CHECK(servers.wait() == 0);
}

TEST_CASE("a second signal ends a server that drains, at once") {
  Servers servers({kProgram, "run", "127.0.0.1:0"});
  const SocketAddress address = servers.ready();
  Peer peer = talk(address);  // and it stays
  ::kill(servers.current(), SIGTERM);
  // Once it refuses, it drains.
  const auto end = std::chrono::steady_clock::now() + kPatience;
  bool refused = false;
  while (!refused && std::chrono::steady_clock::now() < end) {
    try {
      talk(address);
    } catch (const std::system_error&) {
      refused = true;
    }
  }
  ::kill(servers.current(), SIGTERM);
  servers.line("end");  // which is awaited less long than its drain_timeout
  CHECK(servers.wait() == 0);
  peer.wait_for_end();  // FIN or RST
}

TEST_CASE("a successor that cannot be started is told, and the server goes on") {
  on_each_kernel_engine("it has no programs", []() -> Task<> {
    ServerOptions options;
    options.address = loopback();
    TcpServer server(EventLoop::current(), options);
    const std::vector<std::string> nowhere{"/nowhere/at/all"};
    const std::vector<std::string> nothing;
    CHECK_THROWS_AS(co_await server.hand_over(nowhere), std::logic_error);
    server.start([](TcpConnection connection) -> Task<> {
      while (Chunk data = co_await connection.read()) co_await connection.send(std::move(data));
    });
    CapturedLog log;
    const bool accepts = co_await server.hand_over(nowhere);
    CHECK_FALSE(accepts);
    CHECK(log.count("/nowhere/at/all") == 1);
    CHECK_THROWS_AS(co_await server.hand_over(nothing), std::invalid_argument);
    co_await in_thread([&] { (void)talk(server.address()); });
  });
}

TEST_CASE("more listeners than a successor can be given are refused") {
  on_each_kernel_engine("it has no programs", []() -> Task<> {
    TcpServer server(EventLoop::current(), {.address = loopback()});
    for (int i = 0; i < 256; ++i) server.add_address(loopback());
    server.start(&echo);
    const std::vector<std::string> program{"/bin/true"};
    CHECK_THROWS_AS(co_await server.hand_over(program), std::invalid_argument);
    co_await in_thread([&] { (void)talk(server.address()); });
  });
}

TEST_CASE("a successor that ends, or is not ready in time, is given up, and nobody is lost") {
  on_each_kernel_engine("it has no programs", []() -> Task<> {
    const CapturedLog log;
    for (const char* does : {"exit 0", "exit 1", "exec sleep 1000"}) {
      CAPTURE(does);
      const auto before = count_descriptors();
      {
        ServerOptions options;
        options.address = loopback();
        options.hand_over_timeout = does[1] == 'x' && does[2] == 'e' ? 20ms : kPatience;
        TcpServer server(EventLoop::current(), options);
        server.start([](TcpConnection connection) -> Task<> {
          while (Chunk data = co_await connection.read()) co_await connection.send(std::move(data));
        });
        const std::vector<std::string> command{"/bin/sh", "-c", does};
        const bool accepts = co_await server.hand_over(command);
        CHECK_FALSE(accepts);
        co_await in_thread([&] { (void)talk(server.address()); });
        (void)co_await server.drain(10s);
      }
      co_await turn_until([] { return !has_children(); });
      co_await turn_until([&] { return count_descriptors() == before; });
    }
  });
}

TEST_CASE("a dropped hand-over kills the successor, and the server goes on") {
  on_each_kernel_engine("it has no programs", []() -> Task<> {
    ServerOptions options;
    options.address = loopback();
    TcpServer server(EventLoop::current(), options);
    server.start([](TcpConnection connection) -> Task<> {
      while (Chunk data = co_await connection.read()) co_await connection.send(std::move(data));
    });
    const std::vector<std::string> command{"/bin/sleep", "1000"};
    const auto [error, accepts] = co_await as_tuple(timeout(10ms, server.hand_over(command)));
    CHECK(error == std::errc::timed_out);
    co_await turn_until([] { return !has_children(); });
    co_await in_thread([&] { (void)talk(server.address()); });
  });
}

TEST_CASE("a successor that is no weir says by a byte that it serves, and has no signal blocked") {
  on_each_kernel_engine("it has no programs", []() -> Task<> {
    char name[] = "/dev/shm/weir-mask-XXXXXX";
    const int file = ::mkostemp(name, O_CLOEXEC);
    REQUIRE(file >= 0);
    sigset_t set;
    sigset_t before;
    ::sigemptyset(&set);
    for (const int number : {SIGTERM, SIGHUP, SIGUSR2}) ::sigaddset(&set, number);
    ::pthread_sigmask(SIG_BLOCK, &set, &before);
    {
      ServerOptions options;
      options.address = loopback();
      options.hand_over_timeout = kPatience;
      TcpServer server(EventLoop::current(), options);
      server.listen();
      const std::vector<std::string> command{
          "/bin/bash", "-c",
          "grep SigBlk /proc/self/status > " + std::string(name) + "; echo -n 1 >&$WEIR_READY_FD"};
      const bool accepts = co_await server.hand_over(command);
      CHECK(accepts);
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    char text[256] = {};
    CHECK(::read(file, text, sizeof text - 1) > 0);
    CHECK(std::string(text) == "SigBlk:\t0000000000000000\n");
    ::close(file);
    ::unlink(name);
  });
}
