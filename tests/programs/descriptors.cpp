// Prints the descriptors that it was started with, beyond the three of every program: one a line.
#include <dirent.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

int main() {
  DIR* directory = ::opendir("/proc/self/fd");
  if (directory == nullptr) return 1;
  while (const dirent* entry = ::readdir(directory)) {
    const int fd = std::atoi(entry->d_name);
    if (entry->d_name[0] == '.' || fd <= STDERR_FILENO || fd == ::dirfd(directory)) continue;
    char target[256] = {};
    const std::string path = std::string("/proc/self/fd/") + entry->d_name;
    [[maybe_unused]] const auto size = ::readlink(path.c_str(), target, sizeof target - 1);
    std::printf("%d %s\n", fd, target);
  }
  ::closedir(directory);
}
