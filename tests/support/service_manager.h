#pragma once

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "net.h"

namespace weir::test {

/// A service manager's end of sd_notify(3).
class Manager {
 public:
  Manager() : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un any{};
    any.sun_family = AF_UNIX;
    REQUIRE(::bind(fd_, reinterpret_cast<sockaddr*>(&any), sizeof any.sun_family) == 0);
    socklen_t size = sizeof any;  // the kernel has chosen an abstract name
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&any), &size);
    name_ = '@' + std::string(any.sun_path + 1, size - offsetof(sockaddr_un, sun_path) - 1);
    const timeval patience{.tv_sec = 120, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;
  ~Manager() { ::close(fd_); }

  [[nodiscard]] const std::string& name() const { return name_; }
  /// The next that it is told.
  [[nodiscard]] std::string next(int flags = 0) {
    char text[256];
    iovec part{.iov_base = text, .iov_len = sizeof text};
    alignas(cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t count = 0;
    while ((count = ::recvmsg(fd_, &message, flags | MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
      continue;
    INFO("errno: " << errno);
    CHECK((count > 0 || flags == MSG_DONTWAIT));
    const cmsghdr* header = count < 0 ? nullptr : CMSG_FIRSTHDR(&message);
    if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
      const auto* data = CMSG_DATA(header);
      for (std::size_t at = 0; at + CMSG_LEN(0) < header->cmsg_len; at += sizeof(int)) {
        int descriptor = -1;
        std::memcpy(&descriptor, data + at, sizeof descriptor);
        store_.emplace_back(descriptor);
      }
    }
    return count < 0 ? std::string() : std::string(text, static_cast<std::size_t>(count));
  }
  /// What it was given to keep.
  [[nodiscard]] const std::vector<Peer>& store() const { return store_; }
  /// What it has been told by now.
  [[nodiscard]] std::vector<std::string> all() {
    std::vector<std::string> told;
    for (std::string one; !(one = next(MSG_DONTWAIT)).empty();) told.push_back(std::move(one));
    return told;
  }

 private:
  int fd_;
  std::string name_;
  std::vector<Peer> store_;
};

}  // namespace weir::test
