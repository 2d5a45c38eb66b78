#include <weir/net/socket.h>
#include <weir/net/socket_file.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace weir::detail {
namespace {

// Newer than the headers of Debian 12; the same number everywhere.
constexpr long kFchmodat2 = 452;

int change_mode(int file, unsigned mode) noexcept {
  const std::string by_descriptor = "/proc/self/fd/" + std::to_string(file);
  if (::chmod(by_descriptor.c_str(), mode) == 0) return 0;
  const int error = errno;
  if (error != ENOENT) return -error;
  return ::syscall(kFchmodat2, file, "", mode, AT_EMPTY_PATH) == 0 ? 0 : -error;
}

}  // namespace

SocketFile::SocketFile(const std::string& path) {
  struct stat info{};
  if (path.empty() || ::lstat(path.c_str(), &info) != 0) return;
  device = info.st_dev;
  number = info.st_ino;
}

void remove_stale(Sockets& sockets, const SocketAddress& address) {
  const std::string path(address.unix_path());
  struct stat info{};
  if (path.empty() || ::lstat(path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode)) return;
  if (info.st_uid != ::geteuid()) return;
  const SocketFile stale(path);
  const Socket probe(sockets, ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe || sockets.connect(probe.fd(), address.raw()) != -ECONNREFUSED) return;
  if (SocketFile(path) == stale) ::unlink(path.c_str());
}

int set_mode(const SocketAddress& address, unsigned mode) {
  const std::string path(address.unix_path());
  if (path.empty()) return 0;
  const int file = ::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (file < 0) return -errno;
  struct stat info{};
  const bool ours =
      ::fstat(file, &info) == 0 && S_ISSOCK(info.st_mode) && info.st_uid == ::geteuid();
  const bool is_set = ours && (info.st_mode & 07777) == mode;
  const int result = !ours ? -EPERM : is_set ? 0 : change_mode(file, mode);
  ::close(file);
  return result;
}

}  // namespace weir::detail
