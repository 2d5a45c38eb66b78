// refused CASE [COMMAND [ARGUMENT...]]: runs an echo server, and clients that check it, or the
// command, where io_uring is refused for real.
// CASE: setup-eperm, setup-enosys, enter-eperm, register-eperm (a seccomp filter answers the call),
// memlock (nothing may be locked in memory), late-enter-eperm (a filter after the loop was made),
// none. Prints what became of it; the library's messages go to stderr.
#include <weir/weir.h>

#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

using namespace weir;
using namespace weir::detail;

namespace {

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

/// From now on the system call gives this error, in this thread and those it starts.
void refuse(int call, int error) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("PR_SET_NO_NEW_PRIVS");
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) != 0) fail("seccomp");
}

/// Root may lock as much as it likes: it takes another user.
void lock_nothing() {
  constexpr unsigned kNobody = 65534;
  const rlimit nothing{0, 0};
  if (::setrlimit(RLIMIT_MEMLOCK, &nothing) != 0) fail("setrlimit");
  if (::setgroups(0, nullptr) != 0 || ::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) {
    fail("setuid");
  }
}

Task<> echo(TcpConnection conn) {
  while (Chunk data = co_await conn.read()) co_await conn.send(std::move(data));
}

/// A blocking client: what it sends has to come back.
bool check_echo(const SocketAddress& address, std::size_t size) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const RawAddress& raw = address.raw();
  if (::connect(fd, reinterpret_cast<const sockaddr*>(raw.bytes), raw.size) != 0) fail("connect");
  std::string sent(size, '\0');
  for (std::size_t i = 0; i < size; ++i) sent[i] = static_cast<char>(i * 7 + i / 251);
  std::thread writer([&] {
    for (std::size_t at = 0; at < size;) {
      const auto count = ::send(fd, sent.data() + at, size - at, MSG_NOSIGNAL);
      if (count <= 0) break;
      at += static_cast<std::size_t>(count);
    }
    ::shutdown(fd, SHUT_WR);
  });
  std::string received;
  char buffer[65536];
  for (ssize_t count = 0; (count = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) {
    received.append(buffer, static_cast<std::size_t>(count));
  }
  writer.join();
  ::close(fd);
  return received == sent;
}

void serve_and_check() {
  EventLoop loop;
  std::printf("engine: %s\n", std::string(loop.engine_name()).c_str());
  TcpServer server(loop, {.address = SocketAddress::parse("127.0.0.1:0"), .threads = 2});
  server.start(echo);
  std::size_t right = 0;
  std::thread clients([&] {
    for (const std::size_t size : {0U, 1U, 64U, 4096U, 4097U, 100'000U, 5'000'000U}) {
      right += check_echo(server.address(), size) ? 1U : 0U;
    }
    loop.stop();
  });
  loop.run();
  clients.join();
  std::printf("echo: %zu of 7 right\n", right);
}

void lose_enter() {
  EventLoop loop;
  std::printf("engine: %s\n", std::string(loop.engine_name()).c_str());
  refuse(SYS_io_uring_enter, EPERM);
  try {
    loop.run_until_complete([]() -> Task<> { co_await sleep(std::chrono::hours(1)); }());
  } catch (const std::system_error& error) {
    std::printf("error: %s\n", error.what());
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc <= 2) ::alarm(300);
  const std::string what = argc > 1 ? argv[1] : "none";
  if (what == "setup-eperm") refuse(SYS_io_uring_setup, EPERM);
  if (what == "setup-enosys") refuse(SYS_io_uring_setup, ENOSYS);
  if (what == "enter-eperm") refuse(SYS_io_uring_enter, EPERM);
  if (what == "register-eperm") refuse(SYS_io_uring_register, EPERM);
  if (what == "pwait2-enosys") refuse(SYS_epoll_pwait2, ENOSYS);
  if (what == "memlock") lock_nothing();
  if (argc > 2) {
    ::execvp(argv[2], argv + 2);
    fail(argv[2]);
  }
  if (what == "late-enter-eperm") {
    lose_enter();
  } else {
    serve_and_check();
  }
  std::printf("end\n");
} catch (const std::exception& error) {
  std::printf("exception: %s\n", error.what());
  return 1;
}
