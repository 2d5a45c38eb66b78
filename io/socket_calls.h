#pragma once

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

namespace weir::detail {

// recv(2) and send(2), but no cancellation points (pthreads(7)): those cost some 45 instructions,
// two of them locked, for each call in a process that has threads. A sanitizer wants to see the
// calls.

inline ssize_t receive_bytes(int fd, void* to, std::size_t size, int flags) noexcept {
#if defined(SYS_recvfrom) && !defined(WEIR_SANITIZED)
  return ::syscall(SYS_recvfrom, fd, to, size, flags, nullptr, nullptr);
#else
  return ::recv(fd, to, size, flags);
#endif
}

inline ssize_t send_bytes(int fd, const void* from, std::size_t size, int flags) noexcept {
#if defined(SYS_sendto) && !defined(WEIR_SANITIZED)
  return ::syscall(SYS_sendto, fd, from, size, flags, nullptr, 0);
#else
  return ::send(fd, from, size, flags);
#endif
}

inline ssize_t send_message(int fd, const msghdr& message, int flags) noexcept {
#if defined(SYS_sendmsg) && !defined(WEIR_SANITIZED)
  return ::syscall(SYS_sendmsg, fd, &message, flags);
#else
  return ::sendmsg(fd, &message, flags);
#endif
}

}  // namespace weir::detail
