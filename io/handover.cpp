#include <weir/io/handover.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <system_error>

namespace weir {
namespace {

constexpr int kFirst = 3;  // SD_LISTEN_FDS_START
constexpr int kMost = 256;
/// In LISTEN_FDNAMES: of sockets that a server of ours bound itself.
constexpr std::string_view kOwnName = "weir-own";

bool number_of(const char* variable, long& value) {
  const char* text = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe)
  if (text == nullptr) return false;
  const char* end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, value);
  return parsed.ec == std::errc() && parsed.ptr == end;
}

/// What the child does between fork and exec: async-signal-safe calls only, no memory.
[[noreturn]] void become(char* const* argv, char* const* envp, char* pid_digits,
                         std::span<const int> descriptors, std::span<int> scratch, int status) {
  auto pid = static_cast<unsigned long>(::getpid());
  char digits[24];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + pid % 10);
    pid /= 10;
  } while (pid != 0);
  for (int i = 0; i < count; ++i) pid_digits[i] = digits[count - 1 - i];
  pid_digits[count] = '\0';
  // First out of the way of the numbers that they have to get, then there, without close-on-exec.
  const int above = kFirst + static_cast<int>(descriptors.size());
  status = ::fcntl(status, F_DUPFD_CLOEXEC, above);
  bool placed = status >= 0;
  for (std::size_t i = 0; placed && i < descriptors.size(); ++i) {
    scratch[i] = ::fcntl(descriptors[i], F_DUPFD_CLOEXEC, above);
    placed = scratch[i] >= 0;
  }
  for (std::size_t i = 0; placed && i < descriptors.size(); ++i) {
    placed = ::dup2(scratch[i], kFirst + static_cast<int>(i)) >= 0;
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (placed) ::execve(argv[0], argv, envp);
  const int error = errno;
  [[maybe_unused]] const auto written = ::write(status, &error, sizeof error);
  ::_exit(127);
}

}  // namespace

std::vector<int> inherited_descriptors() {
  long pid = 0;
  long count = 0;
  std::vector<int> descriptors;
  if (!number_of("LISTEN_PID", pid) || pid != ::getpid() || !number_of("LISTEN_FDS", count)) {
    return descriptors;
  }
  for (int fd = kFirst; fd < kFirst + count && fd < kFirst + kMost; ++fd) {
    // A number that was given back may be anybody's by now.
    int listens = 0;
    socklen_t size = sizeof listens;
    if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) continue;
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) continue;
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) descriptors.push_back(fd);
  }
  return descriptors;
}

bool inherited_files() noexcept {
  const char* names = std::getenv("LISTEN_FDNAMES");  // NOLINT(concurrency-mt-unsafe)
  return names != nullptr && std::string_view(names).starts_with(kOwnName);
}

int start_with_descriptors(const std::vector<std::string>& command,
                           std::span<const int> descriptors, bool with_files) {
  if (command.empty()) throw std::invalid_argument("weir: the command to start is empty");
  if (descriptors.size() > static_cast<std::size_t>(kMost)) {
    throw std::invalid_argument("weir: too many listeners to hand over");
  }
  // All memory is taken before the fork: afterwards another thread may hold the heap's lock.
  std::vector<std::string> arguments = command;
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (!text.starts_with("LISTEN_")) {  // systemd's own: PID, FDS, FDNAMES …
      environment.emplace_back(text);
    }
  }
  environment.push_back("LISTEN_FDS=" + std::to_string(descriptors.size()));
  if (with_files) {
    std::string names(kOwnName);
    for (std::size_t i = 1; i < descriptors.size(); ++i) names += ":" + std::string(kOwnName);
    environment.push_back("LISTEN_FDNAMES=" + names);
  }
  constexpr std::string_view kPid = "LISTEN_PID=";
  environment.push_back(std::string(kPid) + std::string(24, '\0'));
  std::vector<char*> argv;
  std::vector<char*> envp;
  for (std::string& text : arguments) argv.push_back(text.data());
  for (std::string& text : environment) envp.push_back(text.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  std::vector<int> scratch(descriptors.size());
  int status[2];
  if (::pipe2(status, O_CLOEXEC) != 0) {
    throw std::system_error(errno, std::generic_category(), "weir: pipe");
  }
  const pid_t child = ::fork();
  if (child == 0) {
    become(argv.data(), envp.data(), environment.back().data() + kPid.size(), descriptors, scratch,
           status[1]);
  }
  const int fork_error = errno;
  ::close(status[1]);
  int error = child < 0 ? fork_error : 0;
  // The end of the pipe comes when the exec has succeeded.
  if (child > 0 && ::read(status[0], &error, sizeof error) != sizeof error) error = 0;
  ::close(status[0]);
  if (error != 0) {
    throw std::system_error(error, std::generic_category(), "weir: cannot start " + command[0]);
  }
  return child;
}

}  // namespace weir
