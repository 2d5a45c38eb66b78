#pragma once

#include <cstdint>

namespace weir::detail {

/// An address as the kernel takes it (`struct sockaddr` and its length), opaque at this layer.
struct RawAddress {
  alignas(8) unsigned char bytes[112] = {};
  std::uint32_t size = 0;
};

/// The socket calls that never block. Each gives what the system call gives, with -errno for an
/// error. Loop's thread only.
class Sockets {
 public:
  enum class Option : std::uint8_t {
    no_delay,
    keep_alive,  // with sane times: idle 60 s, interval 10 s, 6 probes
    reuse_address,
    reuse_port,
    v6_only,
    user_timeout_ms,  // TCP_USER_TIMEOUT
    reset_on_close,   // SO_LINGER {1, 0}
    receive_buffer,
    send_buffer,
  };

  virtual int open(int family) = 0;  // a non-blocking, close-on-exec stream socket
  virtual int bind(int fd, const RawAddress& address) = 0;
  virtual int listen(int fd, int backlog) = 0;
  virtual int connect(int fd, const RawAddress& address) = 0;  // -EINPROGRESS: await writability
  virtual int accept(int listener) = 0;                        // -EAGAIN where nobody waits
  virtual int set(int fd, Option option, int value) = 0;
  virtual int take_error(int fd) = 0;  // SO_ERROR, which reading clears: 0 or a positive errno
  virtual int local_address(int fd, RawAddress& address) = 0;
  virtual int peer_address(int fd, RawAddress& address) = 0;
  virtual int shutdown_send(int fd) = 0;
  virtual void stop_listening(int fd) noexcept = 0;  // for all who have the socket
  virtual int unread_bytes(int fd) = 0;              // FIONREAD
  /// What was sent, and the peer has not acknowledged (SIOCOUTQ, tcp(7); unix(7): not read).
  virtual int unacknowledged_bytes(int fd) = 0;
  virtual void close(int fd) noexcept = 0;
  /// What system calls know it by, -1 where they do not.
  [[nodiscard]] virtual int native(int fd) const noexcept { return fd; }
  /// What holds now of a descriptor that is not weir's: of `events`, errors and hang-up, as poll(2)
  /// bits. Throws `std::logic_error` where there are none but weir's.
  virtual int look_at(int fd, std::uint16_t events) = 0;

  /// The process keeps a descriptor to spare as long as anybody wants it to.
  virtual void hold_spare() noexcept = 0;
  virtual void release_spare() noexcept = 0;
  /// For want of descriptors: accepts a client with the spare one and closes it at once. A
  /// descriptor if there is one again; 0: one was closed; -EAGAIN: nobody waits; -EMFILE, -ENFILE:
  /// not even the spare is to be had, for another thread took its number.
  virtual int accept_or_shed(int listener) = 0;
  /// For each that was accepted otherwise: the descriptor to be kept. -EMFILE: it has been closed,
  /// since the spare one was wanted and its number was the last.
  virtual int keep_accepted(int fd) noexcept = 0;

 protected:
  ~Sockets() = default;
};

}  // namespace weir::detail
