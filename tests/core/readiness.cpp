#include <weir/core/readiness.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "../support/emulated.h"
#include "../support/net.h"
#include "../support/net_drop.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr std::string_view kKernelOnly = "it has no descriptors of the system's";

/// A descriptor of the system's, closed with it.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) { REQUIRE(fd >= 0); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() { close(); }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  int fd_ = -1;
};

struct Pipe {
  Fd out;
  Fd in;
};

Pipe make_pipe() {
  int ends[2];
  REQUIRE(::pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

/// A pipe whose reading end has that number, which is somebody's or nobody's.
Pipe make_pipe_at(int number) {
  Pipe pipe = make_pipe();
  if (pipe.out.get() != number) {
    REQUIRE(::dup3(pipe.out.get(), number, O_CLOEXEC) == number);
    pipe.out = Fd(number);
  }
  return pipe;
}

void write_one(int fd) { REQUIRE(::write(fd, "x", 1) == 1); }

std::string read_all(int fd) {
  char bytes[4096];
  const ssize_t size = ::read(fd, bytes, sizeof bytes);
  return size > 0 ? std::string(bytes, static_cast<std::size_t>(size)) : std::string();
}

/// Fills a descriptor until it takes no more.
void fill(int fd) {
  const std::string bytes(4096, 'x');
  while (::write(fd, bytes.data(), bytes.size()) > 0) {
  }
  REQUIRE(errno == EAGAIN);
}

Task<> note(int fd, int events, int& got) { got = co_await ready(fd, events); }

/// The error of a wait, 0 if it has none.
Task<int> error_of(int fd, int events) {
  auto [error, revents] = co_await as_tuple(ready(fd, events));
  co_return error.value();
}

/// A wait that holds the loop up for ever is one that fails.
Task<int> in_time(int fd, int events) { co_return co_await timeout(kPatience, ready(fd, events)); }

int open_pidfd(pid_t process) { return static_cast<int>(::syscall(SYS_pidfd_open, process, 0)); }

/// A number that is nobody's.
int closed_number() {
  const Fd fd(::eventfd(0, EFD_CLOEXEC));
  return fd.get();
}

}  // namespace

TEST_CASE("a pipe is readable once something was written, or its writer has gone") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    Pipe pipe = make_pipe();
    int got = 0;
    TaskGroup group;
    group.spawn(note(pipe.out.get(), POLLIN, got));
    co_await turns(2);
    CHECK(got == 0);
    write_one(pipe.in.get());
    co_await group.join();
    CHECK(got == POLLIN);
    CHECK(co_await readable(pipe.out.get()) == POLLIN);  // at once, and again
    CHECK(read_all(pipe.out.get()) == "x");

    group.spawn(note(pipe.out.get(), POLLIN, got = 0));
    co_await turns(2);
    CHECK(got == 0);
    pipe.in.close();
    co_await group.join();
    CHECK(got == POLLHUP);
  });
}

TEST_CASE("a full pipe is writable once there is room, or nobody reads any more") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    Pipe pipe = make_pipe();
    CHECK(co_await writable(pipe.in.get()) == POLLOUT);
    fill(pipe.in.get());
    int got = 0;
    TaskGroup group;
    group.spawn(note(pipe.in.get(), POLLOUT, got));
    co_await turns(2);
    CHECK(got == 0);
    while (!read_all(pipe.out.get()).empty()) {
    }
    co_await group.join();
    CHECK(got == POLLOUT);
    fill(pipe.in.get());
    group.spawn(note(pipe.in.get(), POLLOUT, got = 0));
    co_await turns(2);
    pipe.out.close();
    co_await group.join();
    CHECK((got & POLLERR) != 0);
  });
}

TEST_CASE("an eventfd, a timerfd and an inotify are readable when they say so") {
  if (kEmulated) {
    MESSAGE("skipped: the emulator has an inotify of its own");
    return;
  }
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    const Fd event(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    const Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    const Fd notify(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    REQUIRE(::inotify_add_watch(notify.get(), "/dev/shm", IN_CREATE | IN_DELETE) >= 0);
    int event_got = 0;
    int notify_got = 0;
    TaskGroup group;
    group.spawn(note(event.get(), POLLIN, event_got));
    group.spawn(note(notify.get(), POLLIN, notify_got));
    co_await turns(2);
    CHECK(event_got == 0);
    const std::uint64_t count = 3;
    REQUIRE(::write(event.get(), &count, sizeof count) == sizeof count);
    const std::string path = "/dev/shm/weir-ready-" + std::to_string(::getpid());
    Fd(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)).close();
    REQUIRE(::unlink(path.c_str()) == 0);
    co_await group.join();
    CHECK(event_got == POLLIN);
    CHECK(notify_got == POLLIN);

    itimerspec when{};
    when.it_value.tv_nsec = 1'000'000;
    REQUIRE(::timerfd_settime(timer.get(), 0, &when, nullptr) == 0);
    CHECK(co_await in_time(timer.get(), POLLIN) == POLLIN);
    std::uint64_t expired = 0;
    CHECK(::read(timer.get(), &expired, sizeof expired) == sizeof expired);
    CHECK(expired == 1);
  });
}

TEST_CASE("a pidfd is readable once its process has ended") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    Pipe pipe = make_pipe();
    const pid_t child = ::fork();
    if (child == 0) {  // only what may be called after a fork in a process of several threads
      ::close(pipe.in.get());
      pollfd asked{pipe.out.get(), POLLIN, 0};
      (void)::poll(&asked, 1, -1);
      ::_exit(7);
    }
    REQUIRE(child > 0);
    const int number = open_pidfd(child);
    int got = 0;
    if (number >= 0) {
      const Fd process(number);
      TaskGroup group;
      group.spawn(note(process.get(), POLLIN, got));
      co_await turns(2);
      CHECK(got == 0);
      write_one(pipe.in.get());
      co_await group.join();
    } else {
      std::printf("skipped: pidfd_open is not to be had here\n");
      write_one(pipe.in.get());
    }
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == 7);
    CHECK((number < 0 || (got & POLLIN) != 0));
  });
}

TEST_CASE("two UDP sockets answer each other, each descriptor with a reader and a writer") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    const auto bound = [] {
      Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
      return fd;
    };
    const Fd a = bound();
    const Fd b = bound();
    const auto connect_to = [](const Fd& from, const Fd& to) {
      sockaddr_in address{};
      socklen_t size = sizeof address;
      REQUIRE(::getsockname(to.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
      REQUIRE(::connect(from.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
    };
    connect_to(a, b);
    connect_to(b, a);
    const auto say = [](int fd, std::string_view what) -> Task<> {
      co_await writable(fd);
      CHECK(::send(fd, what.data(), what.size(), 0) == static_cast<ssize_t>(what.size()));
    };
    const auto hear = [](int fd, std::string& into) -> Task<> {
      co_await readable(fd);
      into = read_all(fd);
    };
    for (int round = 0; round < 20; ++round) {
      std::string at_a;
      std::string at_b;
      TaskGroup group;
      group.spawn(hear(a.get(), at_a));
      group.spawn(hear(b.get(), at_b));
      group.spawn(say(a.get(), "to b"));
      group.spawn(say(b.get(), "to a"));
      co_await group.join();
      CHECK(at_a == "to a");
      CHECK(at_b == "to b");
    }
  });
}

TEST_CASE("one waits to read and one to write a descriptor, and one of them may go") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    const Fd here(ends[0]);
    const Fd there(ends[1]);
    fill(here.get());
    int may_read = 0;
    int may_write = 0;
    int dropped = 0;
    std::optional<TaskGroup> third(std::in_place);
    TaskGroup group;
    third->spawn(note(here.get(), POLLIN, dropped));
    group.spawn(note(here.get(), POLLIN, may_read));
    group.spawn(note(here.get(), POLLOUT, may_write));
    co_await turns(2);
    third.reset();
    co_await turns(2);
    CHECK(may_read == 0);
    CHECK(may_write == 0);
    write_one(there.get());
    co_await turn_until([&] { return may_read != 0; });
    CHECK(may_read == POLLIN);
    CHECK(may_write == 0);
    while (!read_all(there.get()).empty()) {
    }
    co_await group.join();
    CHECK(may_write == POLLOUT);
    CHECK(dropped == 0);
  });
}

TEST_CASE("all who wait for the same are told") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    const Fd event(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    int got[50] = {};
    TaskGroup group;
    for (int& one : got) group.spawn(note(event.get(), POLLIN, one));
    co_await turns(2);
    const std::uint64_t one = 1;
    REQUIRE(::write(event.get(), &one, sizeof one) == sizeof one);
    co_await group.join();
    for (const int revents : got) CHECK(revents == POLLIN);
  });
}

TEST_CASE("a descriptor may be closed right after a drop, and its number used at once") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    for (int turns_before = 0; turns_before < 3; ++turns_before) {
      INFO("turns before the drop: " << turns_before);
      int never = 0;
      Pipe old = make_pipe();
      const int number = old.out.get();
      const Fd copy(::fcntl(number, F_DUPFD_CLOEXEC, 0));  // the file lives on
      std::optional<TaskGroup> group(std::in_place);
      group->spawn(note(number, POLLIN, never));
      co_await turns(turns_before);
      group.reset();
      old.out.close();
      Pipe fresh = make_pipe_at(number);
      int got = 0;
      group.emplace();
      group->spawn(note(number, POLLIN, got));
      co_await turns(2);
      write_one(old.in.get());  // which is not what the number stands for any more
      co_await turns(2);
      CHECK(got == 0);
      write_one(fresh.in.get());
      co_await timeout(kPatience, group->join());
      CHECK(got == POLLIN);
      CHECK(never == 0);
    }
  });
}

TEST_CASE("a descriptor may be closed by whoever was told, and its number used at once") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    Fd last;
    for (int round = 0; round < 10; ++round) {
      Pipe pipe = make_pipe();
      int got = 0;
      TaskGroup group;
      group.spawn(note(pipe.out.get(), POLLIN, got));
      co_await turns(round % 3);
      write_one(pipe.in.get());
      co_await timeout(kPatience, group.join());
      CHECK(got == POLLIN);
      last = std::move(pipe.out);  // closes the one before while this pipe's number is taken
    }
  });
}

TEST_CASE("a wait is dropped at every moment, its descriptor closed and its number used again") {
  struct Scenario {
    Task<> task() {
      group.spawn(write_later());
      co_await readable(number);
      CHECK(read_all(number) == "x");
      fill(pipe.in.get());
      group.spawn(read_later());
      (void)co_await when_any(writable(pipe.in.get()), ready(number, POLLPRI));
    }
    Task<> write_later() {
      co_await turns(1);
      write_one(pipe.in.get());
    }
    Task<> read_later() {
      co_await turns(1);
      while (!read_all(number).empty()) {
      }
    }
    Task<> afterwards(bool /*finished*/) {
      group.cancel();
      pipe.out.close();
      Pipe fresh = make_pipe_at(number);
      int got = 0;
      TaskGroup again;
      again.spawn(note(number, POLLIN, got));
      co_await turns(1);
      CHECK(got == 0);
      write_one(fresh.in.get());
      co_await timeout(kPatience, again.join());
      CHECK(got == POLLIN);
    }

    Pipe pipe = make_pipe();
    int number = pipe.out.get();
    TaskGroup group;
  };
  for_each_kernel_engine(kKernelOnly, [](Engine engine) {
    const Environment variable("WEIR_ENGINE", engine == Engine::uring ? "uring" : "epoll");
    CHECK(drop_at_every_moment([] { return std::make_unique<Scenario>(); }) >= 2);
  });
}

TEST_CASE("what cannot be waited for is an error, and a regular file always ready") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    const Fd file(::open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    const Fd directory(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (const int fd : {file.get(), directory.get()}) {
      CHECK(co_await readable(fd) == POLLIN);
      CHECK(co_await writable(fd) == POLLOUT);
      CHECK(co_await ready(fd, POLLIN | POLLOUT | POLLPRI) == (POLLIN | POLLOUT));
      CHECK(co_await error_of(fd, POLLPRI) == EPERM);
      CHECK(co_await error_of(fd, 0) == EPERM);
    }
    CHECK(co_await error_of(-1, POLLIN) == EBADF);
    CHECK(co_await error_of(closed_number(), POLLIN) == EBADF);
    bool named = false;
    try {
      co_await readable(-5);
    } catch (const std::system_error& error) {
      named = std::string_view(error.what()).find("descriptor -5") != std::string_view::npos;
    }
    CHECK(named);
  });
}

TEST_CASE("urgent data, half a close and a reset are told as poll(2) tells them") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    const auto [ours, theirs] = tcp_pair();
    const Fd here(ours);
    Fd there(theirs);
    int urgent = 0;
    int ended = 0;
    int broken = 0;
    TaskGroup group;
    group.spawn(note(here.get(), POLLPRI, urgent));
    group.spawn(note(here.get(), 0x2000, ended));  // POLLRDHUP
    group.spawn(note(here.get(), 0, broken));
    co_await turns(2);
    REQUIRE(::send(there.get(), "!", 1, MSG_OOB) == 1);
    co_await turn_until([&] { return urgent != 0; });
    CHECK(urgent == POLLPRI);
    CHECK(ended == 0);
    REQUIRE(::shutdown(there.get(), SHUT_WR) == 0);
    co_await turn_until([&] { return ended != 0; });
    CHECK(ended == 0x2000);
    CHECK(broken == 0);
    const linger hard{1, 0};
    REQUIRE(::setsockopt(there.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
    there.close();
    co_await group.join();
    CHECK((broken & POLLHUP) != 0);
    CHECK((broken & POLLERR) != 0);
  });
}

TEST_CASE("a wait to write goes on where the peer has sent all that it will, and takes nothing") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    const auto [ours, theirs] = tcp_pair(4096);
    const Fd here(ours);
    const Fd there(theirs);
    fill(here.get());
    REQUIRE(::shutdown(there.get(), SHUT_WR) == 0);
    int may_write = 0;
    TaskGroup group;
    group.spawn(note(here.get(), POLLOUT, may_write));
    co_await turns(3);
    const std::uint64_t before = completions();
    co_await turns(20);
    CHECK(completions() - before < 30);  // what holds for ever does not turn the loop
    CHECK(may_write == 0);
    co_await turn_until([&] {
      (void)read_all(there.get());
      return may_write != 0;
    });
    CHECK(may_write == POLLOUT);
  });
}

TEST_CASE("what was taken before one came to look is waited for again") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    Pipe pipe = make_pipe();
    const auto take = [](int fd, int& took) -> Task<> {
      while (took < 6) {
        co_await readable(fd);
        took += static_cast<int>(read_all(fd).size());
      }
    };
    int took = 0;
    TaskGroup group;
    group.spawn(take(pipe.out.get(), took));
    group.spawn(take(pipe.out.get(), took));
    for (int i = 0; i < 6; ++i) {
      write_one(pipe.in.get());
      co_await turns(2);
    }
    co_await turn_until([&] { return took == 6; });
    write_one(pipe.in.get());
    co_await group.join();
  });
}

TEST_CASE("a connection of weir's own can be waited for beside its reads and sends") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    auto [conn, peer] = connect_pair();
    const int fd = conn.native_handle();
    for (int round = 0; round < 3; ++round) {
      CHECK((co_await writable(fd) & POLLOUT) != 0);
      int got = 0;
      std::optional<TaskGroup> group(std::in_place);
      group->spawn(note(fd, POLLPRI, got));
      co_await turns(1);
      peer.send("question");
      CHECK((co_await conn.read_exactly(8)).view() == "question");
      co_await conn.send("answer");
      co_await conn.flush();
      CHECK(peer.receive_exactly(6) == "answer");
      group.reset();
      peer.send("more");
      CHECK((co_await conn.read_exactly(4)).view() == "more");
    }
    co_return;
  });
}

TEST_CASE("a loop that ends drops the waits on it") {
  for_each_kernel_engine(kKernelOnly, [](Engine engine) {
    Pipe pipe = make_pipe();
    int got = 0;
    {
      EventLoop loop({.engine = engine});
      loop.spawn(note(pipe.out.get(), POLLIN, got));
      loop.spawn(note(pipe.out.get(), POLLPRI, got));
      loop.run_until_complete(turns(2));
    }
    write_one(pipe.in.get());
    CHECK(got == 0);
  });
}

TEST_CASE("a wait that outlives its loop's tasks ends with the loop") {
  for_each_kernel_engine(kKernelOnly, [](Engine engine) {
    Pipe pipe = make_pipe();
    int error = 0;
    const auto wait = [](int fd, int& what) -> Task<> { what = co_await error_of(fd, POLLIN); };
    std::optional<EventLoop> loop(std::in_place, LoopOptions{.engine = engine});
    std::optional<TaskGroup> group;
    const auto start = [&]() -> Task<> {
      group.emplace();
      group->spawn(wait(pipe.out.get(), error));
      co_return;
    };
    loop->run_until_complete(start());
    loop.reset();
    CHECK(error == ECANCELED);
    group.reset();
  });
}

TEST_CASE("in the simulation a wait for a descriptor of the system's is refused") {
  on_simulation([]() -> Task<> {
    const Fd event(::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
    std::string text;
    try {
      co_await readable(event.get());
    } catch (const std::logic_error& error) {
      text = error.what();
    }
    CHECK(text.find("simulated") != std::string::npos);
  });
}

TEST_CASE("a wait makes no coroutine frame, and who is always ready lets others run") {
  on_each_kernel_engine(kKernelOnly, []() -> Task<> {
    const Fd event(::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
    bool ran = false;
    EventLoop::current().post([&ran] { ran = true; });
    int rounds = 0;
    while (!ran && rounds < 100'000) {
      co_await readable(event.get());
      ++rounds;
    }
    CHECK(ran);
  });
}
