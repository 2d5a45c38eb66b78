#include <weir/io/service_manager.h>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace weir::detail {
namespace {

std::string_view variable(const char* name) noexcept {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return value == nullptr ? std::string_view() : std::string_view(value);
}

/// 0 for what is no number.
std::uint64_t number_of(std::string_view text) noexcept {
  std::uint64_t number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() ? number : 0;
}

}  // namespace

void tell_service_manager(std::string_view state) noexcept {
  const std::string_view path = variable("NOTIFY_SOCKET");
  sockaddr_un to{};
  if (path.size() < 2 || path.size() >= sizeof to.sun_path) return;
  if (path.front() != '/' && path.front() != '@') return;
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, path.data(), path.size());
  if (path.front() == '@') to.sun_path[0] = '\0';
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  (void)::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                 reinterpret_cast<const sockaddr*>(&to), size);
  ::close(fd);
}

Duration service_watchdog() noexcept {
  const std::string_view process = variable("WATCHDOG_PID");
  if (!process.empty() && number_of(process) != static_cast<std::uint64_t>(::getpid())) return {};
  const std::uint64_t limit = number_of(variable("WATCHDOG_USEC"));
  constexpr std::uint64_t kLongest = 1'000'000'000'000;
  return std::chrono::microseconds(limit < kLongest ? limit : 0);
}

}  // namespace weir::detail
