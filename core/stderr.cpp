#include <weir/core/stderr.h>

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace weir::detail {
namespace {

struct File {
  bool open = false;
  bool may_be_a_log = false;  // a file, a pipe, a terminal
  dev_t device = 0;
  ino_t inode = 0;
};

File look() noexcept {
  struct stat found = {};
  if (::fstat(STDERR_FILENO, &found) != 0) return {};
  const auto mode = found.st_mode;
  return {true, S_ISREG(mode) || S_ISFIFO(mode) || S_ISCHR(mode), found.st_dev, found.st_ino};
}

const File& at_start() noexcept {
  static const File seen = look();
  return seen;
}

[[maybe_unused]] const bool looked = at_start().open;  // before main opens anything

bool usable() noexcept {
  const File& then = at_start();
  if (!then.open) return false;
  const File now = look();
  return now.may_be_a_log || (now.open && now.device == then.device && now.inode == then.inode);
}

bool wait_for_room(int milliseconds) noexcept {
  pollfd room{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  int ready = 0;
  while ((ready = ::poll(&room, 1, milliseconds)) < 0 && errno == EINTR) continue;
  return ready > 0;
}

}  // namespace

void write_stderr(std::string_view text) noexcept {
  while (!text.empty() && usable()) {
    const ssize_t count = ::write(STDERR_FILENO, text.data(), text.size());
    if (count >= 0) {
      text.remove_prefix(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {  // somebody has made it non-blocking
      if (!wait_for_room(-1)) return;
    } else if (errno != EINTR) {
      return;
    }
  }
}

void write_stderr_within(std::chrono::milliseconds limit, std::string_view text) noexcept {
  if (wait_for_room(static_cast<int>(limit.count()))) write_stderr(text.substr(0, 4096));
}

}  // namespace weir::detail
