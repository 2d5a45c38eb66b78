#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "emulated.h"

namespace weir::test {

/// A program that runs beside the test, with its output in a pipe; killed at the end of this.
class Child {
 public:
  enum class Input { none, written };  // nothing at all, or what `write` gives it

  Child(const std::string& path, const std::vector<std::string>& arguments,
        Input with = Input::none) {
    int output[2];
    REQUIRE(::pipe2(output, O_CLOEXEC) == 0);
    output_ = output[0];
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    int input[2] = {-1, -1};
    if (with == Input::written) {
      // A pair of sockets, which gives an error instead of SIGPIPE.
      REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, input) == 0);
      input_ = input[1];
      ::posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
    } else {
      ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    }
    ::posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, output[1], STDERR_FILENO);
    std::vector<std::string> words = command_of(path, arguments);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const int error = ::posix_spawnp(&process_, argv[0], &actions, nullptr, argv.data(), ::environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(output[1]);
    if (input[0] >= 0) ::close(input[0]);
    if (error != 0) process_ = -1;
    INFO("program: " << path);
    CHECK(error == 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (process_ > 0) {
      ::kill(process_, SIGKILL);
      (void)wait();
    }
    close_input();
    ::close(output_);
  }

  /// One line of its output without the newline; what there is at its end, or after two minutes.
  std::string read_line() {
    std::size_t end = 0;
    while ((end = text_.find('\n')) == std::string::npos && read_more()) continue;
    std::string line = text_.substr(0, end);
    text_.erase(0, end == std::string::npos ? end : end + 1);
    return line;
  }

  /// The rest of its output.
  std::string read_all() {
    while (read_more()) continue;
    return std::exchange(text_, {});
  }

  /// To its standard input, which takes a hundred kilobytes without waiting. False if it has closed
  /// it.
  bool write(std::string_view text) {
    while (!text.empty()) {
      const ssize_t count = ::send(input_, text.data(), text.size(), MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }
  void close_input() {
    if (input_ >= 0) ::close(std::exchange(input_, -1));
  }

  [[nodiscard]] pid_t process() const noexcept { return process_; }

  void signal(int number) const { ::kill(process_, number); }

  /// Waits for its end; gives the exit status, or -signal.
  int wait() {
    if (process_ <= 0) return -1000;
    int status = 0;
    while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) continue;
    process_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  bool read_more() {
    pollfd readable{.fd = output_, .events = POLLIN, .revents = 0};
    int ready = 0;
    while ((ready = ::poll(&readable, 1, 120'000)) < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    char buffer[4096];
    const ssize_t count = ::read(output_, buffer, sizeof buffer);
    if (count <= 0) return false;
    text_.append(buffer, static_cast<std::size_t>(count));
    leave_out_refusal();
    return true;
  }

  /// What the first loop says where io_uring is refused: no program's own output.
  void leave_out_refusal() {
    std::size_t at = 0;
    while ((at = text_.find("[info] using epoll, since ")) != std::string::npos) {
      const std::size_t end = text_.find('\n', at);
      if (end == std::string::npos) return;
      const std::size_t before = text_.rfind('\n', at);
      const std::size_t begin = before == std::string::npos ? 0 : before + 1;
      text_.erase(begin, end + 1 - begin);
    }
  }

  pid_t process_ = -1;
  int output_ = -1;
  int input_ = -1;
  std::string text_;
};

}  // namespace weir::test
