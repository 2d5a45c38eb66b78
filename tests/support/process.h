#pragma once

#include <dirent.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>

namespace weir::test {

/// What the thread that looks for stalls reads at any time, on a busy machine: what the kernel says
/// of a thread, and the names in the program and its libraries.
inline bool is_of_stalls(std::string_view target) {
  char program[256] = {};
  [[maybe_unused]] const auto size = ::readlink("/proc/self/exe", program, sizeof program - 1);
  return target.starts_with("/proc/") || target == program ||
         target.find(".so") != std::string_view::npos;
}

/// The descriptors of this process and what each of them is.
inline std::map<int, std::string> open_descriptors() {
  std::map<int, std::string> found;
  DIR* directory = ::opendir("/proc/self/fd");
  if (directory == nullptr) return found;
  while (const dirent* entry = ::readdir(directory)) {
    if (entry->d_name[0] == '.') continue;
    const int fd = std::atoi(entry->d_name);
    if (fd == ::dirfd(directory)) continue;
    char target[256] = {};
    const std::string path = std::string("/proc/self/fd/") + entry->d_name;
    if (::readlink(path.c_str(), target, sizeof target - 1) < 0) continue;  // closed meanwhile
    if (!is_of_stalls(target)) found.emplace(fd, target);
  }
  ::closedir(directory);
  return found;
}

/// All threads of this process but the calling one sleep: none is about to be started, allocates
/// or holds a lock of the allocator, which GCC 12's AddressSanitizer leaves locked in a child.
inline bool other_threads_sleep() {
  const std::string own = std::to_string(::gettid());
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    if (task.path().filename() == own) continue;
    std::string line;
    std::getline(std::ifstream(task.path() / "stat"), line);
    const std::size_t name_end = line.rfind(')');
    if (name_end != std::string::npos && line.compare(name_end, 4, ") S ", 4) != 0) return false;
  }
  return true;
}

/// Sets an environment variable, or removes it with nullptr, until the end of its life.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) {
      before_ = before;
      was_set_ = true;
    }
    set(value);
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  ~Environment() { set(was_set_ ? before_.c_str() : nullptr); }

 private:
  void set(const char* value) const {
    if (value != nullptr) {
      ::setenv(name_, value, 1);
    } else {
      ::unsetenv(name_);
    }
  }

  const char* name_;
  std::string before_;
  bool was_set_ = false;
};

}  // namespace weir::test
