#pragma once

#include <weir/core/event_loop.h>
#include <weir/net/socket.h>
#include <weir/net/socket_address.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace weir {

struct AcceptorOptions {
  /// Connections that the kernel queues for us; the system clips it to net.core.somaxconn.
  int backlog = 4096;
  bool reuse_address = true;
  bool reuse_port = false;  // several listeners on one port, of this user's processes (socket(7))
  bool v6_only = false;     // an IPv6 listener takes no IPv4 clients

  /// What accepted sockets inherit.
  bool no_delay = true;
  bool keep_alive = true;

  /// Accepted connections that wait for an `accept`, at the most; above it the kernel's backlog
  /// holds the rest. A mark: what is under way by then still comes in.
  std::size_t max_waiting = 256;

  /// Permissions of a Unix socket's file, whatever the umask: who may write to it may connect.
  unsigned unix_mode = 0660;
};

namespace detail {

/// Opens, binds and listens. Throws `std::system_error` naming the address (in use, not ours, not
/// permitted), `std::invalid_argument` naming a bad option. A Unix address replaces a socket file
/// of this user that nobody listens on any more.
[[nodiscard]] Socket listen(Sockets& sockets, const SocketAddress& address,
                            const AcceptorOptions& options = {});

}  // namespace detail

/// A listening socket on the current loop. Out of descriptors, it accepts with its spare one and
/// closes at once, so that clients are not left hanging; it recovers by itself. Loop's thread only.
class Acceptor {
 public:
  class State;

  class [[nodiscard("co_await it")]] AcceptAwaiter {
   public:
    static constexpr char kWaitsFor[] = "accept";

    explicit AcceptAwaiter(std::shared_ptr<State> state) noexcept;
    AcceptAwaiter(AcceptAwaiter&& other) noexcept;
    ~AcceptAwaiter();

    bool await_ready();
    void await_suspend(std::coroutine_handle<> handle);
    Socket await_resume();

   private:
    friend class State;
    friend struct detail::Hook;

    detail::Link link;

    std::shared_ptr<State> state_;
    detail::Waiter waiter_;
    int result_ = 0;  // a descriptor once the accept is done, or -errno
    bool done_ = false;
  };

  /// Binds and listens; throws as `listen` does.
  explicit Acceptor(const SocketAddress& address, AcceptorOptions options = {})
      : Acceptor(EventLoop::current(), address, options) {}
  Acceptor(EventLoop& loop, const SocketAddress& address, AcceptorOptions options = {});
  /// Takes over a socket that listens already; it stays bound as it is.
  Acceptor(EventLoop& loop, Socket listener, AcceptorOptions options = {});
  Acceptor(Acceptor&&) noexcept = default;
  Acceptor& operator=(Acceptor&& other) noexcept;
  /// Closes.
  ~Acceptor();

  /// `co_await accept()` gives a connected socket, in the order of the clients, to the first who
  /// asked. Throws `std::errc::operation_canceled` once closed. Dropping it leaves its client to
  /// the next accept.
  AcceptAwaiter accept();

  /// The bound address, with the real port.
  [[nodiscard]] const SocketAddress& address() const;

  /// No further clients: what the kernel has already is still given by `accept`, which throws
  /// `std::errc::operation_canceled` from then on. The address can be bound again at once, or is
  /// left to those who share it.
  void stop_listening() noexcept;

  /// Closes the listener: every waiter resumes with `std::errc::operation_canceled`, connections
  /// that nobody asked for are closed.
  void close() noexcept;

  /// Connections closed at once for want of descriptors.
  [[nodiscard]] std::uint64_t shed() const noexcept;
  /// The same, for other threads to read, also when the acceptor has gone.
  [[nodiscard]] std::shared_ptr<const std::atomic<std::uint64_t>> shed_counter() const noexcept;

  /// Nobody else has the listener, as with one that was made from an address: closing it ends it at
  /// once, though the kernel may hold it for a moment yet, and its address can be bound again.
  void own_listener() noexcept;
  /// Others have it too: closing leaves it to them, with the file of a Unix address. With a number,
  /// which another thread may change, as long as that is not 0.
  void share_listener() noexcept;
  void share_listener(std::shared_ptr<const std::atomic<int>> others) noexcept;

  /// The listening descriptor, still ours; -1 once it stops listening.
  [[nodiscard]] int fd() const noexcept;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace weir
