#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "../support/emulated.h"

namespace weir::test {

/// What a program left behind.
struct Ended {
  int status = -1;     // its exit status, or -signal
  std::string output;  // stdout and stderr
};

/// Runs a program of tests/programs to its end.
inline Ended run_child(const std::string& name, const std::vector<std::string>& arguments) {
  int pipe[2];
  REQUIRE(::pipe2(pipe, O_CLOEXEC) == 0);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, pipe[1], STDERR_FILENO);
  std::vector<std::string> words = command_of(WEIR_TEST_PROGRAMS_DIR "/" + name, arguments);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = -1;
  const int started = ::posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), ::environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(pipe[1]);
  Ended ended;
  if (started == 0) {
    char buffer[4096];
    for (;;) {
      const ssize_t count = ::read(pipe[0], buffer, sizeof buffer);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) break;
      ended.output.append(buffer, static_cast<std::size_t>(count));
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  ::close(pipe[0]);
  REQUIRE(started == 0);
  return ended;
}

}  // namespace weir::test
