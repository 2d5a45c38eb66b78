#include <weir/io/service_manager.h>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace weir::detail {
namespace {

constexpr std::size_t kMostDescriptors = 253;  // of a message: SCM_MAX_FD, unix(7)

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

/// Once, to the manager's socket.
bool tell(std::string_view state, std::span<const int> descriptors) noexcept {
  const std::string_view path = variable("NOTIFY_SOCKET");
  sockaddr_un to{};
  if (path.size() < 2 || path.size() >= sizeof to.sun_path) return false;
  if (path.front() != '/' && path.front() != '@') return false;
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, path.data(), path.size());
  if (path.front() == '@') to.sun_path[0] = '\0';
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  iovec text{.iov_base = const_cast<char*>(state.data()), .iov_len = state.size()};
  msghdr message{};
  message.msg_name = &to;
  message.msg_namelen = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMostDescriptors * sizeof(int))> control{};
  if (!descriptors.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  }
  const bool sent = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
  ::close(fd);
  return sent;
}

}  // namespace

void tell_service_manager(std::string_view state) noexcept { (void)tell(state, {}); }

bool store_descriptors(std::span<const int> descriptors) noexcept {
  return descriptors.size() <= kMostDescriptors && tell("FDSTORE=1\nFDNAME=weir", descriptors);
}

Duration service_watchdog() noexcept {
  const std::string_view process = variable("WATCHDOG_PID");
  if (!process.empty() && number_of(process) != static_cast<std::uint64_t>(::getpid())) return {};
  const std::uint64_t limit = number_of(variable("WATCHDOG_USEC"));
  constexpr std::uint64_t kLongest = 1'000'000'000'000;
  return std::chrono::microseconds(limit < kLongest ? limit : 0);
}

}  // namespace weir::detail
