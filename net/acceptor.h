#pragma once

#include <weir/core/event_loop.h>
#include <weir/net/socket.h>
#include <weir/net/socket_address.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

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
};

/// Opens, binds and listens. Throws `std::system_error` naming the address (in use, not ours, not
/// permitted), `std::invalid_argument` naming a bad option. A Unix address replaces a socket file
/// that nobody listens on any more.
[[nodiscard]] Socket listen(Sockets& sockets, const SocketAddress& address,
                            const AcceptorOptions& options = {});

/// A listening socket on the current loop. Out of descriptors, it accepts with its spare one and
/// closes at once, so that clients are not left hanging; it recovers by itself. Loop's thread only.
class Acceptor {
 public:
  class State;

  class [[nodiscard("co_await it")]] AcceptAwaiter : private Link {
   public:
    explicit AcceptAwaiter(std::shared_ptr<State> state) noexcept;
    AcceptAwaiter(AcceptAwaiter&& other) noexcept;
    ~AcceptAwaiter();

    bool await_ready();
    void await_suspend(std::coroutine_handle<> handle);
    Socket await_resume();

   private:
    friend class State;
    friend class List<AcceptAwaiter>;

    std::shared_ptr<State> state_;
    Waiter waiter_;
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

  /// Stops listening: every waiter resumes with `std::errc::operation_canceled`, connections that
  /// nobody asked for are closed.
  void close() noexcept;

  /// Closes, but gives what was accepted and not asked for, and what stands in the kernel's
  /// backlog: closing a listener resets those.
  [[nodiscard]] std::vector<Socket> take_backlog();

  /// The same, complete: the kernel may have accepted some more by the time that it lets go of the
  /// listener, and with `hand_over` nobody else gets those. `each` is called with every one, now
  /// and in later turns, outside of any coroutine; an empty socket says that it was the last and
  /// that the listener is closed. It is kept until then.
  void drain(std::function<void(Socket)> each);

  /// Connections closed at once for want of descriptors.
  [[nodiscard]] std::uint64_t shed() const noexcept;
  /// Counts them there as well, for other threads to read; until it is closed.
  void count_shed_in(std::atomic<std::uint64_t>& total) noexcept;

  /// Nobody else has the listener, as with one that was made from an address: closing it ends it at
  /// once, though the kernel may hold it for a moment yet, and its address can be bound again.
  void own_listener() noexcept;
  /// Others have it too: closing leaves it to them, with the file of a Unix address.
  void share_listener() noexcept;

  /// The listening descriptor, still ours; -1 once closed.
  [[nodiscard]] int fd() const noexcept;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace weir
